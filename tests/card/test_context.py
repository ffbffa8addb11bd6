"""The card's facts as values with an origin, for recipes, foreign checkpoints and sources nobody names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from publisher.card.context import CardContext, card_context
from publisher.card.render import render
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.source import resolve
from publisher.errors import PublisherError
from publisher.plan.model import Calibration, Plan, Recipe, TargetSpec


def make(folder: Path, inputs: dict[str, Any], **changes: Any) -> CardContext:
    return card_context(checkpoint=open_checkpoint(folder), **{**inputs, **changes})


def plan(tmp_path: Path, engine: str = "modelopt") -> Plan:
    recipe = Recipe(
        name="tiny",
        source=str(tmp_path / "secret-folder" / "upstream"),
        format="nvfp4",
        layout="modelopt",
        engine=engine,
        mode="max",
        activations="calibrated",
        calibration=Calibration(
            data=tmp_path / "secret-folder" / "chat.jsonl", samples=64, sequence_length=256, seed=7
        ),
        card=tmp_path / "secret-folder" / "card.toml",
    )
    return Plan(
        recipe=recipe,
        source_label=recipe.source,
        source_commit=None,
        decisions=(),
        classes=(),
        exclude=(),
        quantization_config={},
        hf_quant_config=None,
        bytes_before=0,
        bytes_after=0,
        shards=1,
        disk_needed=0,
        memory_needed=0,
    )


def test_a_plan_tells_the_recipe_without_this_machines_folders(
    nvfp4: Path, inputs: dict[str, Any], tmp_path: Path
) -> None:
    made = plan(tmp_path)
    context = make(nvfp4, inputs, plan=made, quantize={"versions": {"modelopt": "0.47.0"}})
    rows = {row.label: row.value.text for row in (*context.rows["method"], *context.rows["calibration"])}
    assert rows["Quantized by"] == "NVIDIA Model Optimizer (nvidia-modelopt) 0.47.0"
    assert rows["Calibration data"] == "chat.jsonl: up to 64 samples of at most 256 tokens, seed 7"
    assert rows["Recipe digest"] == f"sha256 {made.recipe.digest}"
    recorded = {"calibration": {"samples": 40, "tokens": 9001}}
    rows = {row.label: row.value.text for row in make(nvfp4, inputs, plan=made, quantize=recorded).rows["calibration"]}
    assert rows["Calibration data"] == "chat.jsonl: 40 samples of at most 256 tokens, 9,001 tokens in all, seed 7"
    told = yaml.safe_load(context.reproduce.recipe or "")
    assert told["source"] == "./source", "no commit is known, so no repository can be promised"
    assert told["calibration"]["data"] == "./chat.jsonl"
    text = render(context)
    assert "secret-folder" not in text
    assert "publisher push recipe.yaml\npublisher verify hf://example-lab/Tiny-1B-FP4" in text


def test_our_own_engine_is_named_although_the_file_says_modelopt(
    nvfp4: Path, inputs: dict[str, Any], tmp_path: Path
) -> None:
    rows = {row.label: row.value.text for row in make(nvfp4, inputs, plan=plan(tmp_path, "native")).rows["method"]}
    assert rows["Quantized by"].startswith("publisher, native engine")
    assert rows["Declared producer"].startswith("modelopt 0.47.0; loaders look for that name")


def test_every_value_names_the_file_it_came_from(nvfp4: Path, inputs: dict[str, Any]) -> None:
    context = make(nvfp4, inputs)
    values = [row.value for rows in context.rows.values() for row in rows]
    values += [cell for row in context.coverage.rows for cell in row]
    assert all(value.text and value.origin for value in values)


def test_a_source_nobody_names_is_refused_with_the_way_out(nvfp4: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(PublisherError) as caught:
        make(nvfp4, inputs, person={})
    assert "card.toml" in caught.value.hint
    assert 'base_model = "org/name"' in caught.value.hint


def test_the_upstream_card_may_name_itself(nvfp4: Path, inputs: dict[str, Any], source: Path) -> None:
    readme = source / "README.md"
    readme.write_text(readme.read_text().replace("---\n", "---\nsource_repo: real-org/Real\n", 1))
    context = make(nvfp4, inputs, person={}, source=resolve(str(source)))
    assert context.metadata["base_model"] == "real-org/Real"
    assert context.upstream.repo.origin == "source README.md: source_repo"


def test_modules_left_out_of_the_list_are_shown(nvfp4: Path, inputs: dict[str, Any]) -> None:
    config = json.loads((nvfp4 / "config.json").read_text())
    config["quantization_config"]["ignore"] = ["lm_head", "model.layers.0.self_attn*"]
    (nvfp4 / "config.json").write_text(json.dumps(config))
    context = make(nvfp4, inputs)
    cells = {row[1].text: row[-1].text for row in context.coverage.rows}
    assert cells["model.layers.*.self_attn.q_proj"] == "1 of 2 named"
    assert cells["lm_head"] == "named"
    assert any("4 modules are stored unquantized without being named" in v.text for v in context.limitations)


def test_weight_only_and_missing_scales_are_said(nvfp4: Path, inputs: dict[str, Any]) -> None:
    config = json.loads((nvfp4 / "config.json").read_text())
    config["quantization_config"]["quant_algo"] = "W4A16_NVFP4"
    (nvfp4 / "config.json").write_text(json.dumps(config))
    text = render(make(nvfp4, inputs))
    assert "not quantized (weight-only)" in text
    assert "vLLM** 0.23 or newer" in text
    assert "| native |" not in text


def test_the_persons_claims_mark_the_engine_they_name(nvfp4: Path, inputs: dict[str, Any]) -> None:
    person = {**inputs["person"], "serving": {"verified": ["vLLM 0.33.0 on 8x B200"]}}
    found = {c.engine: c.verified for c in make(nvfp4, inputs, person=person).commands}
    assert found == {"vLLM": "vLLM 0.33.0 on 8x B200", "SGLang": None, "TensorRT-LLM": None}


def test_custom_code_is_trusted_exactly_when_there_is_some(nvfp4: Path, inputs: dict[str, Any]) -> None:
    assert "custom_code" not in make(nvfp4, inputs).metadata["tags"]
    config = json.loads((nvfp4 / "config.json").read_text())
    (nvfp4 / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Model"}}))
    context = make(nvfp4, inputs)
    assert "custom_code" in context.metadata["tags"]
    assert all("trust" in command.text for command in context.commands)


def test_the_gate_is_a_form_only_when_there_is_a_gate(nvfp4: Path, inputs: dict[str, Any]) -> None:
    off = make(nvfp4, inputs, target=TargetSpec(repo="a/b", gate="off"))
    assert not [key for key in off.metadata if key.startswith("extra_gated")]
    default = make(nvfp4, inputs, person={"base_model": "tiny-org/Tiny-1B"})
    assert "apache-2.0" in default.metadata["extra_gated_prompt"]


def test_a_repository_name_that_is_none_never_reaches_a_command(nvfp4: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(PublisherError, match="no repository name"):
        make(nvfp4, inputs, target=TargetSpec(repo="a/b; rm -rf /"))


def test_what_no_engine_loads_is_said(nvfp4: Path, inputs: dict[str, Any]) -> None:
    config = json.loads((nvfp4 / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "MXFP4", "ignore": []}
    (nvfp4 / "config.json").write_text(json.dumps(config))
    text = render(make(nvfp4, inputs))
    assert "No serving engine is known" in text
    assert "vLLM: refuses quant_algo: mxfp4" in text


def test_a_source_without_terms_is_told(nvfp4: Path, inputs: dict[str, Any], source: Path) -> None:
    (source / "LICENSE").unlink()
    text = render(make(nvfp4, inputs, source=resolve(str(source))))
    assert "The source came without a licence file" in text
    assert "byte for byte those" not in text


def test_an_unquantized_or_unknown_checkpoint_still_has_a_card(source: Path, inputs: dict[str, Any]) -> None:
    context = make(source, inputs)
    assert context.keys is None
    assert "none known to load it" in render(context)
