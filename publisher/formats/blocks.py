"""Weight matrices as rows of blocks: what is checked before any arithmetic, and the maxima scales are made from.

A matrix is `(out, in)` float32; a block is 16 or 32 neighbours of one row. Work goes over runs of whole rows, so that
the temporaries stay the same size however large the matrix is. Refused, with the number and the place: other ranks and
element types, an input length that is not a whole number of blocks, and NaN or infinite weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from publisher.errors import CheckpointError

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

CHUNK_ELEMENTS = 1 << 18
"""Elements of one run of rows; a longer single row is a run of its own."""


class TensorError(CheckpointError, ValueError):
    """A tensor that the format cannot hold, or bytes that are not the tensor they claim to be."""


def require_weights(weights: npt.NDArray[Any], block: int) -> None:
    """Refuse what cannot be quantized in blocks.

    Args:
        weights: should be float32 `(out, in)`.
        block: block length along `in`.

    Raises:
        TensorError: wrong element type or rank, nothing in it, or `in` not divisible by `block`.
    """
    if weights.dtype != np.float32:
        raise TensorError(
            f"Weights are {weights.dtype}, not float32.", hint="Decode the stored bytes to float32 first."
        )
    if weights.ndim != 2 or 0 in weights.shape:
        raise TensorError(
            f"Weights have shape {weights.shape}; block formats take a non-empty matrix (out, in).",
            hint="Quantize the matrices of fused experts one by one, and keep vectors as they are.",
        )
    if weights.shape[1] % block:
        raise TensorError(
            f"The input length {weights.shape[1]} is not divisible by the block length {block}.",
            hint="Exclude this module, or choose a format with a shorter block.",
        )


def require_bytes(name: str, array: npt.NDArray[Any], shape: tuple[int, ...] | None = None) -> None:
    """Refuse `array` unless it is uint8, two-dimensional and, where given, of `shape`.

    Raises:
        TensorError: naming the tensor, what it is and what it should be.
    """
    if array.dtype != np.uint8 or array.ndim != 2:
        raise TensorError(f"The {name} is {array.dtype} {array.shape}; it must be uint8 with two axes.")
    if shape is not None and array.shape != shape:
        raise TensorError(f"The {name} has shape {array.shape}; beside this payload it must be {shape}.")


def row_runs(rows: int, columns: int) -> Iterator[slice]:
    """Slices of whole rows, each of at most `CHUNK_ELEMENTS` elements (or one row)."""
    step = max(1, CHUNK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def amax(weights: npt.NDArray[Any]) -> np.float32:
    """The largest magnitude of a matrix; NaN when it holds a NaN."""
    largest = np.float32(0)
    for run in row_runs(weights.shape[0], int(np.prod(weights.shape[1:]))):
        part = weights[run]
        largest = np.maximum(largest, np.maximum(part.max(), -part.min()).astype(np.float32))
    return np.float32(abs(largest))


def block_amax(rows: Float32Array, block: int) -> Float32Array:
    """The largest magnitude of every block: `(rows, in)` to `(rows, in / block)`."""
    blocks = rows.reshape(rows.shape[0], -1, block)
    largest: Float32Array = np.abs(np.maximum(blocks.max(axis=2), -blocks.min(axis=2)))  # abs: no -0.0
    return largest


def fused_amax(amaxes: Iterable[float | np.float32]) -> np.float32:
    """The one maximum that the members of a fused group share (q/k/v, gate/up, w1/w3).

    Engines keep a single second-level scale per fused module, so members quantized with their own are mis-scaled.

    Raises:
        TensorError: the group is empty or a member's maximum is not a finite number.
    """
    values = [float(value) for value in amaxes]
    if not values:
        raise TensorError("A fused group without members has no maximum.")
    if not np.isfinite(values).all():
        raise TensorError(f"The maxima of a fused group are not all finite: {values}.")
    return np.float32(max(values))


def require_finite(weights: Float32Array, largest: np.float32) -> None:
    """Refuse NaN and infinite weights; `largest` is `amax(weights)`, so the good case costs nothing.

    Raises:
        TensorError: how many there are of each and where the first one is.
    """
    if np.isfinite(largest):
        return
    nans = infinities = 0
    first = ""
    for run in row_runs(*weights.shape):
        bad = ~np.isfinite(weights[run])
        if bad.any() and not first:
            row, column = np.argwhere(bad)[0]
            first = f"[{run.start + row}, {column}]"
        nan_count = int(np.isnan(weights[run]).sum())
        nans += nan_count
        infinities += int(bad.sum()) - nan_count
    raise TensorError(
        f"{nans} of {weights.size} weights are NaN and {infinities} infinite, the first at {first}.",
        hint="Repair the source checkpoint or keep this tensor unquantized.",
    )
