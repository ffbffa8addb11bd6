"""NVFP4 "four-over-six": of every block either its largest weight becomes 6 or, where that errs less, 4.

Between 4 and 6 there is no element, so a block whose other large weights would fall there can do better with steps half
as large again. As modelopt 0.47 computes it (preset `nvfp4_four_over_six`: `calib/mse.py` with the multipliers 1 and
1.5, `numeric_utils.py`, `nvfp4_tensor.py`), with `g` the largest magnitude of the tensor or fused group, `a` that of a
block and m either multiplier, all in float32 and in this order:

    s2 = g / 1536       S(m) = E4M3(clamp((((a m) / 6) 256) / (g / 6), 2**-9, 448)), a zero a m / 6 counting as 1
    G = 448 / ((g 1.75) / 6)    t(m) = E4M3(((a m) / 6) G) (1 / G)    loss(m) = sum of (|w| - E2M1(|w| / t(m)) t(m))**2

The first smallest loss wins, so a tie goes to 6; the stored scale is S(m), and elements are rounded under S(m) s2 as in
every other mode. 256 and not 448 is the scale of the largest block, because 448 has no code half as large again above
it; so a stored scale of a block that is not all zero is at most 384. An all-zero block gets S = 448 nearly always.
modelopt computes its losses in a GPU kernel, and its libraries add the sixteen terms in an order of their own, which
may decide a near tie otherwise; here they are added in their order. An all-zero group counts as if g were 1.
"""

from __future__ import annotations

import numpy as np

from publisher.formats import e2m1, e4m3, nvfp4
from publisher.formats.blocks import (
    Float32Array,
    UInt8Array,
    amax,
    block_amax,
    require_finite,
    require_weights,
    row_runs,
)

MULTIPLIERS = (np.float32(1), np.float32(1.5))
LARGEST_SCALE = np.float32(256)  # of the block that holds the largest weight
_SIX, _FULL = np.float32(e2m1.MAX), np.float32(e4m3.MAX)
_TINY = np.finfo(np.float32).tiny


def global_scale(largest: float | np.float32) -> np.float32:
    """`weight_scale_2` of a tensor or fused group whose largest magnitude is `largest`."""
    g = np.float32(largest)
    return np.float32(max((g if g > 0 else np.float32(1)) / (_SIX * LARGEST_SCALE), _TINY))


def candidates(maxima: Float32Array, largest: float | np.float32) -> tuple[UInt8Array, Float32Array]:
    """Both ways of scaling blocks with these largest magnitudes.

    Args:
        maxima: float32, any shape.
        largest: the largest magnitude of the tensor or fused group.

    Returns:
        stored E4M3 codes uint8 (..., 2), and the steps losses are taken under, float32 (..., 2).
    """
    g = np.float32(largest) if largest > 0 else np.float32(1)
    with np.errstate(all="ignore"):
        wanted: Float32Array = np.stack([(maxima * multiplier) / _SIX for multiplier in MULTIPLIERS], axis=-1)
        stored: Float32Array = np.where(wanted == 0, np.float32(1), wanted) * LARGEST_SCALE / (g / _SIX)
        lowest = np.float32(e4m3.MIN_SUBNORMAL)
        codes = e4m3.encode(np.minimum(np.maximum(stored, lowest), _FULL), nan="code")
        unit = _FULL / ((g * (_FULL / LARGEST_SCALE)) / _SIX)
        shares: Float32Array = wanted * unit
        steps: Float32Array = e4m3.decode(e4m3.encode(shares, nan="code")) * (np.float32(1) / unit)
    return codes, steps


def losses(rows: Float32Array, steps: Float32Array) -> Float32Array:
    """Squared errors of blocks: (n, in) under steps (n, in / 16, 2) to float32 (n, in / 16, 2)."""
    magnitudes: Float32Array = np.abs(rows.reshape(rows.shape[0], -1, nvfp4.SPEC.block))
    found = np.empty(steps.shape, np.float32)
    with np.errstate(all="ignore"):
        for number in range(len(MULTIPLIERS)):
            step: Float32Array = steps[..., number, np.newaxis]
            scaled: Float32Array = magnitudes / step
            errors = magnitudes - e2m1.decode(e2m1.encode(scaled)) * step
            errors *= errors
            total = errors[..., 0].copy()
            for place in range(1, nvfp4.SPEC.block):
                total += errors[..., place]
            found[..., number] = total
    return found


def block_scale_codes(rows: Float32Array, largest: float | np.float32) -> UInt8Array:
    """Codes of the smaller losses: float32 (n, in) to uint8 (n, in / 16)."""
    codes, steps = candidates(block_amax(rows, nvfp4.SPEC.block), largest)
    two = losses(rows, steps)
    chosen: UInt8Array = np.where(two[..., 1] < two[..., 0], codes[..., 1], codes[..., 0])
    return chosen


def quantize(weights: Float32Array, *, global_amax: float | np.float32 | None = None) -> nvfp4.NvFp4Tensor:
    """Quantize a matrix, each block's largest weight to 6 or to 4, with the policy `native`.

    Args:
        weights: float32 (out, in), finite, `in` divisible by 16.
        global_amax: largest magnitude of the fused group the matrix belongs to; its own by default.

    Raises:
        TensorError: wrong type or shape, NaN or infinite weights.
    """
    require_weights(weights, nvfp4.SPEC.block)
    own = amax(weights)
    require_finite(weights, own)
    largest = own if global_amax is None else np.float32(global_amax)
    scale = global_scale(largest)
    payload = np.empty(nvfp4.SPEC.payload_shape(*weights.shape), np.uint8)
    block_scales = np.empty(nvfp4.SPEC.scale_shape(*weights.shape), np.uint8)
    for run in row_runs(*weights.shape):
        block_scales[run] = block_scale_codes(weights[run], largest)
        payload[run] = nvfp4.encode_elements(weights[run], block_scales[run], scale)
    return nvfp4.NvFp4Tensor(payload=payload, block_scales=block_scales, global_scale=scale)
