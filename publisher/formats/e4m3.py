"""E4M3 (`F8_E4M3`, float8_e4m3fn): NVFP4's block scale. Bias 7, finite to 448, two NaN codes, no infinity.

Encoding rounds to nearest, ties to even, and saturates: casts in older PyTorch turn 480 and above into NaN, newer ones
saturate, so nothing here depends on either. What a NaN becomes is the caller's decision, because one NaN scale turns a
whole block, and through attention every token, into NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from publisher.formats.blocks import Float32Array, TensorError, UInt8Array

BIAS = 7
MAX = 448.0
MAX_CODE = 0x7E
NAN_CODE = 0x7F
MIN_NORMAL = 2.0**-6
MIN_SUBNORMAL = 2.0**-9

OnNaN = Literal["refuse", "code"]
"""`refuse` raises; `code` writes 0x7F, or 0xFF where the NaN's sign bit is set, as torch does."""


def _decode_table() -> Float32Array:
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 0xF, codes & 0x7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - BIAS)
    magnitude = np.where(exponent == 0, mantissa / 8 * MIN_NORMAL, normal)
    magnitude[(codes & 0x7F) == NAN_CODE] = np.nan
    return np.copysign(magnitude, np.where(codes & 0x80, -1.0, 1.0)).astype(np.float32)


DECODE: Float32Array = _decode_table()
"""Value of each of the 256 codes; 0x7F and 0xFF are NaN."""


def _thresholds() -> Float32Array:
    """Threshold k is the smallest float32 magnitude that rounds to code k + 1 or above."""
    middles = (DECODE[:MAX_CODE] + DECODE[1 : MAX_CODE + 1]) / np.float32(2)
    middles[0::2] = np.nextafter(middles[0::2], np.float32(np.inf))  # a tie below an even code stays there
    return middles


_THRESHOLDS: Float32Array = _thresholds()


def encode(values: Float32Array, *, nan: OnNaN = "refuse") -> UInt8Array:
    """Round to the nearest code, ties to even, saturating at ±448; infinities saturate too.

    Args:
        values: float32, any shape.
        nan: what a NaN becomes.

    Returns:
        uint8 codes of the same shape.

    Raises:
        TensorError: a value is NaN and `nan` is `refuse`.
    """
    missing = np.isnan(values)
    if nan == "refuse" and missing.any():
        raise TensorError(f"{int(missing.sum())} of {values.size} scales are NaN and have no E4M3 code to use.")
    codes = np.searchsorted(_THRESHOLDS, np.abs(values), side="right").astype(np.uint8)
    codes[missing] = NAN_CODE
    codes |= np.signbit(values).view(np.uint8) << np.uint8(7)
    return codes


def decode(codes: UInt8Array) -> Float32Array:
    """Values of codes, same shape; NaN for 0x7F and 0xFF."""
    return DECODE[codes]
