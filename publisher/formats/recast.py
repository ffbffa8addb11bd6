"""MXFP4 codes as NVFP4, without rounding wherever NVFP4's scales reach.

Both have E2M1 elements; a block scale `2**k` of MXFP4 becomes the E4M3 scale `2**(k - k_max + 8)` of each half of its
block, under the global scale `2**(k_max - 8)`, `k_max` being the largest exponent of the matrix or of the group that
shares a scale. E4M3 holds the powers of two from 2**-9 to 2**8, so every block within eighteen exponents of the largest
keeps its codes; modelopt 0.47 casts alike (`quantize_mxfp4_to_nvfp4_lossless`). Blocks below get the smallest scale and
are rounded anew, ties to even; those whose values stay what they were do not count as rounded.
Refused: the NaN scale 255, shapes that do not belong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from publisher.formats import e2m1, e4m3, e8m0
from publisher.formats.blocks import Float32Array, TensorError, UInt8Array, require_bytes
from publisher.formats.spec import FORMATS

TOP, REACH = 8, 17  # exponent of the largest power of two of E4M3, and how many lie below it
_LOWEST_NORMAL = -126
_MX, _NV = FORMATS["mxfp4"], FORMATS["nvfp4"]
_SQUARES: Float32Array = (
    (e2m1.decode_packed(np.arange(1 << 16, dtype="<u2").view(np.uint8)) ** 2).reshape(-1, 4).sum(axis=1)
)  # of the four elements of two bytes
_POWERS: UInt8Array = e4m3.encode(np.ldexp(1.0, np.arange(TOP - REACH, TOP + 1)).astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recast:
    """One matrix of NVFP4.

    Attributes:
        payload: uint8 (out, in / 2).
        block_scales: uint8 (out, in / 16), E4M3 codes.
        rounded: MXFP4 blocks that hold another value than before.
        error: sum of the squares of what that changed.
        weight: sum of the squares of the weights.
    """

    payload: UInt8Array
    block_scales: UInt8Array
    rounded: int
    error: float
    weight: float


def top_exponent(scales: UInt8Array) -> int | None:
    """The largest exponent of block scales; None where all are the code 0, as all-zero blocks have it.

    Args:
        scales: uint8, any shape, E8M0 codes.

    Raises:
        TensorError: a scale is NaN.
    """
    top = int(scales.max(initial=0))
    if top == e8m0.NAN_CODE:
        raise TensorError(f"{int((scales == e8m0.NAN_CODE).sum()):,} of {scales.size:,} block scales are NaN (255).")
    return top - e8m0.BIAS if top else None


def global_exponent(top: int | None) -> int:
    """`g` of the global scale `2**g`, for the largest exponent of all that share it."""
    return max((0 if top is None else top) - TOP, _LOWEST_NORMAL)


def recast(payload: UInt8Array, scales: UInt8Array, exponent: int) -> Recast:
    """A matrix of MXFP4 as NVFP4.

    Args:
        payload: uint8 (out, in / 2), packed codes.
        scales: uint8 (out, in / 32), E8M0 codes, none of them NaN.
        exponent: of the global scale, from `global_exponent`.

    Raises:
        TensorError: shapes that do not belong together, or a block above what the global scale reaches.
    """
    _require(payload, scales)
    over = scales.astype(np.int16) - e8m0.BIAS - exponent  # exponent of the E4M3 scale that a block needs
    blocks = np.ascontiguousarray(payload).reshape(*scales.shape, _MX.block // 2)
    squares = np.take(_SQUARES, blocks.view("<u2")).sum(axis=2)  # of the elements, exact in float32
    if (over > TOP)[squares > 0].any():
        raise TensorError(f"A block needs the scale 2**{int(over.max())}; E4M3 reaches 2**{TOP}.")
    codes = _POWERS[np.clip(over, TOP - REACH, TOP) - (TOP - REACH)]
    steps = np.ldexp(1.0, scales.astype(np.int32) - e8m0.BIAS)
    low = np.nonzero((squares > 0) & (over < TOP - REACH))
    out, rounded, error = blocks, 0, 0.0
    if len(low[0]):
        out = blocks.copy()
        out[low], rounded, error = _rounded(blocks[low], over[low], steps[low])
    return Recast(
        payload=out.reshape(payload.shape),
        block_scales=np.repeat(codes, _MX.block // _NV.block, axis=1),
        rounded=rounded,
        error=error,
        weight=float((squares * steps**2).sum()),
    )


def _rounded(blocks: UInt8Array, over: npt.NDArray[Any], steps: npt.NDArray[Any]) -> tuple[UInt8Array, int, float]:
    """Blocks (n, 16) below the smallest scale's reach, under that scale; how many changed, and the squared error."""
    shrink = np.ldexp(np.float32(1), over - (TOP - REACH)).astype(np.float32)[:, np.newaxis]
    elements = e2m1.decode_packed(blocks)  # (n, 32) in units of the block's own scale
    anew = e2m1.pack(e2m1.encode(elements * shrink, signs="sign-bit"))
    changed = e2m1.decode_packed(anew).astype(np.float64) / shrink - elements
    return anew, int(changed.any(axis=1).sum()), float(((changed * steps[:, np.newaxis]) ** 2).sum())


def _require(payload: UInt8Array, scales: UInt8Array) -> None:
    require_bytes("payload", payload)
    _MX.require_whole_blocks(payload.shape[1] * 2)
    require_bytes("block scale tensor", scales, _MX.scale_shape(payload.shape[0], payload.shape[1] * 2))
