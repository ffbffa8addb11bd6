"""What can be told of long runs of codes in one pass: extremes, counts, what packed blocks hold, NaN and infinity.

Everything is plain numpy on pieces that fit into the cache. Where numba is installed, packed blocks are counted nearly
three times as fast, with the same results; compiling takes about a second, so it is asked for only where there is much
to count.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from publisher.formats.blocks import TensorError, UInt8Array

Counts = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
_SHORT = 1 << 16  # below this one table of 256 is cheaper than one of 65,536
_LOW_BITS = np.uint64(0x1111_1111_1111_1111)  # bit 0 of each of a word's sixteen codes
_ONE, _TWO = np.uint64(1), np.uint64(2)


def extremes(codes: UInt8Array) -> tuple[int, int]:
    """The smallest and the largest byte of a non-empty array."""
    return int(codes.min()), int(codes.max())


def histogram(codes: UInt8Array) -> Counts:
    """How often each of the 256 byte values occurs, int64 (256,)."""
    if len(codes) < _SHORT:
        return np.bincount(codes, minlength=256)
    even = len(codes) // 2 * 2
    pairs = np.bincount(codes[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts: Counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    if even != len(codes):
        counts[codes[-1]] += 1
    return counts


# --- packed blocks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """What blocks of packed E2M1 codes hold, counted.

    Attributes:
        peaks: blocks by scale code and by the largest magnitude code in them, int64 (256, 8); `peaks[:, 0]` are the
            blocks of zeros.
        bytes: bytes of the payload by value, int64 (256,).
    """

    peaks: Counts = field(default_factory=lambda: np.zeros((256, 8), np.int64))
    bytes: Counts = field(default_factory=lambda: np.zeros(256, np.int64))

    @property
    def codes(self) -> Counts:
        """Elements by code, int64 (16,)."""
        pairs = self.bytes.reshape(16, 16)  # high nibble, low nibble
        counts: Counts = pairs.sum(axis=0) + pairs.sum(axis=1)
        return counts

    def add(self, payload: UInt8Array, scales: UInt8Array, *, fast: bool = False) -> None:
        """Count more blocks.

        Args:
            payload: uint8, eight bytes (sixteen codes) of every block, or a multiple of that.
            scales: uint8 (blocks,), one code per block.
            fast: compile the loop, where numba is installed.

        Raises:
            TensorError: the payload is no whole number of eight bytes per block.
        """
        words = _words(payload, scales)
        compiled = _compiled() if fast else None
        if compiled is not None:
            compiled(words, scales, len(words) // len(scales), self.bytes, self.peaks)
            return
        self.bytes[:] += histogram(payload)
        found = peaks(words, len(scales))
        if found.min() == 7:  # all of them where the largest weight decides the scale
            self.peaks[:, 7] += histogram(scales)
            return
        pairs = scales.astype(np.int16) << 3 | found
        self.peaks[:] += np.bincount(pairs, minlength=256 * 8).reshape(256, 8)


def _words(payload: UInt8Array, scales: UInt8Array) -> Words:
    if not len(scales) or len(payload) % (8 * len(scales)) or not len(payload):
        raise TensorError(f"{len(payload)} bytes are no blocks of a multiple of 16 codes for {len(scales)} scales.")
    return np.require(payload, requirements=["C", "A"]).view(np.uint64)


def block_peaks(payload: UInt8Array, blocks: int) -> UInt8Array:
    """The largest magnitude code, 0 to 7, of each of `blocks` blocks of equal length: uint8 (blocks,)."""
    return peaks(_words(payload, np.empty(blocks, np.uint8)), blocks)


def peaks(words: Words, blocks: int) -> UInt8Array:
    """The same, of words of sixteen codes.

    Codes are compared all sixteen at once by their bits: most blocks hold a 7, whatever else they hold.
    """
    bits = words >> _ONE
    bits &= words
    bits &= words >> _TWO
    bits &= _LOW_BITS
    found: UInt8Array = (bits != 0).view(np.uint8) * np.uint8(7)
    rest = np.flatnonzero(found == 0)
    if len(rest):
        found[rest] = _below_seven(words[rest])
    width = len(words) // blocks
    return functools.reduce(np.maximum, (found[word::width] for word in range(width)))


def _below_seven(words: Words) -> UInt8Array:
    def has(bits: Words) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = (bits & _LOW_BITS) != 0
        return found

    fours, twos = words >> _TWO, words >> _ONE
    high = np.where(has(fours & twos), 6, np.where(has(fours & words), 5, 4))
    low = np.where(has(twos), np.where(has(twos & words), 3, 2), has(words))
    return np.where(has(fours), high, low).astype(np.uint8)


def accelerated() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


@functools.cache
def _compiled() -> Callable[..., Any] | None:
    """The loop of `BlockCounts.add` in machine code; None where numba is not installed."""
    if not accelerated():
        return None
    import numba

    compiled: Callable[..., Any] = numba.njit(nogil=True)(_count)
    return compiled


def _count(words: Words, scales: UInt8Array, width: int, by_byte: Counts, by_peak: Counts) -> None:
    """`width` words per block; eight tables, so that equal neighbours do not wait for one another's counts."""
    tables = np.zeros((8, 256), np.uint32)
    low, one, two, byte = np.uint64(0x1111111111111111), np.uint64(1), np.uint64(2), np.uint64(255)
    at = 0
    for block in range(len(scales)):
        peak = 0
        for _ in range(width):
            word = words[at]
            at += 1
            for lane in range(8):
                tables[lane, (word >> np.uint64(8 * lane)) & byte] += np.uint32(1)
            fours, twos = word >> two, word >> one
            if fours & twos & low:
                own = 7 if fours & twos & word & low else 6
            elif fours & low:
                own = 5 if fours & word & low else 4
            elif twos & low:
                own = 3 if twos & word & low else 2
            else:
                own = 1 if word & low else 0
            peak = max(peak, own)
        by_peak[scales[block], peak] += 1
    for lane in range(8):
        for value in range(256):
            by_byte[value] += tables[lane, value]


# --- floats --------------------------------------------------------------------------------------------------------

# dtype -> unsigned type, and the smallest pattern of a positive number that is not finite. Of two patterns with one
# sign that of the larger magnitude is the larger integer, so two maxima settle whether there is any.
_NOT_FINITE = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),  # it has no infinity
}
FLOATS = frozenset(_NOT_FINITE)


def float_width(dtype: str) -> int:
    """Bytes of one element of a dtype in `FLOATS`."""
    return np.dtype(_NOT_FINITE[dtype][0]).itemsize


def has_nonfinite(raw: UInt8Array, dtype: str) -> bool:
    """Whether any element of these little-endian bytes, a whole number of them, is NaN or infinite.

    Raises:
        KeyError: a dtype that is not in `FLOATS`.
    """
    unsigned, limit = _NOT_FINITE[dtype]
    if not len(raw):
        return False
    bits = raw.view(unsigned)
    sign = 1 << (bits.dtype.itemsize * 8 - 1)
    signed = bits.view(unsigned.replace("u", "i"))
    return bool(int(bits.max()) >= sign | limit or int(signed.max()) >= limit)


def nonfinite(raw: UInt8Array, dtype: str) -> Counts:
    """Flat indices of the elements that are NaN or infinite, in order; see `has_nonfinite`."""
    unsigned, limit = _NOT_FINITE[dtype]
    bits = raw.view(unsigned)
    magnitude = bits & bits.dtype.type((1 << (bits.dtype.itemsize * 8 - 1)) - 1)
    return np.flatnonzero(magnitude >= limit).astype(np.int64)
