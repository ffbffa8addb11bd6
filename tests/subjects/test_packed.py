"""One packed module put together: any run of its rows, and what does not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.stored import UnreadableWeight
from publisher.subjects import Meter
from publisher.subjects.packed import PackedWeight, open_packed
from tests.builders.tiny import Tiny, compressed, llama, mxfp4, nvfp4

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
