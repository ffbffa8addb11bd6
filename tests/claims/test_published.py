"""Five published documents beside checkpoints with the facts they state: every contradiction they hold, nothing else.

The checkpoints are headers alone, every tensor with its real shape (`tests/builders/kimi.py`): the sizes, counts and
parameters that the cards give are true of them. They are built and counted once, in one process.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from publisher import rules
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.replaced import Replaced
from publisher.claims.facts import Facts
from publisher.cli.card import CONTRADICTED, LEFT_OUT
from publisher.findings import Finding
from publisher.subjects import CARD, Evidence
from tests.builders import kimi

CARDS = Path(__file__).parent / "published"
SPEC = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
TOWERS = ["vision_tower*", "mm_projector*"]
EVERYTHING = (".mlp.experts.", ".shared_experts.", "layers.0.mlp.")


@pytest.fixture(autouse=True, scope="module")
def _counted_once() -> Iterator[None]:
    """What the headers say does not change with a word of the card beside them."""

    def once(name: str) -> property:
        compute, known = Facts.__dict__[name].func, dict[int, tuple[Any, Any]]()

        def get(facts: Facts) -> Any:
            modules = facts.checkpoint.modules
            if id(modules) not in known:
                known[id(modules)] = modules, compute(facts)
            return known[id(modules)][1]

        return property(get)

    with pytest.MonkeyPatch.context() as patched:
        for name in ("parameters", "_stored"):
            patched.setattr(Facts, name, once(name))
        yield


def read(name: str) -> str:
    return (CARDS / f"{name}.md").read_text()


def modelopt(version: str, ignore: list[str]) -> dict[str, Any]:
    return {
        "config_groups": {"group_0": {"weights": SPEC, "input_activations": SPEC, "targets": ["Linear"]}},
        "ignore": ["language_model.lm_head", "*self_attn*", *TOWERS, *ignore],
        "quant_algo": "NVFP4",
        "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
        "producer": {"name": "modelopt", "version": version},
        "quant_method": "modelopt",
    }


def quoted_block(card: str) -> dict[str, Any]:
    block = re.search(r"```json\n(.*?)```", card, re.DOTALL)
    assert block is not None
    found: dict[str, Any] = json.loads(block.group(1))
    return found


def compressed() -> dict[str, Any]:
    spec = {**SPEC, "strategy": "tensor_group"}
    parts = ("lm_head", "self_attn.*", "shared_experts.*", r"mlp\.gate$", r"layers\.0\.mlp\..*")
    return {
        "quant_method": "compressed-tensors",
        "format": "nvfp4-pack-quantized",
        "config_groups": {
            "group_0": {"weights": spec, "input_activations": {**spec, "dynamic": "local"}, "targets": ["Linear"]}
        },
        "ignore": [f"re:.*{part}" for part in parts] + ["re:vision_tower.*", "re:mm_projector.*"],
    }


@functools.cache
def checkpoint(name: str) -> Checkpoint:
    """The checkpoint a card speaks of."""
    experts, form, text, shards = EVERYTHING[:1], "modelopt", dict[str, Any](), 119
    if name.startswith("kimi-k2.6-nvfp4"):  # its card calls 32768 the model's ceiling
        quant, experts, text = modelopt("0.41.0", []), EVERYTHING, {"max_position_embeddings": 32768}
    elif name == "kimi-k2.6-mxfp4":
        quant, form, shards = quoted_block(read(name)), "quark", 64
    elif name == "kimi-k2.5-p48-nvfp4":
        quant, form = compressed(), "compressed-tensors"
    else:
        quant = modelopt("0.45.0", ["*.mlp.gate", "*shared_experts*", "language_model.model.layers.0.mlp*"])
    stored = kimi.tensors(form, experts)
    return open_checkpoint(kimi.files(stored, kimi.config(quant, **text), read(name), shards))


def told(name: str, card: str, *, select: tuple[str, ...] = CONTRADICTED) -> tuple[Finding, ...]:
    opened = checkpoint("kimi-k2.6-nvfp4" if name == "kimi-k2.6-nvfp4-announcement" else name)
    files = Replaced(opened.files, {CARD: card.encode()})
    evidence = Evidence(checkpoint=dataclasses.replace(opened, files=files), card=True)
    return rules.run(evidence, level="headers", select=select).findings


@dataclass(frozen=True)
class Expected:
    """A contradiction of a published card: code, severity, words of the message, and why it is one."""

    code: str
    severity: str
    words: str
    reason: str


FOUND = {
    "kimi-k2.6-nvfp4-announcement": [
        Expected(
            "LC05", "info", "MoE routers out of FP4|names 0 of 60",
            "the released config is said to keep the routers; its list does not name them, the tool left them alone",
        ),
    ],
    "kimi-k2.6-nvfp4": [
        Expected(
            "LC13", "warning", "Hopper (H100/H200)|weight-only",
            "vLLM's minimum capability for NVFP4 is 75 and it has a Marlin kernel: FP4 arithmetic needs Blackwell only",
        ),
        Expected(
            "LC05", "info", "MoE routers (mlp.gate.weight) are also BF16|names 0 of 60",
            "true of the tensors, but nothing in the exclude list says so to engines that decide by it",
        ),
    ],
    "kimi-k2.6-mxfp4": [
        Expected("LC05", "error", "MoE routers|stored unquantized", "every engine builds routers unquantized"),
        Expected(
            "LC05", "error", "0.12+ changes pack_method|already has pack_method: reorder",
            "the card warns of a default that its own configuration of version 0.11 already has",
        ),
        Expected("LC04", "error", "z = 1.26|at most 1.06", "0.41 points over errors of 0.49 / sqrt(3) each are 1.02"),
        Expected("LC05", "warning", "exclude: re:|by hand", "Quark matches globs and writes full names"),
        Expected(
            "LC05", "warning", "quant_method: quark|layer_type_quant_config",
            "vLLM and SGLang read layer_type_quant_config and kv_cache_group without asking",
        ),
    ],
    "kimi-k2.5-p48-nvfp4": [],
    "kimi-k2.7-code-nvfp4": [
        Expected("LC09", "error", "in line 13", "UTF-8 that was decoded with a Thai code page"),
        Expected("LC05", "warning", "non-Decart|Decart made", "a vendor's template sentence with the wrong party"),
        Expected(
            "LC05", "info", "dynamic NVFP4 input scales|69,120 modules",
            "block scales are dynamic; the scale of each input tensor is calibrated and stored",
        ),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_a_published_card_is_told_its_contradictions_and_nothing_else(name: str) -> None:
    findings = list(told(name, read(name)))
    for expected in FOUND[name]:
        match = [
            finding
            for finding in findings
            if (finding.code, str(finding.severity)) == (expected.code, expected.severity)
            and all(words in finding.message for words in expected.words.split("|"))
        ]
        assert len(match) == 1, f"{expected.reason}: {[finding.message for finding in findings]}"
        findings.remove(match[0])
    assert findings == []


# One figure or word of a card changed: the code that must tell, and the words of the fact.
CHANGED = [
    ("kimi-k2.6-nvfp4", "~590 GB (550 GiB)", "~610 GB (550 GiB)", "LC04", "590.8 GB"),
    ("kimi-k2.6-nvfp4", "~590 GB (550 GiB)", "550 GB", "LC04", "Write GiB"),
    ("kimi-k2.6-nvfp4", "~590 GB (550 GiB)", "~590 GB (560 GiB)", "LC04", "550.2 GiB"),
    ("kimi-k2.6-nvfp4", "across 119 safetensors", "across 118 safetensors", "LC04", "holds 119"),
    ("kimi-k2.6-nvfp4", "~1T total", "~2T total", "LC04", "weights (shard headers)"),
    ("kimi-k2.6-nvfp4", "16-element block scale in FP8", "32-element block scale in FP8", "LC04", "blocks hold 16"),
    ("kimi-k2.6-nvfp4", "(up to 32768, the", "(up to 65536, the", "LC04", "32,768"),
    ("kimi-k2.6-nvfp4", "| −0.15 pp |", "| −0.25 pp |", "LC04", "differ by -0.15"),
    ("kimi-k2.6-nvfp4", "| −0.40 pp |", "| +0.40 pp |", "LC04", "differ by -0.40"),
    ("kimi-k2.6-nvfp4", "within or near 1σ", "within 1σ", "LC05", "standard errors"),
    ("kimi-k2.6-nvfp4", "88.63% ± 0.26 | 89.03% ± 0.25 | −0.40", "87.63% ± 0.26 | 89.03% ± 0.25 | −1.40", "LC05", "3."),
    ("kimi-k2.6-nvfp4", "modelopt==0.41.0", "modelopt==0.39.1", "LC05", "modelopt 0.41.0"),
    ("kimi-k2.6-nvfp4", "| **KV cache** | FP8 E4M3 |", "| **KV cache** | BF16 |", "LC05", "FP8 cache is declared"),
    ("kimi-k2.6-nvfp4", "| NVFP4 (FP4 E2M1", "| MXFP4 (FP4 E2M1", "LC05", "NVFP4"),
    ("kimi-k2.6-nvfp4", "all `*self_attn*` projections", "shared experts", "LC05", "180 of 180 shared experts"),
    ("kimi-k2.6-nvfp4", "of [moonshotai/Kimi-K2.6]", "of [moonshotai/Kimi-K2.5]", "LC05", "the base model is"),
    ("kimi-k2.6-nvfp4", "upstream Modified MIT License", "Apache License 2.0", "LC05", "Modified MIT"),
    ("kimi-k2.6-nvfp4", "        --trust-remote-code \\\n", "", "LC12", "auto_map"),
    ("kimi-k2.6-nvfp4", "--enforce-eager \\", "--quantization awq \\", "LC12", "refuses another"),
    ("kimi-k2.6-nvfp4", "--max-model-len 8192 \\", "--max-model-len 131072 \\", "LC12", "32,768"),
    ("kimi-k2.6-mxfp4", "group-size 32", "group-size 16", "LC04", "blocks hold 32"),
    ("kimi-k2.6-mxfp4", "with E8M0 scales", "with E4M3 scales", "LC05", "E8M0"),
    ("kimi-k2.6-mxfp4", "All 384 routed", "All 256 routed", "LC04", "384 routed"),
    ("kimi-k2.6-mxfp4", "all 60 MoE layers", "all 61 MoE layers", "LC04", "60 layers of experts"),
    ("kimi-k2.6-mxfp4", "61 layers (1 dense", "62 layers (1 dense", "LC04", "61 hidden layers"),
    ("kimi-k2.6-mxfp4", "top-8,", "top-6,", "LC04", "8 experts per token"),
    ("kimi-k2.6-mxfp4", "kv_lora_rank=512", "kv_lora_rank=1024", "LC04", "kv_lora_rank = 512"),
    ("kimi-k2.6-mxfp4", "qk_rope=64", "qk_rope=32", "LC04", "qk_rope_head_dim = 64"),
    ("kimi-k2.6-mxfp4", "AMD Quark 0.11**", "AMD Quark 0.12**", "LC05", "quark 0.11"),
    ("kimi-k2.6-mxfp4", "Δ = +0.40 pp", "Δ = +0.90 pp", "LC04", "nearest difference"),
    ("kimi-k2.6-mxfp4", "- `lm_head`", "- routed experts", "LC05", "69,120 of 69,120 routed experts"),
    ("kimi-k2.6-mxfp4", '"is_dynamic": false', '"is_dynamic": true', "LC05", "has False"),
    ("kimi-k2.5-p48-nvfp4", "595 GB", "450 GB", "LC04", "595.2 GB"),
    ("kimi-k2.5-p48-nvfp4", "| 82.51 |", "| 83.51 |", "LC04", "average 82.51"),
    ("kimi-k2.5-p48-nvfp4", "| −3.50 |", "| −2.50 |", "LC04", "differ by -3.50"),
    ("kimi-k2.5-p48-nvfp4", "= 95.76%", "= 96.76%", "LC04", "95.76%"),
    ("kimi-k2.5-p48-nvfp4", "(89.89% recovery", "(91.89% recovery", "LC04", "no two figures"),
    ("kimi-k2.5-p48-nvfp4", "(MoE, 384 experts)", "(MoE, 384 experts)\n- MoE, 128 experts", "LC04", "384 routed"),
    ("kimi-k2.5-p48-nvfp4", "| `compressed-tensors` (", "| `modelopt` (", "LC05", "compressed-tensors"),
    ("kimi-k2.5-p48-nvfp4", "A preview W4A4", "A preview W4A16", "LC05", "activations are quantized"),
    ("kimi-k2.5-p48-nvfp4", "**Tested on:** 4× B200.", "It does not run on H100.", "LC13", "Hopper"),
    ("kimi-k2.7-code-nvfp4", "69,120 = 60", "69,210 = 60", "LC04", "the product is 69,120"),
    ("kimi-k2.7-code-nvfp4", "** 69,120 = 60 layers", "** 70,272 = 61 layers", "LC04", "69,120 quantized"),
    ("kimi-k2.7-code-nvfp4", "~1T total", "~480B total", "LC04", "weights (shard headers)"),
    ("kimi-k2.7-code-nvfp4", "Group size:** 16.", "Group size:** 32.", "LC04", "blocks hold 16"),
    ("kimi-k2.7-code-nvfp4", "the layer-0 dense MLP, lm_head,", "the routed experts,", "LC05", "69,120 of 69,120"),
]  # fmt: skip


@functools.cache
def as_published(name: str) -> frozenset[tuple[str, str]]:
    return frozenset((f.code, f.message.partition(" says ")[2]) for f in told(name, read(name)))


@pytest.mark.parametrize(("name", "old", "new", "code", "words"), CHANGED, ids=lambda value: str(value)[:24])
def test_a_changed_claim_is_told(name: str, old: str, new: str, code: str, words: str) -> None:
    card = read(name)
    assert old in card
    before = as_published(name)
    after = told(name, card.replace(old, new))
    fresh = [f for f in after if (f.code, f.message.partition(" says ")[2]) not in before]
    assert any(f.code == code and words in f.message for f in fresh), [f.message for f in fresh]


def test_routers_that_are_stored_quantized_are_told_too() -> None:
    """Then the card is true of the tensors, and the engines it names cannot load them."""
    name = "kimi-k2.6-mxfp4"
    stored = kimi.tensors("quark", (".mlp.experts.", ".mlp.gate"))
    opened = open_checkpoint(kimi.files(stored, kimi.config(quoted_block(read(name))), read(name)))
    findings = rules.run(Evidence(checkpoint=opened), level="headers", select=["LC05"]).findings
    assert any("build routers unquantized" in finding.message for finding in findings)


def test_what_cards_leave_out_is_told_where_it_is_asked_for() -> None:
    found = {name: {f.code for f in told(name, read(name), select=LEFT_OUT)} for name in FOUND}
    assert "LC10" in found["kimi-k2.5-p48-nvfp4"]  # does not say whether it is Moonshot's
    assert "LC10" not in found["kimi-k2.7-code-nvfp4"]  # says that it is not
    assert "LC11" in found["kimi-k2.5-p48-nvfp4"]  # no error and no number of samples
    assert "LC11" not in found["kimi-k2.6-nvfp4"]
