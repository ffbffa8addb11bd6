"""Scales as numpy reads them: counted in bounded pieces, neighbours in one read, payload only where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import BlockScales, Meter, reading
from publisher.subjects import scales as scales_module
from publisher.subjects.scalepass import ScalePass
from tests.builders.tiny import Tensor, Tiny, f32, mixture, mxfp4, nvfp4
from tests.builders.watched import Watched

UP = "model.layers.0.mlp.up_proj"


def seen(place: Path | Watched, *kinds: type, meter: Meter | None = None) -> list[Any]:
    return list(ScalePass(checkpoint=open_checkpoint(place), kinds=kinds, meter=meter or Meter()).read())


def one(rows: int, blocks: int, codes: np.ndarray, payload: bytes | None = None) -> Tiny:
    """A checkpoint of one module, with these block scales."""
    tensors = {
        f"{UP}.weight": Tensor("U8", (rows, blocks * 8), payload if payload is not None else bytes(rows * blocks * 8)),
        f"{UP}.weight_scale": Tensor("F8_E4M3", (rows, blocks), codes.astype(np.uint8).tobytes()),
        f"{UP}.weight_scale_2": f32(1e-4),
    }
    return Tiny(tensors=tensors, config={}, shards=1)


@pytest.mark.parametrize("shape", [(3, 5), (511, 257), (1024, 512)])
def test_block_scales_count_what_numpy_counts(
    shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SPAN", 50_000)
    codes = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    (scales,) = seen(one(*shape, codes).write(tmp_path / "c"), BlockScales)
    assert scales.histogram.tolist() == np.bincount(codes.ravel(), minlength=256).tolist()
    assert scales.count(3, 7) == int(((codes == 3) | (codes == 7)).sum())
    places = np.concatenate([*scales.places(3), np.empty(0, np.int64)])
    assert places.tolist() == np.flatnonzero(codes == 3).tolist()
    assert all(codes[scales.index(int(place))] == 3 for place in places)
    assert (scales.low, scales.high) == (codes.min(), codes.max())


def test_blocks_with_weights_are_told_from_blocks_of_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales_module, "PIECE", 4096)
    monkeypatch.setattr(scales_module, "GAP", 256)
    rng = np.random.default_rng(2)
    payload = np.where(rng.random((64, 64 * 8)) < 0.02, 0x20, 0x88).astype(np.uint8)
    codes = rng.choice([0, 0x38], (64, 64))
    (scales,) = seen(one(64, 64, codes, payload.tobytes()).write(tmp_path / "c"), BlockScales)
    expected = np.flatnonzero((codes == 0) & ((payload & 0x77).reshape(64, 64, 8).any(axis=2)))
    found = [scales.nonzero(places) for places in scales.places(0)]
    assert sum(count for count, _ in found) == len(expected)
    assert next(first for _, first in found if first is not None) == expected[0]


def test_wider_blocks_are_told_by_each_of_their_codes(tmp_path: Path) -> None:
    """MXFP4: one code of 32 decides, wherever it lies; a sign alone is zero."""
    payload = np.full((33, 16), 0x88, np.uint8)
    for row in range(32):
        payload[row, row // 2] |= 0x10 if row % 2 else 0x01
    weight, scale = f"{UP}.weight", f"{UP}.weight_scale"
    tensors = {weight: Tensor("U8", (33, 16), payload.tobytes()), scale: Tensor("U8", (33, 1), bytes(33))}
    config = mxfp4(mixture()).config
    (scales,) = seen(Tiny(tensors=tensors, config=config, shards=1).write(tmp_path / "c"), BlockScales)
    assert [scales.nonzero(places) for places in scales.places(0)] == [(32, 0)]


def test_blocks_are_not_judged_where_payload_and_scales_do_not_fit(tmp_path: Path) -> None:
    tiny = one(4, 4, np.zeros((4, 4)), b"\x22" * 128)
    tiny.tensors[f"{UP}.weight"] = Tensor("U8", (4, 16), b"\x22" * 64)
    (scales,) = seen(tiny.write(tmp_path / "c"), BlockScales)
    assert [scales.nonzero(places) for places in scales.places(0)] == [(0, None)]


def test_bytes_are_counted_again_after_the_buffer_has_moved_on(tmp_path: Path) -> None:
    tiny = nvfp4(mixture())
    found = seen(tiny.write(tmp_path / "c"), BlockScales)
    for scales in reversed(found):
        expected = np.bincount(np.frombuffer(tiny.tensors[scales.ref.name].data, np.uint8), minlength=256)
        assert scales.histogram.tolist() == expected.tolist()
        assert (scales.low, scales.high) == (np.flatnonzero(expected)[0], np.flatnonzero(expected)[-1])


def test_a_code_outside_the_extremes_costs_nothing(tmp_path: Path) -> None:
    (scales,) = seen(one(4, 4, np.full((4, 4), 0x38)).write(tmp_path / "c"), BlockScales)
    assert scales.count(0x7F, 0xFF, 0) == 0
    assert scales.held.counts is None
