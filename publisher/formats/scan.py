"""What can be told of long runs of codes in one pass: extremes, counts, and what packed blocks hold.

Everything is plain numpy on pieces that fit into the cache; where numba is installed it counts faster, with the same
results.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from publisher.formats.blocks import UInt8Array

Counts = npt.NDArray[np.int64]
_SHORT = 1 << 16  # below this one table of 256 is cheaper than one of 65,536


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
