"""The kernels of the CPU in machine code, for threads: block maxima, scale codes, elements and the error made.

Weights come as bits: BF16 as uint16, F16 as int16, F32 as float32 arrays.
Importing this module imports numba, which costs half a second; compiling or loading waits for the first call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from publisher.formats.blocks import UInt8Array
from publisher.native.kernels import vectors
from publisher.native.kernels.machine import machine_code
from publisher.native.kernels.thresholds import Scales, Steps

Weights = npt.NDArray[Any]
Sums = npt.NDArray[np.float64]


def _peaks(weights: Any, out: Any) -> None:
    vectors.sixteens_peaks(weights, out, out.shape[0])


def _looked_up(peaks: Any, table: Any, out: Any) -> None:
    for block in range(out.shape[0]):
        out[block] = table[peaks[block]]


def _searched(peaks: Any, starts: Any, codes: Any, out: Any) -> None:
    for block in range(out.shape[0]):
        peak = np.int64(peaks[block])
        low, high = 0, starts.shape[0]
        while low < high:
            middle = (low + high) >> 1
            if peak >= starts[middle]:
                low = middle + 1
            else:
                high = middle
        out[block] = codes[low]


def _encode(weights: Any, codes: Any, below: Any, halves: Any, out: Any, rows: Any, runs: Any, shift: Any) -> None:
    vectors.encode_sixteens(weights, codes, below, halves, out, 0, rows * runs, shift, np.zeros(2))


def _encode_metered(
    weights: Any, codes: Any, below: Any, halves: Any, out: Any, rows: Any, runs: Any, shift: Any, sums: Any
) -> None:
    for row in range(rows):
        vectors.encode_sixteens_metered(weights, codes, below, halves, out, row * runs, runs, shift, sums)


@functools.cache
def _compiled() -> dict[str, Callable[..., Any]]:
    functions = (_peaks, _looked_up, _searched, _encode, _encode_metered)
    return {function.__name__: machine_code(function) for function in functions}


def block_amax(weights: Weights, block: int, out: npt.NDArray[Any]) -> None:
    """Largest magnitudes of blocks, exact; NaN wins over infinity, both over numbers.

    Args:
        weights: (rows, columns) contiguous, columns a multiple of `block`.
        block: 16 or 32.
        out: (rows, columns / block) contiguous, same type.
    """
    if block == vectors.LANES:
        _compiled()["_peaks"](weights.reshape(-1), out.reshape(-1))
        return
    halves = np.empty(weights.size // vectors.LANES, _unsigned(weights))
    _compiled()["_peaks"](weights.reshape(-1), halves)
    np.maximum(halves[0::2], halves[1::2], out=out.reshape(-1).view(halves.dtype))


def _unsigned(weights: Weights) -> npt.DTypeLike:
    return np.uint32 if weights.dtype.itemsize == 4 else np.uint16


def scale_codes(amax: npt.NDArray[Any], scales: Scales, out: UInt8Array) -> None:
    """Block scale codes of finite block maxima (any shape, contiguous)."""
    peaks = amax.reshape(-1).view(_unsigned(amax))
    if len(scales.table):
        _compiled()["_looked_up"](peaks, scales.table, out.reshape(-1))
    else:
        _compiled()["_searched"](peaks, scales.starts, scales.codes, out.reshape(-1))


def encode(
    weights: Weights, codes: UInt8Array, steps: Steps, block: int, out: UInt8Array, sums: Sums | None = None
) -> None:
    """Elements under given block scales.

    Args:
        weights: (rows, columns) contiguous and finite.
        codes: (rows, columns / block) block scale codes.
        steps: boundaries of the same kind of weight.
        block: 16 or 32.
        out: (rows, columns / 2), packed codes.
        sums: squared error and squared weight are added to it, row by row.
    """
    rows, columns = weights.shape
    arguments = (weights.reshape(-1), codes.reshape(-1), steps.below, steps.halves, out.reshape(-1), rows)
    runs, shift = columns // vectors.LANES, block // (2 * vectors.LANES)
    if sums is None:
        _compiled()["_encode"](*arguments, runs, shift)
    else:
        _compiled()["_encode_metered"](*arguments, runs, shift, sums)
