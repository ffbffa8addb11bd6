"""Which rows of a packed weight are looked at, and what is summed over them.

A sample is a few runs of whole rows spread over the matrix, the same ones every time for a module's name, so that a
read fetches neighbours and a finding can be found again.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from publisher.checkpoint.stored import StoredWeight
from publisher.formats import nvfp4
from publisher.formats.blocks import Float32Array, block_amax
from publisher.formats.makers import Sample, Verdict
from publisher.subjects.modules import BLOCK
from publisher.subjects.packed import PackedWeight

RUNS = 8  # runs of rows a sample is spread over
PIECE = 1 << 17  # weights of one piece: what is made of it stays in the second-level cache
SEED = 20_261_121


def rows_looked(packed: PackedWeight, sample: int | None) -> int:
    """Rows of a sample of so many blocks; all of them where there is no sample."""
    if sample is None:
        return packed.rows
    per_row = packed.columns // BLOCK[packed.format]
    return min(packed.rows, max(1, -(-sample // per_row)))


@functools.lru_cache(maxsize=64)
def runs_of(name: str, rows: int, wanted: int, count: int = RUNS) -> tuple[tuple[int, int], ...]:
    """Runs of rows, `wanted` in all, one somewhere in each of a few equal parts of the matrix."""
    if wanted >= rows:
        return ((0, rows),)
    count = min(count, wanted)
    random = np.random.default_rng([SEED, zlib.crc32(name.encode("utf-8", "replace"))])
    found = []
    for part in range(count):
        low, high = rows * part // count, rows * (part + 1) // count
        length = min(wanted * (part + 1) // count - wanted * part // count, high - low)
        begin = int(random.integers(low, high - length + 1))
        found.append((begin, begin + length))
    return tuple(found)


def pieces_of(packed: PackedWeight, original: StoredWeight) -> Iterator[tuple[int, int]]:
    """Runs of rows that make up the whole matrix; a transposed source is one run."""
    return iter([(0, packed.rows)]) if original.turned else chunks(0, packed.rows, packed.columns)


def chunks(begin: int, end: int, columns: int) -> Iterator[tuple[int, int]]:
    """Rows `begin` to `end` in pieces."""
    step = max(1, PIECE // columns)
    for at in range(begin, end, step):
        yield at, min(at + step, end)


@dataclass(slots=True)
class Sums:
    """Sums over the weights looked at, in float64 over float32 dot products of a piece."""

    count: int = 0
    norm: float = 0.0
    own: float = 0.0
    product: float = 0.0
    error: float = 0.0
    amax: float = 0.0

    def add(self, source: Float32Array, result: Float32Array) -> None:
        """Take some rows of both; the second array is used up."""
        weights, values = source.ravel(), result.ravel()
        with np.errstate(all="ignore"):
            self.count += len(weights)
            self.norm += _dot(weights, weights)
            self.own += _dot(values, values)
            self.product += _dot(weights, values)
            self.amax = max(self.amax, float(weights.max()), -float(weights.min()))
            np.subtract(values, weights, out=values)
            self.error += _dot(values, values)


def _dot(one: Float32Array, other: Float32Array) -> float:
    """float32, and once more in float64 where that overflows or underflows."""
    found = float(np.dot(one, other))
    if math.isfinite(found) and found > 1e-30:
        return found
    return float(np.dot(one.astype(np.float64), other.astype(np.float64)))


def plain_error(sample: Sample, verdict: Verdict) -> float | None:
    """Squared error under plain `max` scales over the sample's own; None where the scales are those or codes moved."""
    if sample.global_scale is None or not verdict.blocks or verdict.maker.endswith(" max"):
        return None
    if verdict.wrong_codes * 100 > verdict.blocks:
        return None
    policy = nvfp4.POLICIES["compressed-tensors" if sample.direction == "divide" else "modelopt"]
    with np.errstate(all="ignore"):
        codes = nvfp4.block_scale_codes(block_amax(sample.weights, BLOCK["nvfp4"]), sample.global_scale, policy)
        plain = replace(sample, scales=codes)
        payload, _ = nvfp4.encode_rows(sample.weights, sample.global_scale, policy)
        own = _squares(sample.values() - sample.weights)
        other = _squares(plain.values(payload) - sample.weights)
    return other / own if own > 0 and math.isfinite(other) else None


def _squares(difference: Float32Array) -> float:
    flat = difference.ravel().astype(np.float64)
    return float(flat @ flat)
