"""Modes end to end: bytes of the reference arithmetic, a declaration readers know, and rules that find nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from publisher.formats import fouroversix, mxfp4, nvfp4, sweep
from tests.builders.sources import int4
from tests.builders.tiny import kimi, llama
from tests.native.test_runs import found, quantized, weights

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
NAME = "model.layers.1.mlp.down_proj"
SUFFIXES = {
    "modelopt": ("weight", "weight_scale", "weight_scale_2"),
    "compressed-tensors": ("weight_packed", "weight_scale", "weight_global_scale"),
}


def expected(mode: str, layout: str, values: np.ndarray) -> nvfp4.NvFp4Tensor:
    if mode == "four-over-six":
        return fouroversix.quantize(values)
    return sweep.quantize(values, policy=nvfp4.POLICIES["native" if layout == "modelopt" else layout])


@pytest.mark.parametrize(
    ("mode", "layout"), [("four-over-six", "modelopt"), ("mse", "modelopt"), ("mse", "compressed-tensors")]
)
def test_a_mode_writes_the_reference_bytes_and_validates(
    mode: str, layout: str, tmp_path: Path, run_program: Run
) -> None:
    folder, _ = quantized(tmp_path, llama(), run_program, mode=mode, layout=layout)
    stored, source = weights(folder), weights(tmp_path / "source")
    made = expected(mode, layout, source[f"{NAME}.weight"].float().numpy())
    payload, scales, scale = (stored[f"{NAME}.{suffix}"] for suffix in SUFFIXES[layout])
    assert np.array_equal(payload.numpy(), made.payload)
    assert np.array_equal(scales.view(torch.uint8).numpy(), made.block_scales)
    assert scale.numpy().reshape(-1)[0] == made.global_scale
    assert found(tmp_path) == []


@pytest.mark.parametrize("mode", ["floor", "ceil", "ceil6"])
def test_any_mxfp4_mode_is_what_compressed_tensors_reads(mode: Any, tmp_path: Path, run_program: Run) -> None:
    """Its library makes mode even only; what it unpacks of the others is what their arithmetic means."""
    from compressed_tensors.compressors.mxfp4 import MXFP4PackedCompressor
    from compressed_tensors.quantization import preset_name_to_scheme

    quantize = {"format": "mxfp4", "layout": "compressed-tensors", "mode": mode}
    folder, _ = quantized(tmp_path, llama(), run_program, **quantize)
    stored, source = weights(folder), weights(tmp_path / "source")
    values = source[f"{NAME}.weight"].float().numpy()
    policy = mxfp4.POLICIES["compressed-tensors"]
    made = mxfp4.quantize(values, mode=mode, policy=policy)
    assert np.array_equal(stored[f"{NAME}.weight_packed"].numpy(), made.payload)
    assert np.array_equal(stored[f"{NAME}.weight_scale"].numpy(), made.block_scales)
    assert (made.block_scales != mxfp4.quantize(values, mode="even", policy=policy).block_scales).any()
    state = {part: stored[f"{NAME}.{part}"] for part in ("weight_packed", "weight_scale")}
    read = MXFP4PackedCompressor.decompress(state, preset_name_to_scheme("MXFP4A16", ["Linear"]))
    assert np.array_equal(read["weight"].float().numpy(), made.dequantize())
    assert found(tmp_path) == []


def test_four_over_six_of_experts_validates(tmp_path: Path, run_program: Run) -> None:
    stored, _ = int4(kimi())
    quantized(tmp_path, stored, run_program, mode="four-over-six", quantize=["*.mlp.experts.*"])
    assert found(tmp_path) == []


def test_the_search_is_named_as_llm_compressor_names_it(tmp_path: Path, run_program: Run) -> None:
    from compressed_tensors.quantization import QuantizationConfig

    from publisher import jsonio

    folder, _ = quantized(tmp_path, llama(), run_program, mode="mse", layout="compressed-tensors")
    block = jsonio.load_json(folder / "config.json")["quantization_config"]
    parsed = QuantizationConfig.model_validate(block)
    weights_said = parsed.config_groups["group_0"].weights  # type: ignore[union-attr]
    assert weights_said is not None
    assert weights_said.observer == "mse"
