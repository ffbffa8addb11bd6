"""The best of 126 scale codes for every NVFP4 block, exactly as the full sweep of `publisher.formats.sweep` finds it.

Trying all candidates costs eight windows of sixteen; nearly always ten candidates, computed nearly, and two bounds do.
Write `R(k)` for the distance of a block from the grid of candidate k in exact arithmetic, `|w|` for the block's own
length, `a` for its largest weight, `u = 2**-24`, and let |w| <= 4 a as sixteen weights have it.

* The reference's loss L(k) has a root within 14 u |w| of R(k): the quotient's rounding moves a weight by 2 u to a
  neighbour that is not the nearest, the product's by 2 u more, difference, square and sum by 10 u of the error. The
  near loss P(k) is likewise within 18 u |w|. So the winner's P is not above `limit = (root of the smallest P + 4 d)**2`
  with d = 32 u |w|, which counts twice what is needed; where only one candidate is within the limit, it is the winner,
  otherwise those within it are computed exactly, and the first smallest wins.
* Below a window: where the scale is too small for `a`, the error of that one weight, in the reference's own float32, is
  a lower bound of the loss, and it grows as scales shrink.
* Above a window of sixteen: doubling a scale k to k + 8 (that is what eight codes are) leaves a coarser grid on
  [0, 6 steps], so R(k + 8) >= R(k) wherever a <= 7 steps of k. If no candidate of the window's upper half is within the
  limit, neither is any above the window. Codes below 16 are not all doubles of others, but a window that begins at 1
  holds them all.

Sixteen blocks go at a time (`batches`), ten neighbouring candidates c - 2 to c + 7 of each, c being that of mode max:

* Below them: all weights above the grid of c - 3 count, each with its error in the reference's own float32. That sum
  and the loss it bounds are sums of at most sixteen squares, so they differ by 32 u of themselves at most, and the
  limit is at least 256 u above the smallest P, because R <= |w|.
* Above them: with a <= 6.75 steps of c, any candidate k >= 16 beyond c + 7 is c + j doubled some times, 0 <= j <= 7,
  and R(k) >= R(c + j). Where c + j is not within the limit, neither is k; where it is the winner, its own double is
  computed, and with that outside the limit all of its doubles are. Ten candidates from 8 on leave no k below 18.
* Up to 6.75 steps nothing rounds past 6, so only c - 2 and c - 1 have to be cut off there.

A block that this does not settle is looked at alone: where a bound does not hold, its window grows; blocks whose
squares leave float32's normal range are swept in full.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from publisher.formats import e2m1, sweep
from publisher.formats.blocks import Float32Array, UInt8Array
from publisher.native.kernels.batches import BATCH, settle
from publisher.native.kernels.machine import machine_code
from publisher.native.kernels.windows import WINDOW, exact_window, float_magnitudes, near_window

_LOWEST, _HIGHEST, _SPREAD = 2.0**-40, 2.0**50, 2.0**-50
_LAST = len(sweep.CODES)
_SIZE = _LAST + 2 * WINDOW  # the windows beside the last code have empty lanes
_BEFORE = 2  # codes of a window below that of mode max
_MARGIN = np.float32(4 * 32 * 2.0**-24 * 4)
_INFINITY = np.float32(np.inf)
_UPPER = 1 << (WINDOW // 2)  # lanes of the upper half, as bits
_PLACES = np.array([max(bits.bit_length() - 1, 0) for bits in range(_UPPER)], np.int64)
_PLACES_OF_BLOCKS = np.zeros(37, np.int64)  # powers of two below 2**36 leave different remainders
_PLACES_OF_BLOCKS[[(1 << place) % 37 for place in range(BATCH)]] = np.arange(BATCH)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Float32 tables by scale code; entries 0 and above 126 stand for nothing.

    Attributes:
        steps: what one unit of an element is worth.
        reciprocals: one over it.
        squares: it times itself.
        penalties: infinity where there is no candidate, else zero.
        tops: the largest weight a candidate reaches, six steps.
        grid: steps, infinite above the last candidate.
        lowest: blocks whose largest weight is below this are swept in full.
    """

    steps: Float32Array
    reciprocals: Float32Array
    squares: Float32Array
    penalties: Float32Array
    tops: Float32Array
    grid: Float32Array
    lowest: np.float32


@functools.lru_cache(maxsize=16)
def candidates(largest: float) -> Candidates:
    """Tables for a tensor or fused group whose largest weight this is."""
    steps = np.ones(_SIZE, np.float32)
    steps[1 : _LAST + 1] = sweep.candidate_steps(largest)
    penalties = np.full(_SIZE, np.inf, np.float32)
    penalties[1 : _LAST + 1] = 0
    lowest = max(_LOWEST, largest * _SPREAD) if largest <= _HIGHEST else np.inf
    with np.errstate(all="ignore"):
        return Candidates(
            steps=steps,
            reciprocals=(np.float32(1) / steps).astype(np.float32),
            squares=(steps * steps).astype(np.float32),
            penalties=penalties,
            tops=(np.float32(e2m1.MAX) * steps).astype(np.float32),
            grid=np.where(np.arange(_SIZE) > _LAST, np.float32(np.inf), steps).astype(np.float32),
            lowest=np.float32(lowest),
        )


