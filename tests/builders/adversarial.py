"""Weights made to break a quantizer, as BF16 bit patterns: every tie under every block maximum, edges, extremes.

numpy alone, and deterministic to the bit, so that a vendor's environment makes the same ones for its golden bytes. A
case is a matrix of uint16; `EXACT` ones hold, for each block maximum, every BF16 value from a sixty-fourth of it up,
which are all values that round to anything but zero and every boundary between two codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint16]
ONE = 0x3F80  # 1.0
OCTAVE = 128  # BF16 values from a power of two to the next
LARGEST = 0x7F5F  # the last below 1.75 * 2**127, from where vendors round a maximum to infinity
SIGN = 0x8000
COLUMNS = 1024
# The seven boundaries over 1, 2, 4 and 8, and their neighbours, as bit patterns relative to 1.0.
_MIDDLES = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], np.float32).view(np.uint32).astype(np.int64) >> 16
BOUNDARIES = np.unique([_MIDDLES - ONE - shift * OCTAVE + step for shift in (0, 1, 2, 3) for step in (-1, 0, 1)])


def bits(values: object) -> Bits:
    """float values that BF16 holds exactly, as its bits."""
    wide = np.asarray(values, np.float32).view(np.uint32)
    assert not (wide & 0xFFFF).any()
    return (wide >> 16).astype(np.uint16)


def values(patterns: Bits) -> npt.NDArray[np.float32]:
    return (patterns.astype(np.uint32) << 16).view(np.float32)


def filled(peaks: Bits, lower: Callable[[int], Bits], block: int) -> Bits:
    """Blocks that begin with their maximum and hold the values below it, as many as that takes; signs alternate."""
    found = []
    for peak in peaks.tolist():
        below = lower(peak)
        below = np.concatenate([below, np.zeros(-len(below) % (block - 1), np.uint16)]).reshape(-1, block - 1)
        below[:, 1::2] |= SIGN
        first = np.full((len(below), 1), peak, np.uint16)
        first[1::2] |= SIGN
        found.append(np.concatenate([first, below], axis=1))
    return matrix(np.concatenate(found))


def matrix(blocks: Bits) -> Bits:
    """Blocks side by side in rows; the last row is filled up with zeros."""
    flat = blocks.reshape(-1)
    return np.concatenate([flat, np.zeros(-len(flat) % COLUMNS, np.uint16)]).reshape(-1, COLUMNS)


def every_value_below(peak: int) -> Bits:
    """From a sixty-fourth of the maximum to the maximum itself."""
    return np.arange(max(peak - 6 * OCTAVE, 0), peak + 1, dtype=np.uint16)


def boundaries_below(peak: int) -> Bits:
    """What lies at and beside the seven boundaries, for every scale a maximum may get: 2**k times each, ± one step."""
    return np.unique(np.clip(BOUNDARIES + peak // OCTAVE * OCTAVE, 0, peak)).astype(np.uint16)


# --- the cases -----------------------------------------------------------------------------------------------------


def every_tie(block: int, largest: float = 2688.0, octaves: int = 19) -> Bits:
    """All BF16 block maxima over so many octaves below the largest, each with all BF16 values below it.

    With 2688 times a power of two the global scale of NVFP4 is a power of two, and every boundary is met exactly.
    """
    top = int(bits(largest)[()])
    return filled(np.arange(top, max(top - octaves * OCTAVE, 0), -1, dtype=np.uint16), every_value_below, block)


def every_maximum(block: int) -> Bits:
    """All positive BF16 numbers as maxima, subnormal ones too, each with the values at and beside the boundaries."""
    return filled(np.arange(1, LARGEST + 1, dtype=np.uint16), boundaries_below, block)


def powers_of_two(block: int) -> Bits:
    """Maxima at, just below and just above every power of two, with every BF16 value below."""
    edges = np.arange(OCTAVE, LARGEST, OCTAVE)[::9]
    peaks = np.unique(np.concatenate([edges - 1, edges, edges + 1])).astype(np.uint16)
    return filled(peaks, every_value_below, block)


def subnormal(block: int) -> Bits:
    """Nothing but subnormal numbers and zeros of both signs."""
    random = np.random.default_rng(1)
    return (random.integers(0, OCTAVE, (64, COLUMNS)) | random.integers(0, 2, (64, COLUMNS)) * SIGN).astype(np.uint16)


def tiny(block: int) -> Bits:
    """About 1e-38, beside subnormal numbers and zeros."""
    random = np.random.default_rng(2)
    return (random.integers(0, 3 * OCTAVE, (64, COLUMNS)) | random.integers(0, 2, (64, COLUMNS)) * SIGN).astype(
        np.uint16
    )


def outliers(block: int) -> Bits:
    """Ordinary weights, and one of 1e30 in every 37th block: all other blocks underflow."""
    found = ordinary(block)
    flat = found.reshape(-1, block)
    flat[::37, 3] = int(np.float32(1e30).view(np.uint32)) >> 16
    return found


def extreme(block: int) -> Bits:
    """Anything, up to nearly the largest number there is."""
    random = np.random.default_rng(3)
    return (random.integers(0, LARGEST + 1, (64, COLUMNS)) | random.integers(0, 2, (64, COLUMNS)) * SIGN).astype(
        np.uint16
    )


def all_equal(block: int) -> Bits:
    """Blocks of one magnitude throughout, every one from 2**-20 to 2**12."""
    magnitudes = np.arange(ONE - 20 * OCTAVE, ONE + 12 * OCTAVE, dtype=np.uint16)
    found = np.repeat(magnitudes[:, None], block, axis=1)
    found[:, 1::2] |= SIGN
    return matrix(found)


def zeros(block: int) -> Bits:
    """All-zero blocks of either sign among ordinary ones."""
    found = ordinary(block)
    flat = found.reshape(-1, block)
    flat[::3], flat[1::3] = 0, SIGN
    return found


def ordinary(block: int) -> Bits:
    """Weights as layers have them: a normal distribution whose width differs from row to row."""
    random = np.random.default_rng(4)
    wide = (random.standard_normal((64, COLUMNS)) * 0.02 * np.exp(random.standard_normal((64, 1)))).astype(np.float32)
    rounded = wide.view(np.uint32) + 0x7FFF + (wide.view(np.uint32) >> 16 & 1)  # to nearest, ties to even
    return (rounded >> 16).astype(np.uint16)


def heavy_tails(block: int) -> Bits:
    """Student's t with two degrees of freedom."""
    wide = np.random.default_rng(5).standard_t(2, (64, COLUMNS)).astype(np.float32)
    return (wide.view(np.uint32) >> 16).astype(np.uint16)


CASES: Mapping[str, Callable[[int], Bits]] = {
    "every tie": every_tie,
    "every tie, global scale 2**-40": lambda block: every_tie(block, 2688.0 * 2.0**-40, 12),
    "every tie, global scale 2**60": lambda block: every_tie(block, 2688.0 * 2.0**60, 12),
    "every value, an odd global scale": lambda block: every_tie(block, 0.037109375, 12),
    "every maximum": every_maximum,
    "powers of two": powers_of_two,
    "subnormal": subnormal,
    "tiny": tiny,
    "outliers": outliers,
    "extreme": extreme,
    "all equal": all_equal,
    "zeros": zeros,
    "ordinary": ordinary,
    "heavy tails": heavy_tails,
}
