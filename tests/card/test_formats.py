"""Formats in words: what is stored decides, not what a name suggests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.card.formats import activation_text, format_name, format_rows, kv_text
from publisher.card.headers import coverage, logical_parameters, stored_keys
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from tests.builders.tiny import mixture
from tests.builders.variants import expert_stacks, gpt_oss, keeping, mixed

Edit = Callable[[dict[str, Any]], Any]


def edited(folder: Path, edit: Edit) -> Checkpoint:
    config = json.loads((folder / "config.json").read_text())
    edit(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))
    return open_checkpoint(folder)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda block: block.pop("kv_cache_scheme"), "not quantized"),
        (lambda block: block.update(kv_cache_scheme="NVFP4"), "NVFP4, static; no scales stored, engines use 1.0"),
    ],
)
def test_the_cache(nvfp4: Path, edit: Edit, says: str) -> None:
    assert kv_text(edited(nvfp4, edit)) == says


def test_activations_of_a_quark_block_without_input_spec_are_not_quantized(mxfp4: Path) -> None:
    checkpoint = edited(mxfp4, lambda block: block["global_quant_config"].update(input_tensors=None))
    assert (activation_text(checkpoint) or "").startswith("not quantized (weight-only)")
    assert format_name(checkpoint) == "MXFP4"


def test_an_unquantized_model_has_no_rows(source: Path) -> None:
    checkpoint = open_checkpoint(source)
    assert format_rows(checkpoint) == ()
    assert activation_text(checkpoint) is None
    assert kv_text(checkpoint) == "not quantized"


def test_a_mixed_checkpoint_is_told_layer_by_layer(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(mixed(mixture()).write(tmp_path))
    assert format_name(checkpoint) == "NVFP4 and FP8"
    stored = "with a calibrated scale for each layer input"
    assert activation_text(checkpoint) == f"by layer: NVFP4 layers in FP4, {stored}; FP8 layers in FP8, {stored}"
    words = {row.label: str(row.value) for row in format_rows(checkpoint)}
    assert words["Weight format"].endswith("; FP8 layers: E4M3 elements with FP32 scales")
    rows = {row.pattern: row.dtype for row in coverage(checkpoint)}
    assert rows["model.layers.*.self_attn.o_proj"] == "F8_E4M3"


def test_experts_packed_in_one_tensor_are_counted_and_described(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(keeping(gpt_oss(), expert_stacks, self_attn="*self_attn*").write(tmp_path))
    weights = next(str(row.value) for row in format_rows(checkpoint) if row.label == "Weight format")
    assert "one FP32 scale for all experts of a projection" in weights
    rows = {row.pattern: row for row in coverage(checkpoint)}
    stack = rows["model.layers.*.mlp.experts.gate_up_proj"]
    assert (stack.quantized, stack.modules, stack.shape, stack.parameters) == (True, 2, (4, 192, 64), 2 * 4 * 192 * 64)
    total, packed = logical_parameters(checkpoint)
    source = open_checkpoint(gpt_oss().write(tmp_path / "source"))
    assert total == sum(ref.elements for ref in source.tensors.values())
    assert packed == 2 * 4 * (192 * 64 + 64 * 96)
    name, keys = stored_keys(checkpoint) or ("", ())
    assert name.startswith("model.layers.0.")
    assert {"weight", "weight_scale", "weight_scale_2"} <= {key.suffix for key in keys}
