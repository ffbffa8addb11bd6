"""Tensor-parallel sizes: geometries of published models against what their engines' source says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.parallel import Split, tensor_parallel, worth
from tests.builders.tiny import framed

Shapes = dict[str, tuple[str, tuple[int, ...]]]
BITS = {"U8": 8, "F8_E4M3": 8, "BF16": 16, "F32": 32, "I32": 32}


def sparse(folder: Path, shapes: Shapes, config: dict[str, Any]) -> Checkpoint:
    """A checkpoint of any size whose shard is a hole."""
    head: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape) in shapes.items():
        size = BITS[dtype] // 8
        for n in shape:
            size *= n
        head[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    with (folder / "model.safetensors").open("wb") as file:
        file.write(framed(json.dumps(head).encode(), b""))
        file.truncate(file.tell() + at)
    (folder / "config.json").write_text(json.dumps(config))
    return open_checkpoint(folder)


def nvfp4(name: str, out: int, width: int) -> Shapes:
    return {
        f"{name}.weight": ("U8", (out, width // 2)),
        f"{name}.weight_scale": ("F8_E4M3", (out, width // 16)),
        f"{name}.weight_scale_2": ("F32", ()),
    }


def mxfp4(name: str, out: int, width: int) -> Shapes:
    return {f"{name}.weight": ("U8", (out, width // 2)), f"{name}.weight_scale": ("U8", (out, width // 32))}


def kinds(splits: tuple[Split, ...], kind: str) -> list[int]:
    return [split.size for split in splits if any(limit.kind == kind for limit in split.limits)]


def test_kimi_k2_fits_every_node(tmp_path: Path) -> None:
    """Width 2048, hidden size 7168, 64 heads: all sizes up to 16 keep whole tiles of 64."""
    expert = "language_model.model.layers.1.mlp.experts.0"
    shapes = nvfp4(f"{expert}.gate_proj", 2048, 7168) | nvfp4(f"{expert}.down_proj", 7168, 2048)
    text = {"num_attention_heads": 64, "num_key_value_heads": 64, "kv_lora_rank": 512, "n_routed_experts": 384}
    splits = tensor_parallel(sparse(tmp_path, shapes, {"text_config": text}))
    assert [split.size for split in splits] == [1, 2, 4, 8, 16]
    assert not [limit for split in splits for limit in split.limits]


def test_kimi_k2_in_mxfp4_is_padded_by_atom_beyond_eight(tmp_path: Path) -> None:
    expert = "model.layers.1.mlp.experts.0"
    shapes = mxfp4(f"{expert}.up_proj", 2048, 7168) | mxfp4(f"{expert}.down_proj", 7168, 2048)
    splits = tensor_parallel(sparse(tmp_path, shapes, {}))
    assert kinds(splits, "padding") == [16]
    (limit,) = splits[-1].limits
    assert limit.engines == ("atom",)
    assert "2 times the memory" in limit.reason
    assert splits[-1].works("atom")


def test_an_input_axis_of_1856_does_not_split_over_eight(tmp_path: Path) -> None:
    """1856 / 8 = 232, no multiple of 16 (vllm-project/vllm issue 49949)."""
    splits = tensor_parallel(sparse(tmp_path, nvfp4("model.layers.0.mlp.down_proj", 4096, 1856), {}))
    assert kinds(splits, "block") == [8, 16]
    assert [split.size for split in splits if split.works("vllm")] == [1, 2, 4]
    assert "232, no multiple of 16" in splits[3].limits[0].reason


def test_the_output_axis_needs_no_blocks(tmp_path: Path) -> None:
    splits = tensor_parallel(sparse(tmp_path, nvfp4("model.layers.0.mlp.up_proj", 1856, 4096), {}))
    assert kinds(splits, "block") == []
    assert kinds(splits, "tile") == [2, 4, 8, 16]  # 928 rows are no multiple of Marlin's 64


def test_qwen3_30b_experts_refuse_cutlass_kernels_at_eight(tmp_path: Path) -> None:
    """Width 768: 96 rows at eight GPUs are no multiple of 64, and 192 at four are."""
    splits = tensor_parallel(sparse(tmp_path, nvfp4("model.layers.0.mlp.experts.0.gate_proj", 768, 2048), {}))
    assert kinds(splits, "expert-tile") == [8, 16]
    assert splits[3].works("vllm")  # other kernels pad


def test_qwen2_72b_in_squares_of_128_splits_over_nothing(tmp_path: Path) -> None:
    """29568 inputs are 231 blocks of 128 (vllm-project/vllm issue 21695)."""
    name = "model.layers.0.mlp.down_proj"
    shapes: Shapes = {
        f"{name}.weight": ("F8_E4M3", (8192, 29568)),
        f"{name}.weight_scale_inv": ("F32", (64, 231)),
    }
    splits = tensor_parallel(sparse(tmp_path, shapes, {}))
    assert kinds(splits, "coarse") == [2, 4, 8, 16]


@pytest.mark.parametrize(
    ("heads", "pairs", "bad"), [(64, 8, []), (40, 8, [16]), (12, 2, [8, 16]), (28, 4, [8, 16]), (24, 6, [4, 8, 16])]
)
def test_heads_and_key_value_heads_divide(tmp_path: Path, heads: int, pairs: int, bad: list[int]) -> None:
    config = {"num_attention_heads": heads, "num_key_value_heads": pairs}
    splits = tensor_parallel(sparse(tmp_path, nvfp4("model.layers.0.mlp.up_proj", 4096, 4096), config))
    assert sorted({*kinds(splits, "heads"), *kinds(splits, "kv-heads")}) == bad


def test_shares_count_what_is_split_and_what_is_copied(tmp_path: Path) -> None:
    shapes: Shapes = {
        "model.embed_tokens.weight": ("BF16", (1000, 64)),
        "model.layers.0.mlp.down_proj.weight": ("BF16", (64, 512)),
        "model.layers.0.self_attn.q_a_proj.weight": ("BF16", (64, 64)),
        "model.norm.weight": ("BF16", (64,)),
    }
    (split,) = tensor_parallel(sparse(tmp_path, shapes, {}), [4])
    assert split.bytes_per_gpu == 2 * (1000 * 64 // 4 + 64 * 512 // 4 + 64 * 64 + 64)


def test_a_plan_judges_the_format_a_module_will_have(tmp_path: Path) -> None:
    shapes: Shapes = {"model.layers.0.mlp.down_proj.weight": ("BF16", (64, 1856))}
    source = sparse(tmp_path, shapes, {})
    assert kinds(tensor_parallel(source), "block") == []
    assert kinds(tensor_parallel(source, format_of=lambda module: "nvfp4"), "block") == [8, 16]


def test_only_shares_of_a_gigabyte_are_worth_splitting(tmp_path: Path) -> None:
    checkpoint = sparse(tmp_path, {"model.embed_tokens.weight": ("BF16", (4 << 20, 1024))}, {})  # 8 GiB
    assert worth(checkpoint, 8)
    assert not worth(checkpoint, 16)


@pytest.mark.parametrize("value", ["64", True, -1, 1.5, 10**60, None, [64]])
def test_odd_configurations_are_passed_over(tmp_path: Path, value: Any) -> None:
    config = {"num_attention_heads": value, "num_key_value_heads": value, "text_config": value}
    assert tensor_parallel(sparse(tmp_path, nvfp4("a.o_proj", 0, 0), config))
