"""Bounds that must never lose the best scale: the search against trying all, on weights made to break it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba, the extra `fast`, is not installed")

from publisher.formats import nvfp4, sweep
from publisher.native.kernels import search

BLOCKS = 4096


def blocks(kind: str, random: np.random.Generator) -> np.ndarray:
    """(4096, 16) float32."""
    shape, column = (BLOCKS, 16), (BLOCKS, 1)
    signs = random.choice([-1.0, 1.0], shape)
    if kind == "normal":
        return random.standard_normal(shape) * 0.02
    if kind == "one weight":
        return np.where(np.arange(16) == random.integers(0, 16, column), random.standard_normal(column), 0)
    if kind == "all alike":
        return signs * random.standard_normal(column)
    if kind == "two sizes":
        return signs * random.random(column) * np.where(random.random(shape) < 0.5, 1, random.random(column))
    if kind == "exact under many scales":
        levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
        return signs * random.choice(levels, shape) * 2.0 ** random.integers(-12, 2, column)
    if kind == "integers":
        return random.integers(-8, 9, shape) * random.random(column)
    if kind == "middles":
        return (
            signs
            * random.choice([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 7], shape)
            * 2.0 ** random.integers(-9, 2, column)
        )
    if kind == "heavy tails":
        return random.standard_t(2, shape)
    if kind == "far apart":
        return random.standard_normal(shape) * 10.0 ** random.integers(-12, 12, column)
    if kind == "beyond the bounds":
        return random.standard_normal(shape) * 10.0 ** random.integers(-38, 37, column)
    return signs * np.exp(random.standard_normal(shape) * 4)


KINDS = [
    *("normal", "one weight", "all alike", "two sizes", "exact under many scales", "integers", "middles"),
    *("heavy tails", "far apart", "beyond the bounds", "many sizes"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bf16", [True, False], ids=["bf16", "f32"])
@pytest.mark.filterwarnings("ignore:overflow")
def test_the_search_finds_what_trying_all_finds(kind: str, bf16: bool) -> None:
    values = blocks(kind, np.random.default_rng(3)).astype(np.float32)
    weights = (values.view(np.uint32) >> 16).astype(np.uint16) if bf16 else values
    values = (weights.astype(np.uint32) << 16).view(np.float32) if bf16 else values
    peaks = np.abs(values).max(axis=1)
    for more in (1.0, 1.9, 300.0):
        largest = np.float32(min(float(peaks.max()) * more, 3e38))
        codes = nvfp4.block_scale_codes(peaks.copy(), nvfp4.global_scale(largest))
        found = search.candidates(float(largest))
        tried, searched = codes.copy(), codes.copy()
        search.all_tried(weights, found, tried)
        search.best_codes(weights, peaks, found, searched)
        assert np.array_equal(searched, tried)
        few = slice(None, None, 16)
        assert np.array_equal(tried[few], sweep.block_scale_codes(values[few], largest)[:, 0])


def test_any_code_to_begin_with_leads_to_the_same() -> None:
    values = blocks("normal", np.random.default_rng(4)).astype(np.float32)
    peaks = np.abs(values).max(axis=1)
    found = search.candidates(float(peaks.max()))
    expected = np.empty(BLOCKS, np.uint8)
    search.all_tried(values, found, expected)
    codes = nvfp4.block_scale_codes(peaks.copy(), nvfp4.global_scale(peaks.max()))
    for away in (-6, -1, 1, 3):
        begun = np.clip(codes.astype(int) + away, 1, 126).astype(np.uint8)
        search.best_codes(values, peaks, found, begun)
        assert np.array_equal(begun, expected), away


@pytest.mark.parametrize("count", [1, 15, 16, 17, 47])
def test_blocks_that_fill_no_batch(count: int) -> None:
    values = blocks("heavy tails", np.random.default_rng(count)).astype(np.float32)[:count]
    values[count // 2] = 0
    peaks = np.abs(values).max(axis=1)
    found = search.candidates(float(peaks.max()))
    codes = nvfp4.block_scale_codes(peaks.copy(), nvfp4.global_scale(peaks.max()))
    tried = codes.copy()
    search.all_tried(values, found, tried)
    search.best_codes(values, peaks, found, codes)
    assert np.array_equal(codes, tried)


def test_nearly_all_blocks_of_ordinary_weights_are_settled_in_batches() -> None:
    values = blocks("normal", np.random.default_rng(6)).astype(np.float32)
    peaks = np.abs(values).max(axis=1)
    codes = nvfp4.block_scale_codes(peaks.copy(), nvfp4.global_scale(peaks.max()))
    assert search.best_codes(values, peaks, search.candidates(float(peaks.max())), codes) < BLOCKS // 25
