"""One packed module put together: any run of its rows, and what does not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.stored import UnreadableWeight
from publisher.subjects import Meter
from publisher.subjects.packed import PackedWeight, open_packed, open_stacks
from tests.builders.tiny import Tensor, Tiny, compressed, llama, mxfp4, nvfp4
from tests.builders.variants import expert_stacks, gpt_oss

UP = "model.layers.0.mlp.up_proj"


def opened(tiny: Tiny, folder: Path) -> PackedWeight:
    checkpoint: Checkpoint = open_checkpoint(tiny.write(folder))
    return open_packed(checkpoint, checkpoint.modules[UP], Meter())


@pytest.mark.parametrize(
    ("tiny", "suffix", "form", "direction"),
    [
        (nvfp4(llama()), "weight", "nvfp4", "multiply"),
        (compressed(llama(), "nvfp4"), "weight_packed", "nvfp4", "divide"),
        (mxfp4(llama()), "weight", "mxfp4", None),
        (compressed(llama(), "mxfp4"), "weight_packed", "mxfp4", None),
    ],
)
def test_rows_are_the_stored_ones(tiny: Tiny, suffix: str, form: str, direction: str | None, tmp_path: Path) -> None:
    weight = opened(tiny, tmp_path)
    assert (weight.rows, weight.columns, weight.format, weight.direction) == (96, 64, form, direction)
    assert (weight.global_scale is None) == (direction is None)
    payload = np.frombuffer(tiny.tensors[f"{UP}.{suffix}"].data, np.uint8).reshape(96, 32)
    scales = np.frombuffer(tiny.tensors[f"{UP}.weight_scale"].data, np.uint8).reshape(96, -1)
    sample = weight.sample(10, 30, np.zeros((20, 64), np.float32))
    assert np.array_equal(sample.payload, payload[10:30])
    assert np.array_equal(sample.scales, scales[10:30])
    assert np.array_equal(weight.codes(95, 96), payload[95:])


def test_a_row_too_long_to_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.subjects.packed.MAX_COLUMNS", 60)
    with pytest.raises(UnreadableWeight, match="64 weights"):
        opened(nvfp4(llama()), tmp_path)


def test_the_global_scale_may_have_any_value(tmp_path: Path) -> None:
    """What is wrong with it is a rule's business."""
    tiny = nvfp4(llama())
    tiny.tensors[f"{UP}.weight_scale_2"].data = b"\0\0\xc0\x7f"
    scale = opened(tiny, tmp_path).global_scale
    assert scale is not None
    assert np.isnan(scale)


STACK = "model.layers.1.mlp.experts"


def test_experts_of_a_stack_are_matrices_of_their_own(tmp_path: Path) -> None:
    tiny = expert_stacks(gpt_oss())
    checkpoint = open_checkpoint(tiny.write(tmp_path))
    found = {weight.module.name: weight for weight in open_stacks(checkpoint, Meter())}
    assert len(found) == 2 * 2 * 4
    payload = np.frombuffer(tiny.tensors[f"{STACK}.gate_up_proj"].data, np.uint8).reshape(4, 32, 192)
    scales = np.frombuffer(tiny.tensors[f"{STACK}.gate_up_proj_weight_scale"].data, np.uint8).reshape(4, 4, 192)
    one = found[f"{STACK}.3.gate_up_proj"]
    assert (one.rows, one.columns, one.size) == (192, 64, 192 * 36)
    sample = one.sample(7, 20, np.zeros((13, 64), np.float32))
    np.testing.assert_array_equal(sample.payload, payload[3].T[7:20])
    np.testing.assert_array_equal(sample.scales, scales[3].T[7:20])
    assert one.slabs
    one.forget()
    assert not one.slabs


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("down_proj_weight_scale", (4, 64, 6), r"scales of shape \[4, 64, 6\] do not fit a stack of \[4, 48, 64\]"),
        ("down_proj_weight_scale_2", (2,), "its weight_scale_2 is no single number"),
    ],
)
def test_a_stack_that_does_not_belong_together(name: str, shape: tuple[int, ...], reason: str, tmp_path: Path) -> None:
    tiny = expert_stacks(gpt_oss())
    old = tiny.tensors[f"{STACK}.{name}"]
    width = {"F8_E4M3": 1, "F32": 4}[old.dtype]
    tiny.tensors[f"{STACK}.{name}"] = Tensor(old.dtype, shape, bytes(int(np.prod(shape)) * width))
    with pytest.raises(UnreadableWeight, match=reason):
        list(open_stacks(open_checkpoint(tiny.write(tmp_path)), Meter()))
