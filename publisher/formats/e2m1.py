"""E2M1, the four-bit element of NVFP4 and MXFP4: sign, two exponent bits, one mantissa bit, no NaN, no infinity.

Sixteen codes: bit 3 is the sign, bits 2..0 index `MAGNITUDES`. Two codes share a byte, the element with the even index
in the low nibble, along the input axis; modelopt, compressed-tensors, Quark and gpt-oss agree on that. Producers differ
in two small things, which are arguments here: which way a tie goes, and when a zero gets the sign bit.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from publisher.formats.blocks import Float32Array, TensorError, UInt8Array

MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
MAX = 6.0
MAX_CODE = 7

Ties = Literal["even", "down"]
"""`even`: to the code with mantissa bit 0 (IEEE, OCP). `down`: towards zero (modelopt's MXFP4)."""

Signs = Literal["negative", "sign-bit", "nonzero", "not-positive"]
"""When the sign bit is set: the value is < 0 (modelopt's NVFP4, compressed-tensors); its own sign bit is set (torchao);
it is < 0 and does not round to zero (Quark); it is <= 0, so that every exact zero is code 8 (modelopt's MXFP4)."""


def _thresholds(ties: Ties) -> tuple[np.float32, ...]:
    """Threshold k is the smallest float32 magnitude that rounds to code k + 1 or above."""
    limits = []
    for code, (below, above) in enumerate(pairwise(MAGNITUDES)):
        middle = np.float32((below + above) / 2)
        stays = ties == "down" or code % 2 == 0
        limits.append(np.nextafter(middle, np.float32(np.inf)) if stays else middle)
    return tuple(limits)


_THRESHOLDS: dict[Ties, tuple[np.float32, ...]] = {"even": _thresholds("even"), "down": _thresholds("down")}

DECODE: Float32Array = np.array([*MAGNITUDES, *(-m for m in MAGNITUDES)], dtype=np.float32)
"""Value of each of the sixteen codes; code 8 is -0.0."""

_DECODE_BYTE: Float32Array = np.stack(
    [DECODE[np.arange(256) & 0xF], DECODE[np.arange(256) >> 4]], axis=1
)  # (256, 2): the even element, then the odd one
_PAIRS = np.ascontiguousarray(_DECODE_BYTE).view(np.uint64).reshape(256)  # both in one word: one look-up for two


def encode(values: Float32Array, *, ties: Ties = "even", signs: Signs = "negative") -> UInt8Array:
    """Round scaled values to codes; magnitudes above 6 saturate, NaN becomes magnitude 6 as in modelopt.

    Args:
        values: float32, any shape, already divided by their scale.
        ties: which neighbour an exact middle goes to.
        signs: when the sign bit is set.

    Returns:
        uint8 codes 0..15 of the same shape, one per element.
    """
    magnitudes = np.abs(values)
    codes = np.full(values.shape, MAX_CODE, dtype=np.uint8)
    for threshold in _THRESHOLDS[ties]:
        codes -= np.less(magnitudes, threshold).view(np.uint8)
    codes |= _sign(values, codes, signs).view(np.uint8) << np.uint8(3)
    return codes


def _sign(values: Float32Array, codes: UInt8Array, signs: Signs) -> npt.NDArray[np.bool_]:
    if signs == "sign-bit":
        return np.signbit(values)
    if signs == "not-positive":
        return np.less_equal(values, 0)
    negative = np.less(values, 0)
    if signs == "nonzero":
        negative &= codes != 0
    return negative


def decode(codes: UInt8Array) -> Float32Array:
    """Values of unpacked codes 0..15, same shape."""
    return DECODE[codes]


def pack(codes: UInt8Array) -> UInt8Array:
    """Two codes to a byte, even element low: `(..., n)` to `(..., n / 2)`.

    Raises:
        TensorError: `n` is odd.
    """
    if codes.shape[-1] % 2:
        raise TensorError(f"{codes.shape[-1]} codes per row cannot be packed two to a byte.")
    return codes[..., 0::2] | (codes[..., 1::2] << np.uint8(4))


def unpack(payload: UInt8Array) -> UInt8Array:
    """Bytes to codes 0..15: `(..., n)` to `(..., 2 n)`."""
    codes = np.empty((*payload.shape[:-1], payload.shape[-1] * 2), dtype=np.uint8)
    np.bitwise_and(payload, 0xF, out=codes[..., 0::2])
    np.right_shift(payload, 4, out=codes[..., 1::2])
    return codes


def decode_packed(payload: UInt8Array) -> Float32Array:
    """Bytes straight to values: `(..., n)` to `(..., 2 n)`."""
    pairs = np.take(_PAIRS, payload).view(np.float32)
    return pairs.reshape(*payload.shape[:-1], payload.shape[-1] * 2)
