"""Stored BF16, F16 and F32 tensors as float32, and float32 rounded back to BF16.

Decoding is exact. The names are those of safetensors headers; every other one is refused, and so is a byte count that
does not match the shape. Bytes are little-endian, whatever the machine.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from publisher.formats.blocks import Float32Array, TensorError

_STORED: dict[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def decode(raw: bytes | memoryview, dtype: str, shape: tuple[int, ...]) -> Float32Array:
    """Bytes of one tensor, or of some of its rows, as float32.

    Args:
        raw: little-endian elements in row order.
        dtype: `BF16`, `F16` or `F32`.
        shape: shape of the result.

    Returns:
        float32 of `shape`; for `F32` a view of `raw`, read-only where `raw` is.

    Raises:
        TensorError: another dtype, or `raw` is not exactly as long as `shape` says.
    """
    stored = _STORED.get(dtype)
    if stored is None:
        raise TensorError(
            f"Cannot read {dtype} weights as float32.",
            hint=f"Weights to quantize must be {', '.join(sorted(_STORED))}.",
        )
    size = len(memoryview(raw).cast("B"))
    needed = math.prod(shape) * np.dtype(stored).itemsize
    if size != needed:
        raise TensorError(f"{size} bytes cannot be {dtype} {shape}, which needs {needed}.")
    elements = np.frombuffer(raw, dtype=stored).reshape(shape)
    if dtype == "BF16":
        return (elements.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return elements.astype(np.float32, copy=False)


def to_bf16_bits(values: Float32Array) -> npt.NDArray[np.uint16]:
    """float32 rounded to BF16 (nearest, ties to even; overflow to infinity), as bit patterns of the same shape.

    A NaN becomes the quiet NaN 0x7FC0 with the sign it had.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = ((bits >> np.uint32(16)) & np.uint32(0x8000)) | np.uint32(0x7FC0)
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)


def round_to_bf16(values: Float32Array) -> Float32Array:
    """float32 rounded to BF16 and back, same shape: the bits of `to_bf16_bits`, several times as fast."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded &= np.uint32(0xFFFF0000)
    result = rounded.view(np.float32)
    missing = np.isnan(values)
    if missing.any():
        result[missing] = np.copysign(np.float32(np.nan), values[missing])
    return result


def encode_bf16(values: Float32Array) -> bytes:
    """float32 rounded to BF16, as little-endian bytes in row order."""
    return to_bf16_bits(values).astype("<u2").tobytes()
