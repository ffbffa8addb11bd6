"""An export is held against the plan and the source, byte for byte; the fixtures are packed by hand."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the programs read tensors with torch")

from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.writer import StagedWriter
from publisher.engines.programs import exported
from publisher.errors import EngineError
from publisher.native.source import SourceTensors

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
UP, GATE, NORM, BIAS = "layers.0.up", "layers.0.gate", "norm.weight", "router.bias"


def save(folder: Path, tensors: Tensors, config: dict[str, Any] | None = None) -> Path:
    """A one-shard checkpoint, packed here and not by the product."""
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {}
    body = b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


def bf16(values: Any) -> bytes:
    return (np.asarray(values, dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()


def f32(*values: float) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


def source_tensors() -> Tensors:
    # 1 and 1.0 / 6 of it: exact in E2M1 with block scale 1.0 and global scale 1/6 only where rounding is exact
    weight = np.tile(np.array([6, 4, 3, 2, 1.5, 1, 0.5, 0, -6, -4, -3, -2, -1.5, -1, -0.5, 0], dtype="<f4"), (2, 2))
    return {
        NORM: ("BF16", (16,), bf16(np.arange(16))),
        f"{UP}.weight": ("BF16", (2, 32), bf16(weight)),
        f"{GATE}.weight": ("BF16", (2, 32), bf16(weight * 2)),
        "router.weight": ("BF16", (2, 16), bf16(np.ones((2, 16)))),
        BIAS: ("F32", (4,), f32(1.0009765625, 2, 3, 4)),
    }


def quantized(name: str, factor: float) -> Tensors:
    codes = [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 0]
    packed = bytes(low | high << 4 for low, high in zip(codes[::2], codes[1::2], strict=True))
    return {
        f"{name}.weight": ("U8", (2, 16), packed * 4),
        f"{name}.weight_scale": ("F8_E4M3", (2, 2), bytes([0x38] * 4)),
        f"{name}.weight_scale_2": ("F32", (), f32(factor)),
        f"{name}.input_scale": ("F32", (), f32(0.25)),
    }


def export_tensors() -> Tensors:
    kept = {name: value for name, value in source_tensors().items() if name in (NORM, "router.weight", BIAS)}
    return kept | quantized(UP, 1.0) | quantized(GATE, 2.0)


DECLARED = {
    "quant_method": "modelopt",
    "quant_algo": "NVFP4",
    "ignore": ["router"],
    "config_groups": {"group_0": {"input_activations": {"group_size": 16}, "weights": {"group_size": 16}}},
}


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., tuple[exported.Comparison, Checkpoint, SourceTensors]]:
    def run(export: Tensors, **options: Any) -> tuple[exported.Comparison, Checkpoint, SourceTensors]:
        source = SourceTensors(save(tmp_path / "source", source_tensors()))
        checkpoint = open_checkpoint(save(tmp_path / "export", export, {"quantization_config": DECLARED}))
        settings: dict[str, Any] = {"activations": True, "kv_cache": False} | options
        return exported.compare(checkpoint, source, [UP, GATE], **settings), checkpoint, source

    return run


def test_an_export_that_is_the_plan_has_no_problems(compare: Any) -> None:
    found, *_ = compare(export_tensors())
    assert found.problems == []
    assert found.restored == found.carried == []
    assert len(found.quantized) == 8


def without(*names: str) -> Tensors:
    return {name: value for name, value in export_tensors().items() if name not in names}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(f"{UP}.weight_scale") | {f"{UP}.weight": source_tensors()[f"{UP}.weight"]}, f"did not quantize {UP}"),
        (without("router.weight") | quantized("router", 1.0), "quantized router, which the plan keeps"),
        (without(f"{UP}.input_scale"), f"no {UP}.input_scale"),
        (without(f"{UP}.weight_scale_2"), f"no {UP}.weight_scale_2"),
        (export_tensors() | {f"{UP}.weight_scale": ("F8_E4M3", (2, 2), b"\x38\x7f\xff\x38")}, "holds 2 NaN scales"),
        (export_tensors() | {f"{UP}.weight_scale_2": ("F32", (), f32(0.0))}, f"{UP}.weight_scale_2 is 0.0"),
        (export_tensors() | {f"{UP}.input_scale": ("F32", (), f32(float("nan")))}, f"{UP}.input_scale is nan"),
        (export_tensors() | {NORM: ("BF16", (16,), bf16(np.arange(16) + 1))}, f"changed {NORM}"),
        (export_tensors() | {NORM: ("F32", (16,), f32(*range(1, 17)))}, f"changed {NORM}"),
        (export_tensors() | {NORM: ("BF16", (4, 4), bf16(np.arange(16)))}, f"changed {NORM}"),
        (without(NORM) | {"model.norm.weight": source_tensors()[NORM]}, "does not have: model.norm.weight"),
        (export_tensors() | {"attn.k_proj.k_scale": ("F32", (), f32(1.0))}, "does not have: attn.k_proj.k_scale"),
    ],
)
def test_every_difference_is_named(compare: Any, change: Tensors, words: str) -> None:
    found, *_ = compare(change)
    assert any(words in problem for problem in found.problems), found.problems


def test_a_cast_tensor_and_one_that_was_left_out_come_from_the_source(compare: Any) -> None:
    rounded = np.array([1.0, 2, 3, 4], dtype="<f4")  # what BF16 keeps of BIAS
    found, *_ = compare(without("router.weight") | {BIAS: ("BF16", (4,), bf16(rounded))})
    assert found.problems == []
    assert found.restored == [BIAS]
    assert found.carried == ["router.weight"]


def test_kv_scales_are_taken_where_they_were_asked_for(compare: Any) -> None:
    found, *_ = compare(export_tensors() | {"attn.k_proj.k_scale": ("F32", (), f32(1.0))}, kv_cache=True)
    assert found.problems == []
    assert "attn.k_proj.k_scale" in found.quantized


def test_what_is_written_is_the_export_where_it_is_quantized_and_the_source_elsewhere(
    compare: Any, tmp_path: Path
) -> None:
    found, export, source = compare(without("router.weight"))
    layout = exported.layout(found, source, 100)
    output = tmp_path / "output"
    with StagedWriter(tmp_path / "staging", output, layout, plan_digest="d") as writer:
        sums = exported.write(found, export, source, writer)
        writer.finish({})
    written = open_checkpoint(output)
    expected = {n: v for n, v in source_tensors().items() if n not in (f"{UP}.weight", f"{GATE}.weight")}
    expected |= quantized(UP, 1.0) | quantized(GATE, 2.0)
    assert {n: (r.dtype, r.shape, written.read(r)) for n, r in written.tensors.items()} == expected
    assert len(written.shards) > 1
    assert {written.tensors[f"{UP}.{s}"].shard for s in ("weight", "weight_scale")} == {
        written.tensors[f"{UP}.weight_scale_2"].shard
    }
    assert sums[f"{UP}.weight"][0] == 0  # the codes above are exact
    assert sums[f"{UP}.weight"][1] == pytest.approx(4 * 2 * (36 + 16 + 9 + 4 + 2.25 + 1 + 0.25))


def test_the_statistics_are_the_largest_input(compare: Any) -> None:
    found, export, _ = compare(export_tensors())
    assert exported.activation_statistics(export, found, {UP: 7}) == {
        GATE: {"input_amax": 672.0, "tokens": None},  # 0.25 * 6 * 448
        UP: {"input_amax": 672.0, "tokens": 7},
    }


def test_a_declaration_that_means_something_else_is_told(compare: Any) -> None:
    _, export, _ = compare(export_tensors())
    names = [UP, GATE, "router"]
    assert exported.declaration_differences(export, DECLARED, names) == ([], [])
    fatal, notes = exported.declaration_differences(
        export, DECLARED | {"quant_algo": "W4A16_NVFP4", "ignore": [], "kv_cache_scheme": {"num_bits": 8}}, names
    )
    assert len(fatal) == 3
    assert any("W4A16_NVFP4" in line for line in fatal)
    assert notes == ["only modelopt excludes router"]


def test_an_export_that_is_cut_is_the_engines_fault(tmp_path: Path) -> None:
    save(tmp_path / "export", export_tensors())
    (tmp_path / "export" / "model.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(EngineError, match=r"model\.safetensors"):
        exported.read_export(tmp_path / "export")
    with pytest.raises(EngineError, match="no checkpoint"):
        exported.read_export(tmp_path / "nothing")