@machine_code
def _full(magnitudes: Any, steps: Any, losses: Any) -> Any:
    """The first smallest of all losses."""
    best, code = _INFINITY, 1
    for first in range(1, _LAST + 1, WINDOW):
        exact_window(magnitudes, steps, first, losses)
        for lane in range(min(WINDOW, _LAST + 1 - first)):
            if losses[lane] < best:
                best, code = losses[lane], first + lane
    return code


@machine_code
def _below(tops: Any, peak: Any, begin: Any, limit: Any) -> Any:
    """Whether a candidate below the windows may win."""
    if begin == 1:
        return False
    short = peak - tops[begin - 1]
    return short <= 0 or short * short <= limit


@machine_code
def _within(near: Any, begin: Any, end: Any, limit: Any) -> Any:
    """How many candidates are within the limit, and the last of them."""
    count, last = 0, 0
    for code in range(begin, end):
        if near[code] <= limit:
            count, last = count + 1, code
    return count, last


@machine_code
def _decide(magnitudes: Any, peak: Any, tables: Any, first: Any, near: Any, losses: Any) -> Any:
    """The winner where the one window, which is in `near`, does not tell."""
    steps, reciprocals, squares, penalties, tops = tables
    begin, end, limit, margin = first, first + WINDOW, near[0], peak * _MARGIN
    while _below(tops, peak, begin, limit):
        begin = max(begin - WINDOW, 1)
        near_window(magnitudes, reciprocals, squares, penalties, begin, margin, near)
        limit = min(limit, near[0])
    while end <= _LAST and _within(near, end - WINDOW // 2, end, limit)[0]:
        near_window(magnitudes, reciprocals, squares, penalties, end, margin, near)
        limit = min(limit, near[0])
        end += WINDOW
    count, code = _within(near, begin, end, limit)
    if count == 1:
        return code
    best = _INFINITY
    for group in range(begin, end, WINDOW):
        last = min(group + WINDOW, end)
        if _within(near, group, last, limit)[0]:
            exact_window(magnitudes, steps, group, losses)
            for candidate in range(group, last):
                if near[candidate] <= limit and losses[candidate - group] < best:
                    best, code = losses[candidate - group], candidate
    return code


@machine_code
def _one(weights: Any, block: Any, peak: Any, tables: Any, lowest: Any, code: Any, room: Any) -> Any:
    """The winner of one block, whose code in mode max this is."""
    steps, reciprocals, squares, penalties, tops = tables
    magnitudes, losses, near = room
    if peak == 0:
        return 1
    float_magnitudes(weights, block, magnitudes)
    if peak < lowest:
        return _full(magnitudes, steps, losses)
    first = max(code - _BEFORE, 1)
    within = near_window(magnitudes, reciprocals, squares, penalties, first, peak * _MARGIN, near)
    if within & (within - 1) == 0 and within < _UPPER and not _below(tops, peak, first, near[0]):
        return first + _PLACES[within]
    return _decide(magnitudes, peak, tables, first, near, losses)


@machine_code
def _pruned(weights: Any, peaks: Any, tables: Any, grid: Any, lowest: Any, codes: Any) -> Any:
    """Replaces the codes of mode max by the best ones; returns how many blocks were looked at alone."""
    room = np.empty(WINDOW, np.float32), np.empty(WINDOW, np.float32), np.empty(_SIZE, np.float32)
    whole, alone = codes.shape[0] // BATCH, 0
    for batch in range(whole):
        left = settle(weights, batch, peaks, grid, codes, lowest, _MARGIN)
        while left:
            lowest_bit = left & -left
            block = batch * BATCH + _PLACES_OF_BLOCKS[lowest_bit % 37]
            codes[block] = _one(weights, block, peaks[block], tables, lowest, np.int64(codes[block]), room)
            left ^= lowest_bit
            alone += 1
    for block in range(whole * BATCH, codes.shape[0]):
        codes[block] = _one(weights, block, peaks[block], tables, lowest, np.int64(codes[block]), room)
        alone += 1
    return alone


@machine_code
def _whole(weights: Any, steps: Any, codes: Any) -> None:
    magnitudes, losses = np.empty(WINDOW, np.float32), np.empty(WINDOW, np.float32)
    for block in range(codes.shape[0]):
        float_magnitudes(weights, block, magnitudes)
        codes[block] = _full(magnitudes, steps, losses)


def best_codes(weights: Any, peaks: Float32Array, found: Candidates, codes: UInt8Array) -> int:
    """Replace scale codes of mode max by those of the smallest loss.

    Args:
        weights: (rows, columns) contiguous bits of finite weights (see `compiled`).
        peaks: float32, the blocks' largest magnitudes.
        found: the candidates of the tensor or fused group.
        codes: uint8, of mode max; overwritten.

    Returns:
        How many blocks a batch's bounds did not settle.
    """
    tables = (found.steps, found.reciprocals, found.squares, found.penalties, found.tops)
    return int(_pruned(weights.reshape(-1), peaks.reshape(-1), tables, found.grid, found.lowest, codes.reshape(-1)))


def all_tried(weights: Any, found: Candidates, codes: UInt8Array) -> None:
    """The same without any bound: all candidates of every block, sixteen at a time. Overwrites `codes`."""
    _whole(weights.reshape(-1), found.steps, codes.reshape(-1))
