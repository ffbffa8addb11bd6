"""Experts out of a fused tensor: both ways it may lie, gate and up in halves or alternating, and what nothing tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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


def test_without_the_shape_of_the_result_no_expert_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeight, match="no weight of this name"):
        locate(open_checkpoint(stack((2, 64, 64), (2, 64, 32)).write(tmp_path)), "m.experts.0.gate_proj")
