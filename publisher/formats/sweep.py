"""NVFP4 "mse": for every block the scale code of the smallest squared error, found by trying all of them.

As modelopt 0.47 documents its FP8 scale sweep (`calib/mse.py`, `nvfp4_fp8_sweep.py`), with `g` the largest magnitude of
the tensor or fused group and `c` the 126 positive E4M3 values divided by 448, in ascending order:

    step = (c g) / 6, a zero counting as 1        loss = sum of (|w| - E2M1(|w| / step) step)**2

all in float32, elements added in their order, nothing contracted; the first smallest loss wins, so an all-zero block
gets the code 0x01. The code stands for itself in the stored tensor; elements are then rounded under the stored scales,
as in every other mode. Libraries add the sixteen terms in an order of their own, which may decide a near tie otherwise.
"""

from __future__ import annotations

import numpy as np

from publisher.formats import e2m1, e4m3, nvfp4
from publisher.formats.blocks import Float32Array, UInt8Array, amax, require_finite, require_weights, row_runs

CODES = np.arange(1, e4m3.MAX_CODE + 1, dtype=np.uint8)
"""The candidates: every positive finite E4M3 code."""


def candidate_steps(largest: float | np.float32) -> Float32Array:
    """What one unit of an element is worth under each candidate, float32 (126,), given the group's largest weight."""
    shares = e4m3.DECODE[CODES] / np.float32(e4m3.MAX)
    steps: Float32Array = (shares * np.float32(largest)) / np.float32(e2m1.MAX)
    steps[steps == 0] = 1
    return steps


def losses(rows: Float32Array, steps: Float32Array) -> Float32Array:
    """Squared errors of blocks under each step: (n, in) and (m,) to float32 (n, in / 16, m)."""
    magnitudes = np.abs(rows.reshape(rows.shape[0], -1, nvfp4.SPEC.block))
    found = np.empty((*magnitudes.shape[:2], len(steps)), np.float32)
    with np.errstate(over="ignore", under="ignore"):
        for number, step in enumerate(steps):
            errors = magnitudes - e2m1.decode(e2m1.encode(magnitudes / step)) * step
            errors *= errors
            total = errors[..., 0].copy()
            for place in range(1, nvfp4.SPEC.block):
                total += errors[..., place]
            found[..., number] = total
    return found


def block_scale_codes(rows: Float32Array, largest: float | np.float32) -> UInt8Array:
    """Codes of the smallest losses: float32 (n, in) to uint8 (n, in / 16)."""
    codes: UInt8Array = CODES[losses(rows, candidate_steps(largest)).argmin(axis=2)]
    return codes


def quantize(
    weights: Float32Array,
    *,
    global_amax: float | np.float32 | None = None,
    policy: nvfp4.Policy = nvfp4.NATIVE,
) -> nvfp4.NvFp4Tensor:
    """Quantize a matrix, each block under its best scale.

    Args:
        weights: float32 (out, in), finite, `in` divisible by 16.
        global_amax: largest magnitude of the fused group the matrix belongs to; its own by default.
        policy: whose global scale and elements; the search is the same.

    Raises:
        TensorError: wrong type or shape, NaN or infinite weights.
    """
    require_weights(weights, nvfp4.SPEC.block)
    own = amax(weights)
    require_finite(weights, own)
    largest = own if global_amax is None else np.float32(global_amax)
    scale = nvfp4.global_scale(largest, policy)
    payload = np.empty(nvfp4.SPEC.payload_shape(*weights.shape), np.uint8)
    block_scales = np.empty(nvfp4.SPEC.scale_shape(*weights.shape), np.uint8)
    for run in row_runs(*weights.shape):
        block_scales[run] = block_scale_codes(weights[run], largest)
        payload[run] = nvfp4.encode_elements(weights[run], block_scales[run], scale, policy.direction)
    return nvfp4.NvFp4Tensor(payload=payload, block_scales=block_scales, global_scale=scale, direction=policy.direction)
