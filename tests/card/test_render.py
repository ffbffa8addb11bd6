"""Cards: every number against the safetensors library, metadata by the real client, hostile text inert."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from markdown_it import MarkdownIt
from safetensors import safe_open

from publisher.card.context import card_context
from publisher.card.render import check_card, front_matter, render, templates
from publisher.checkpoint.open import open_checkpoint
from publisher.errors import PublisherError


def card(folder: Path, inputs: Mapping[str, Any], **changes: Any) -> str:
    return render(card_context(checkpoint=open_checkpoint(folder), **{**inputs, **changes}))


def table(text: str, heading: str) -> dict[str, str]:
    """First column to second of the first two-column table under a heading."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows[1:] if len(row) == 2}


def stored(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor as the safetensors library reads it."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="np") as file:
            for name in file.keys():  # noqa: SIM118 — a safe_open handle is no mapping
                view = file.get_slice(name)
                found[name] = (view.get_dtype(), tuple(view.get_shape()))
    return found


SIZE = {"BF16": 2, "F32": 4, "U8": 1, "F8_E4M3": 1}


def bytes_of(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    return sum(SIZE[dtype] * math.prod(shape) for dtype, shape in tensors.values())


@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_numbers_are_those_of_the_headers(form: str, inputs: dict[str, Any], request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(form)
    glance = table(card(folder, inputs), "At a glance")
    mine, theirs = stored(folder), stored(inputs["source"].folder)
    parameters = sum(math.prod(shape) for _, shape in theirs.values())  # what the model had before it was packed
    quantized = sum(math.prod(shape) for name, (_, shape) in theirs.items() if ".mlp." in name)
    assert (
        glance["Parameters"]
        == f"{parameters / 1000:.4g} K ({parameters:,}), {quantized / parameters:.1%} of them quantized"
    )
    size, before = bytes_of(mine), bytes_of(theirs)
    shards = [path.stat().st_size for path in folder.glob("*.safetensors")]
    assert glance["Storage"].startswith(f"{size / 1000:.1f} kB ({size / 1024:.1f} KiB) in 2 shards")
    assert f"the largest {max(shards) / 1000:.1f} kB" in glance["Storage"]
    assert glance["Compared with the source"].startswith(f"{size / before:.1%} of the source's {before / 1000:.1f} kB")
    assert glance["Compared with the source"].endswith(f"{8 * size / parameters:.2f} bits per parameter")
    assert glance["Layers × hidden size"] == "2 × 64"
    assert glance["Vocabulary"] == "96"
    assert table(card(folder, inputs), "Recipe")["Source weights"] == "BF16"


def test_nvfp4_card_says_how_it_is_stored(nvfp4: Path, inputs: dict[str, Any]) -> None:
    text = card(nvfp4, inputs)
    glance = table(text, "At a glance")
    assert glance["Weight format"].startswith("NVFP4: FP4 E2M1 elements; one FP8 E4M3 scale per 16 elements; one FP32")
    assert glance["Activation format"].startswith(
        "NVFP4, static: one FP32 scale per layer input, calibrated and stored"
    )
    assert glance["KV cache"] == "FP8 E4M3, static; no scales stored, engines use 1.0"
    for suffix, dtype, shape in (("weight", "U8", "64 × 64"), ("weight_scale", "F8_E4M3", "64 × 8")):
        assert f"| `{suffix}` | `{dtype}` | {shape} |" in text
    assert "| quantized | `model.layers.*.mlp.up_proj` | 2 | 0–1 | FP4 in U8 | 128 × 64 | – |" in text
    assert "| kept | `lm_head` | 1 | – | BF16 | 96 × 64 | named |" in text
    assert "| kept | `model.embed_tokens` | 1 | – | BF16 | 96 × 64 | not a linear layer |" in text
    assert "vllm serve example-lab/Tiny-1B-FP4 \\\n    --kv-cache-dtype fp8\n" in text
    assert "untested by the publisher" in text
    assert "trust" not in text


def test_mxfp4_card_says_how_it_is_stored(mxfp4: Path, inputs: dict[str, Any]) -> None:
    text = card(mxfp4, inputs)
    glance = table(text, "At a glance")
    assert "one E8M0 scale (a power of two, stored as U8) per 32 elements" in glance["Weight format"]
    assert glance["Activation format"].startswith("MXFP4, dynamic: scales per 32 elements are computed while serving")
    assert glance["KV cache"] == "not quantized"
    assert "AMD MI350X, MI355X (gfx950) | native" in text
    assert "ATOM" in text
    assert "kv-cache" not in text
    assert "re:^(.*\\.)?self_attn(\\..*)?$" in text  # as written, in a fenced block


def test_measurements_stand_beside_the_source(nvfp4: Path, inputs: dict[str, Any]) -> None:
    text = card(nvfp4, inputs)
    assert "| Weight-only perplexity | 14.645 | 16.435 | \\+12.22% |" in text
    assert "16 of 512 tokens" in text
    assert "ab" * 32 in text
    assert "/somewhere/private" not in text
    checked = table(text, "Validation")
    assert checked["Rules"] == "40 run, 0 failed, 1 not run"
    assert checked["Weight error"] == "0.0947 relative RMSE against the source weights, over 2 modules"
    assert checked["Largest in one module"] == "0.1000, model.layers.0.mlp.up_proj"
    assert table(text, "Recipe")["Quantized by"] == "publisher, native engine 1.2.3"


def test_no_path_of_this_machine_is_printed(nvfp4: Path, inputs: dict[str, Any], tmp_path: Path) -> None:
    assert str(tmp_path) not in card(nvfp4, inputs)


def test_the_same_files_give_the_same_card(nvfp4: Path, inputs: dict[str, Any]) -> None:
    first = card(nvfp4, inputs)
    (nvfp4 / "README.md").write_text(first)
    assert card(nvfp4, inputs) == first


def test_a_checkpoint_without_any_record_gets_a_card_without_holes(nvfp4: Path, inputs: dict[str, Any]) -> None:
    nothing = dict.fromkeys(("report", "quantize", "evaluation", "target"))
    text = card(nvfp4, inputs, **nothing, person={"base_model": "tiny-org/Tiny-1B"})
    assert "## Validation" not in text
    assert "Not evaluated." in text
    assert "extra_gated" not in text
    assert table(text, "Recipe")["Declared producer"] == "modelopt 0.47.0"
    assert "# Tiny-1B-NVFP4" in text
    assert check_card(text) == []


def test_the_client_reads_the_metadata(nvfp4: Path, inputs: dict[str, Any]) -> None:
    text = card(nvfp4, inputs)
    parsed = huggingface_hub.ModelCard(text)
    data = parsed.data.to_dict()
    assert data["base_model"] == "tiny-org/Tiny-1B"
    assert data["base_model_relation"] == "quantized"
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert data["language"] == ["en", "no"]
    assert data["tags"] == ["nvfp4", "fp4", "quantized", "modelopt", "vllm"]
    assert data["quantized_by"] == "Example Lab"
    assert data["extra_gated_heading"] == "Before you ask"
    assert data["extra_gated_fields"] == {"Company": "text", "I agree": "checkbox"}
    assert "model-index" not in data
    assert "upstream's own" not in text
    again = huggingface_hub.ModelCard(str(parsed))
    assert again.data.to_dict() == data
    assert again.text.strip() == text.split("\n---\n", 1)[1].strip()


HOSTILE = [
    "<script>alert(1)</script>",
    "a | b || c",
    "``` ` `` ```",
    "{{ 1371*7 }} {% raw %} {# x #}",
    "---\nlicense: mit\n---\n",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png)",
    "<img src=x onerror=alert(1)> & &lt;b&gt; http://evil.example www.evil.example",
    "# heading\n\n- list\n1. one\n> quote\n\n    code",
    "\u202eright to left\u0000\x1b[31m\ufeff",
    "\\(x\\) $$y$$ \\| *a* _b_ ~~c~~",
    "<!-- ",
]


class Tags(HTMLParser):
    """Collects tags and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links.update(value or "" for key, value in attrs if key in ("href", "src"))
        assert not any(key.startswith("on") for key, _ in attrs)


def page(text: str) -> Tags:
    found = Tags()
    body = text.split("\n---\n", 1)[1]
    found.feed(MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(body))
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_comes_out_inert(text: str, nvfp4: Path, inputs: dict[str, Any]) -> None:
    harmless = page(card(nvfp4, inputs, **_with(nvfp4, inputs, "harmless")))
    poisoned_card = card(nvfp4, inputs, **_with(nvfp4, inputs, text))
    poisoned = page(poisoned_card)
    assert poisoned.links == harmless.links
    assert poisoned.tags - harmless.tags <= {"code"}
    for tag in ("h1", "h2", "h3", "table", "tr", "td", "li", "pre", "strong", "blockquote", "hr", "p"):
        assert poisoned.counts.get(tag) == harmless.counts.get(tag), tag
    metadata = yaml.safe_load(poisoned_card.split("---\n")[1])
    assert metadata["license"] == "apache-2.0"
    assert metadata["quantized_by"] == text
    assert metadata["extra_gated_fields"] == {text: "text"}
    assert huggingface_hub.ModelCard(poisoned_card).data.to_dict()["quantized_by"] == text
    assert "\u202e" not in poisoned_card.split("\n---\n", 1)[1]
    assert "9597" not in poisoned_card


def _with(folder: Path, inputs: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The inputs with a stranger's text everywhere one can write; configuration and exclude list included."""
    config = json.loads((folder / "config.json").read_text())
    config["architectures"], config["model_type"] = [text], text
    config["rope_scaling"] = {"rope_type": text, "factor": 2.0}
    config["quantization_config"]["ignore"] = [text, "two words"]  # no engine reads it
    config["quantization_config"]["quant_algo"] = "NVFP4"
    config["quantization_config"]["producer"] = {"name": text, "version": text}
    (folder / "config.json").write_text(json.dumps(config))
    finding = {"code": text, "slug": text, "severity": "warning", "message": text}
    waived = {"rules_run": 1, "rules_not_run": 1, "errors": 0, "warnings": 1, "waivers": {text: text}}
    return {
        "report": {
            "findings": [finding],
            "not_run": [{"code": text, "reason": text}],
            "summary": waived,
            "tool": {"name": text, "version": text},
        },
        "quantize": {
            "engine": text,
            "versions": {text: text},
            "device": {"name": text},
            "weight_error": {"overall": 0.1, "modules": {text: 0.1}},
        },
        "evaluation": {**inputs["evaluation"], "prompt": text, "continuation": text},
        "person": {
            "base_model": "tiny-org/Tiny-1B",
            "publisher": {"name": text, "contact": text, "affiliation": text},
            "notes": [text],
            "limitations": [text],
            "intended_use": [text],
            "serving": {"verified": [f"vLLM {text}"]},
            "citation": {"bibtex": text},
            "gate": {"fields": {text: "text"}},
        },
    }


def test_module_names_are_a_strangers_too(tmp_path: Path, inputs: dict[str, Any], nvfp4: Path) -> None:
    path = next(iter(sorted(nvfp4.glob("*.safetensors"))))
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["<script>`|{{x}}.layers.0.evil.weight"] = header.pop("lm_head.weight")
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    found = page(card(nvfp4, inputs))
    assert "script" not in found.tags


@pytest.mark.parametrize(
    "value", ["no", "1e3", "0x10", "~", "2026-11-21", "a: b", "x #y", "é", "", " a ", "a\nb", "=", "12"]
)
def test_front_matter_means_the_same_to_every_yaml(value: str) -> None:
    block = front_matter({"key": value, "list": [value]})
    body = block.removeprefix("---\n").removesuffix("---\n")
    assert yaml.safe_load(body) == {"key": value, "list": [value]}
    assert body.splitlines()[0].startswith('key: "') or value == "é"
    assert len(body.splitlines()) == 3


def test_what_is_no_card_is_named(nvfp4: Path, inputs: dict[str, Any]) -> None:
    context = card_context(checkpoint=open_checkpoint(nvfp4), **inputs)
    good = render(context)
    assert check_card(good, context) == []
    assert check_card("# No metadata") == ["it does not begin with a metadata block"]
    assert check_card(good + "{{ left }}") == ["'{{' is left over"]
    assert check_card(good + "| a |  |\n") == ["a table has an empty cell"]
    assert "metadata does not read back" in check_card(good.replace("apache-2.0", "mit", 1), context)[0]
    assert check_card(good.replace("\n# Tiny", "\n## Tiny"), context) == ["its title is missing"]


def test_an_empty_field_is_refused_not_printed(nvfp4: Path, inputs: dict[str, Any]) -> None:
    context = card_context(checkpoint=open_checkpoint(nvfp4), **inputs)
    with pytest.raises(PublisherError, match="empty field"):
        render(replace(context, tool=""))


def test_templates_are_found_in_a_checkout() -> None:
    assert (templates() / "card/base.md.j2").is_file()


def test_the_card_shows_the_upstream_citation_as_it_is(nvfp4: Path, inputs: dict[str, Any]) -> None:
    assert "```bibtex\n@misc{tiny,\n  title = {{Tiny} model},\n  year = {2026}\n}\n```" in card(nvfp4, inputs)
