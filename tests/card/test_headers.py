"""Parameters and coverage from headers: packed weights twice, scales not at all, nothing kept goes unlisted."""

from __future__ import annotations

import json
from pathlib import Path

from publisher.card.headers import block_length, coverage, kv_scales, logical_parameters, other_tensors, stored_keys
from publisher.checkpoint.open import Checkpoint, open_checkpoint

WIDTH = {"BF16": 2, "F32": 4, "U8": 1, "F8_E4M3": 1, "I32": 4, "I64": 8}


def opened(folder: Path, tensors: dict[str, tuple[str, list[int]]]) -> Checkpoint:
    """One shard with these tensors, written as the safetensors README says."""
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = WIDTH[dtype]
        for number in shape:
            size *= number
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))
    return open_checkpoint(folder)


def test_weights_are_counted_as_the_model_has_them(tmp_path: Path) -> None:
    checkpoint = opened(
        tmp_path,
        {
            "a.q_proj.weight": ("U8", [8, 16]),  # 8 × 32
            "a.q_proj.weight_scale": ("F8_E4M3", [8, 2]),
            "a.q_proj.weight_scale_2": ("F32", []),
            "a.q_proj.input_scale": ("F32", []),
            "a.q_proj.bias": ("BF16", [8]),
            "a.k_proj.k_scale": ("F32", []),
            "a.o_proj.weight_packed": ("I32", [4, 8]),  # 4 × 64 int4
            "a.o_proj.weight_scale": ("BF16", [4, 2]),
            "a.o_proj.weight_shape": ("I64", [2]),
            "mlp.experts.gate_up_proj_blocks": ("U8", [2, 4, 1, 16]),  # 2 × 4 × 32
            "mlp.experts.gate_up_proj_scales": ("U8", [2, 4, 1]),
            "lookup.weight": ("U8", [3, 5]),  # no scale beside it: bytes are values
        },
    )
    packed = 8 * 32 + 4 * 64 + 2 * 4 * 32
    assert logical_parameters(checkpoint) == (packed + 8 + 15, packed)
    assert kv_scales(checkpoint) == 1
    assert block_length(checkpoint.modules["a.q_proj"]) == 16


def test_a_class_that_is_half_quantized_has_two_rows(tmp_path: Path) -> None:
    tensors: dict[str, tuple[str, list[int]]] = {"model.layers.0.mlp.up_proj.weight": ("BF16", [8, 32])}
    for layer in (1, 2, 4):
        tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = ("U8", [8, 16])
        tensors[f"model.layers.{layer}.mlp.up_proj.weight_scale"] = ("U8", [8, 1])
    tensors["model.norm.weight"] = ("F32", [8])
    checkpoint = opened(tmp_path, tensors)
    rows = [(row.quantized, row.pattern, row.modules, row.layers, row.dtype, row.shape) for row in coverage(checkpoint)]
    assert rows == [
        (True, "model.layers.*.mlp.up_proj", 3, "1–2, 4", "U8", (8, 32)),
        (False, "model.layers.*.mlp.up_proj", 1, "0", "BF16", (8, 32)),
    ]
    assert [ref.name for ref in other_tensors(checkpoint)] == ["model.norm.weight"]


def test_the_example_layer_shows_every_key(nvfp4: Path, source: Path) -> None:
    example = stored_keys(open_checkpoint(nvfp4))
    assert example is not None
    assert [key.suffix for key in example[1]] == ["input_scale", "weight", "weight_scale", "weight_scale_2"]
    assert stored_keys(open_checkpoint(source)) is None


def test_shapes_that_do_not_fit_give_no_block_length(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, {"a.weight": ("U8", [4, 9]), "a.weight_scale": ("U8", [4, 4])})
    assert block_length(checkpoint.modules["a"]) is None
