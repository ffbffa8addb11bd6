"""E8M0: the power-of-two block scale of the MX formats, `2 ** (code - 127)`, stored as `U8`; code 255 is NaN.

A block's scale comes from its largest magnitude `a` in one of four ways in use. With `e(a)` the exponent:

- `even`: round `a` to one mantissa bit first, then `floor(log2 a) - 2` (Quark's default, compressed-tensors, torchao);
- `floor`: `floor(log2 a) - 2` (OCP MX specification 1.0 §6.3, torchao, AutoRound);
- `ceil`: `ceil(log2 a) - 2` (torchao);
- `ceil6`: `ceil(log2(a / 6))` (modelopt; torchao calls it RCEIL), the only one that never clips and wastes least.

The first three look at the bits and are exact. `ceil6` rounds the division and the logarithm to float32, as its users
do, so an `a / 6` within half a unit in the last place of the logarithm above a power of two counts as that power; no
BF16 or F16 weight is that close. NaN and infinite maxima are refused.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from publisher.formats.blocks import Float32Array, TensorError, UInt8Array

BIAS = 127
MAX_CODE = 254
NAN_CODE = 255

Mode = Literal["even", "floor", "ceil", "ceil6"]
MODES: tuple[Mode, ...] = get_args(Mode)

_ELEMENT_EXPONENT = 2  # floor(log2(6)), the largest exponent an E2M1 element has
_MANTISSA_BITS = 23
_MANTISSA_MASK = (1 << _MANTISSA_BITS) - 1
_HALF_ELEMENT_STEP = 1 << (_MANTISSA_BITS - 2)  # half of E2M1's last mantissa bit: carries from 1.75 upwards

DECODE: Float32Array = np.append(np.ldexp(1.0, np.arange(255) - BIAS), np.nan).astype(np.float32)
"""Value of each of the 256 codes; code 0 is the subnormal 2**-127, code 255 is NaN."""


def encode(amax: Float32Array, mode: Mode, *, lowest: int = 0, zero: int = 0) -> UInt8Array:
    """Scale codes from block maxima.

    Args:
        amax: float32, any shape, each >= 0.
        mode: how the maximum becomes an exponent.
        lowest: smallest code for a block that is not all zero.
        zero: code for a block that is all zero.

    Returns:
        uint8 codes 0..254 of the same shape.

    Raises:
        TensorError: a maximum is NaN, infinite or negative, or the mode is unknown.
    """
    if mode not in MODES:
        raise TensorError(f"{mode!r} is no E8M0 scale mode.", hint=f"Choose one of {', '.join(MODES)}.")
    wrong = ~(np.isfinite(amax) & (amax >= 0))
    if wrong.any():
        raise TensorError(f"{int(wrong.sum())} of {amax.size} block maxima are not finite and non-negative.")
    codes = np.clip(_exponents(amax, mode) + BIAS, lowest, MAX_CODE).astype(np.uint8)
    codes[amax == 0] = zero
    return codes


def _exponents(amax: Float32Array, mode: Mode) -> npt.NDArray[np.int32]:
    if mode == "ceil6":
        with np.errstate(divide="ignore"):
            logarithm = np.log2((amax / np.float32(6)).astype(np.float64)).astype(np.float32)
        return np.ceil(np.maximum(logarithm, np.float32(-BIAS))).astype(np.int32)
    bits = np.ascontiguousarray(amax, dtype=np.float32).view(np.int32)
    if mode == "even":
        bits = bits + np.int32(_HALF_ELEMENT_STEP)
    exponents = (bits >> _MANTISSA_BITS) - BIAS - _ELEMENT_EXPONENT
    if mode == "ceil":
        exponents = exponents + ((bits & _MANTISSA_MASK) > 0)
    return exponents.astype(np.int32)


def decode(codes: UInt8Array) -> Float32Array:
    """Values of codes, same shape; NaN for 255."""
    return DECODE[codes]
