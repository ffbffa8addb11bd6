"""Experts out of a fused tensor: both ways it may lie, gate and up in halves or alternating, and what nothing tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from publisher.checkpoint.experts import fused_stack, stack_experts
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.stored import UnreadableWeight
from publisher.checkpoint.weights import locate
from tests.builders.sources import fused
from tests.builders.tiny import Tensor, Tiny, mixture, values_of


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
def test_every_expert_comes_out_as_it_was(transposed: bool, interleaved: bool, tmp_path: Path) -> None:
    stored, source = fused(mixture(), transposed=transposed, interleaved=interleaved)
    stored.config["model_type"] = "gpt_oss" if interleaved else "qwen3_moe"
    checkpoint = open_checkpoint(stored.write(tmp_path))
    names = [name for name in source.tensors if ".experts." in name]
    assert len(names) == 2 * 4 * 3
    for name in names:
        values = values_of(source.tensors[name])
        weight = locate(checkpoint, name.removesuffix(".weight"), values.shape)
        np.testing.assert_array_equal(weight.decode(0, weight.rows), values)
        np.testing.assert_array_equal(weight.decode(3, 11), values[3:11])


def stack(gate_up: tuple[int, ...], down: tuple[int, ...] | None = None, dtype: str = "BF16") -> Tiny:
    shapes = {"m.experts.gate_up_proj": gate_up} | ({"m.experts.down_proj": down} if down else {})
    tensors = {name: Tensor(dtype, shape, bytes(2 * int(np.prod(shape)))) for name, shape in shapes.items()}
    return Tiny(tensors=tensors, config={}, shards=1)


@pytest.mark.parametrize(("down", "transposed"), [((2, 64, 32), False), ((2, 32, 64), True)])
def test_a_square_stack_lies_as_the_one_beside_it(down: tuple[int, ...], transposed: bool, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(stack((2, 64, 64), down).write(tmp_path))
    weight = locate(checkpoint, "m.experts.1.gate_proj", (32, 64))
    assert weight.part is not None
    assert weight.part.transposed is transposed


def test_a_square_down_lies_as_gate_and_up_do(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(stack((2, 64, 128), (2, 64, 64)).write(tmp_path))
    weight = locate(checkpoint, "m.experts.0.down_proj", (64, 64))
    assert weight.part is not None
    assert weight.part.transposed


@pytest.mark.parametrize(
    ("tiny", "module", "reason"),
    [
        (stack((2, 64, 64)), "m.experts.0.gate_proj", "do not tell"),
        (stack((2, 64, 64), (2, 48, 48)), "m.experts.0.gate_proj", "do not tell"),
        (stack((2, 60, 64)), "m.experts.0.gate_proj", "do not tell"),
        (stack((2, 64, 64)), "m.experts.2.gate_proj", "holds 2 experts"),
        (stack((2, 64)), "m.experts.0.gate_proj", "2 dimensions"),
        (stack((2, 64, 64), dtype="U8"), "m.experts.0.gate_proj", "U8"),
        (stack((2, 64, 64)), "m.experts.x.gate_proj", "no weight of this name"),
        (stack((2, 64, 64)), "m.experts.0.other", "no weight of this name"),
        (stack((2, 64, 64)), "n.experts.0.gate_proj", "no weight of this name"),
    ],
)
def test_what_the_shapes_do_not_tell_is_refused(tiny: Tiny, module: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeight, match=reason):
        locate(open_checkpoint(tiny.write(tmp_path)), module, (32, 64))


@pytest.mark.parametrize("transposed", [False, True])
def test_without_the_shape_of_the_result_the_two_stacks_tell_it(transposed: bool, tmp_path: Path) -> None:
    stored, source = fused(mixture(), transposed=transposed)
    checkpoint = open_checkpoint(stored.write(tmp_path))
    for name in [name for name in source.tensors if ".experts.2." in name]:
        weight = locate(checkpoint, name.removesuffix(".weight"))
        np.testing.assert_array_equal(weight.decode(0, weight.rows), values_of(source.tensors[name]))


def test_one_stack_alone_does_not_tell(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(stack((2, 64, 64)).write(tmp_path))
    with pytest.raises(UnreadableWeight, match="no weight of this name"):
        locate(checkpoint, "m.experts.0.gate_proj")


def blocks(rows: int = 6, columns: int = 64, experts: int = 3) -> Tiny:
    """gpt-oss's tensors of one layer, every payload byte and scale another."""
    generator = np.random.default_rng(5)
    tensors: dict[str, Tensor] = {}
    for projection, shape in (("gate_up_proj", (experts, rows, columns // 32)), ("down_proj", (experts, columns, 1))):
        payload = generator.integers(0, 256, (*shape, 16), np.uint8)
        scales = generator.integers(110, 130, shape, np.uint8)
        tensors[f"m.experts.{projection}_blocks"] = Tensor("U8", payload.shape, payload.tobytes())
        tensors[f"m.experts.{projection}_scales"] = Tensor("U8", shape, scales.tobytes())
    return Tiny(tensors=tensors, config={"model_type": "gpt_oss"}, shards=1)


@pytest.mark.parametrize(("part", "rows"), [("gate_up_proj", slice(None)), ("gate_proj", slice(0, None, 2))])
def test_blocks_stand_for_what_transformers_makes_of_them(part: str, rows: slice, tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    tiny = blocks()
    pieces = [tiny.tensors[f"m.experts.gate_up_proj_{kind}"] for kind in ("blocks", "scales")]
    stored = [torch.frombuffer(bytearray(t.data), dtype=torch.uint8).reshape(t.shape) for t in pieces]
    meant = convert_moe_packed_tensors(*stored, dtype=torch.float32)  # (E, in, out)
    checkpoint = open_checkpoint(tiny.write(tmp_path))
    for expert in range(3):
        weight = locate(checkpoint, f"m.experts.{expert}.{part}")
        np.testing.assert_array_equal(weight.decode(0, weight.rows), meant[expert].T[rows].numpy())
        np.testing.assert_array_equal(weight.decode(1, 2), meant[expert].T[rows][1:2].numpy())


def test_all_experts_of_a_stack_in_order(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(blocks().write(tmp_path))
    module = checkpoint.modules["m.experts"]
    assert fused_stack(module) == ("gate_up_proj", "down_proj")
    names = [weight.name for weight in stack_experts(checkpoint, module, fused_stack(module))]
    assert names == [f"m.experts.{n}.{part}" for n in range(3) for part in ("gate_up_proj", "down_proj")]


def changed(name: str, **changes: Any) -> Tiny:
    tiny = blocks()
    tensor = tiny.tensors[f"m.experts.{name}"]
    shape = changes.get("shape", tensor.shape)
    tiny.tensors[f"m.experts.{name}"] = Tensor(changes.get("dtype", "U8"), shape, bytes(int(np.prod(shape))))
    return tiny


def without(name: str) -> Tiny:
    tiny = blocks()
    del tiny.tensors[f"m.experts.{name}"]
    return tiny


@pytest.mark.parametrize(
    ("tiny", "reason"),
    [
        (without("gate_up_proj_scales"), "its blocks have no gate_up_proj_scales beside them"),
        (
            changed("gate_up_proj_scales", shape=(3, 6, 3)),
            "its scales are U8 [3, 6, 3], its blocks need U8 [3, 6, 2]",
        ),
        (
            changed("gate_up_proj_scales", dtype="F8_E8M0"),
            "its scales are F8_E8M0 [3, 6, 2], its blocks need U8 [3, 6, 2]",
        ),
        (changed("gate_up_proj_blocks", shape=(3, 6, 32)), "its blocks are U8 [3, 6, 32], not (E, out, in/32, 16)"),
        (changed("gate_up_proj_blocks", dtype="I8"), "its blocks are I8 [3, 6, 2, 16], not (E, out, in/32, 16)"),
        (changed("down_proj_blocks", shape=(2, 64, 1, 16)), "its two tensors hold 2 and 3 experts"),
    ],
)
def test_blocks_that_do_not_belong_together_are_refused(tiny: Tiny, reason: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny.write(tmp_path))
    with pytest.raises(UnreadableWeight) as caught:
        list(stack_experts(checkpoint, checkpoint.modules["m.experts"], ("gate_up_proj", "down_proj")))
    assert caught.value.message == reason
