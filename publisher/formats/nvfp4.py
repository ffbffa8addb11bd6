"""NVFP4: E2M1 elements, an E4M3 scale per 16, and one float32 scale per tensor or fused group.

The order of the float32 operations is each producer's own, so that the bytes agree and not only the values. For
modelopt's "max" calibration, `g` the largest magnitude of the tensor or fused group and `a` that of a block:

    s2 = g / 2688        S = E4M3(clamp(a / (6 s2), 2**-9, 448)), a zero ratio counting as 1
    code = E2M1(w / (S s2))                                     w' = code * (S s2)

compressed-tensors stores the reciprocal: `gs = (1 / g) 2688`, `S = E4M3(gs (a / 6))`, `code = E2M1(w / (S / gs))`, the
first three roundings in BF16 where the weights are.

Policies. All round elements to nearest even and give a negative weight that rounds to zero the code 8, -0.0 the code 0.

| | native | modelopt 0.47 | compressed-tensors 0.20 |
|---|---|---|---|
| NaN, infinite weight | refused | goes through: NaN scales | refused |
| all-zero block | scale 1.0 (0x38), codes 0 | the same | scale 0.125 (0x20), codes 0 |
| scale underflow | clamped to 0x01 | the same | 0.125 (0x20) |
| all-zero tensor or group | s2 = 1/2688, scales 0x38, codes 0 | s2 = 0, NaN scales, bytes 0x77 | gs = 1, scales 0x20 |
| s2 below the normal range | raised to 2**-126 | written subnormal | not reachable |

Only the rows in which `native` and modelopt differ differ in bytes. Quark's two-level NVFP4 has other arithmetic; its
files can be dequantized here (it multiplies), not reproduced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from publisher.formats import e2m1, e4m3, floats
from publisher.formats.blocks import (
    Float32Array,
    TensorError,
    UInt8Array,
    amax,
    block_amax,
    require_bytes,
    require_finite,
    require_weights,
    row_runs,
)
from publisher.formats.spec import FORMATS, NVFP4_DIVISOR, Direction

SPEC = FORMATS["nvfp4"]
_DIVISOR = np.float32(NVFP4_DIVISOR)
_ELEMENT_MAX = np.float32(e2m1.MAX)
_TINY = np.finfo(np.float32).tiny  # 2**-126, the smallest normal float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a producer does where the formula is silent.

    Attributes:
        name: the producer.
        direction: `multiply` stores `amax / 2688`, `divide` stores `2688 / amax`.
        nonfinite: refuse NaN and infinite weights, or let them through to NaN scales.
        zero_tensor: what an all-zero tensor's maximum counts as: 1.0 (`one`), or itself (`raw`).
        lowest_ratio: block scales are clamped to at least this before rounding.
        zero_code: written where the rounded block scale is zero; None leaves a zero ratio counting as 1.
        observed: `BF16` when global and block scales are computed in the weights' own BF16.
    """

    name: str
    direction: Direction
    nonfinite: Literal["refuse", "propagate"]
    zero_tensor: Literal["one", "raw"]
    lowest_ratio: float
    zero_code: int | None
    observed: Literal["F32", "BF16"] = "F32"


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy(
            name="native",
            direction="multiply",
            nonfinite="refuse",
            zero_tensor="one",
            lowest_ratio=e4m3.MIN_SUBNORMAL,
            zero_code=None,
        ),
        Policy(
            name="modelopt",
            direction="multiply",
            nonfinite="propagate",
            zero_tensor="raw",
            lowest_ratio=e4m3.MIN_SUBNORMAL,
            zero_code=None,
        ),
        Policy(
            name="compressed-tensors",
            direction="divide",
            nonfinite="refuse",
            zero_tensor="raw",
            lowest_ratio=0.0,
            zero_code=0x20,
        ),
        Policy(
            name="compressed-tensors-bf16",
            direction="divide",
            nonfinite="refuse",
            zero_tensor="raw",
            lowest_ratio=0.0,
            zero_code=0x20,
            observed="BF16",
        ),
    )
}
NATIVE = POLICIES["native"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NvFp4Tensor:
    """One quantized matrix.

    Attributes:
        payload: uint8 (out, in / 2), even element in the low nibble.
        block_scales: uint8 (out, in / 16), E4M3 codes.
        global_scale: `weight_scale_2` (multiply) or `weight_global_scale` (divide).
        direction: which of the two.
    """

    payload: UInt8Array
    block_scales: UInt8Array
    global_scale: np.float32
    direction: Direction = "multiply"

    def dequantize(self) -> Float32Array:
        """float32 (out, in)."""
        return dequantize(self.payload, self.block_scales, self.global_scale, direction=self.direction)


def global_scale(largest: float | np.float32, policy: Policy = NATIVE) -> np.float32:
    """The second-level scale of a tensor or fused group whose largest magnitude is `largest`.

    Raises:
        TensorError: `largest` is negative, or not finite while the policy refuses that.
    """
    g = np.float32(largest)
    if g < 0 or (policy.nonfinite == "refuse" and not np.isfinite(g)):
        raise TensorError(f"The largest magnitude {largest} is not a finite non-negative number.")
    if policy.direction == "divide":
        return _reciprocal_scale(g, policy)
    if policy.zero_tensor == "raw":
        return np.float32(g / _DIVISOR)
    return np.float32(max((g if g > 0 else np.float32(1)) / _DIVISOR, _TINY))


def _reciprocal_scale(g: np.float32, policy: Policy) -> np.float32:
    with np.errstate(over="ignore"):
        inverse = _observe(np.reciprocal(np.atleast_1d(np.maximum(g, _TINY))), policy)
        scale = _observe(inverse * _DIVISOR, policy)[0]
    return np.float32(scale) if np.isfinite(scale) else np.float32(1)


def _observe(values: Float32Array, policy: Policy) -> Float32Array:
    return floats.round_to_bf16(values) if policy.observed == "BF16" else values


def encode_rows(rows: Float32Array, scale: np.float32, policy: Policy = NATIVE) -> tuple[UInt8Array, UInt8Array]:
    """Some rows of a matrix, given its global scale: the unit of streaming.

    Args:
        rows: float32 (n, in), finite unless the policy lets NaN through.
        scale: what `global_scale` returned for the whole tensor or group.
        policy: the producer.

    Returns:
        payload uint8 (n, in / 2) and block scales uint8 (n, in / 16).
    """
    require_weights(rows, SPEC.block)
    rows = np.ascontiguousarray(rows)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scales = block_scale_codes(block_amax(rows, SPEC.block), scale, policy)
    return encode_elements(rows, scales, scale, policy.direction), scales


def encode_elements(
    rows: Float32Array, block_scales: UInt8Array, scale: np.float32, direction: Direction = "multiply"
) -> UInt8Array:
    """Payload uint8 (n, in / 2) of rows (n, in) under block scales uint8 (n, in / 16), wherever those come from."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        steps = _steps(block_scales, scale, direction)
        scaled = rows.reshape(rows.shape[0], -1, SPEC.block) / steps[:, :, np.newaxis]
    return e2m1.pack(e2m1.encode(scaled.reshape(rows.shape)))


def block_scale_codes(maxima: Float32Array, scale: np.float32, policy: Policy = NATIVE) -> UInt8Array:
    """E4M3 codes of blocks with these largest magnitudes, same shape, given the tensor's global scale."""
    if policy.direction == "divide":
        ratios = scale * _observe(maxima / _ELEMENT_MAX, policy)
    else:
        ratios = maxima / (_ELEMENT_MAX * scale)
    if policy.zero_code is None:
        ratios[ratios == 0] = 1
    ratios = np.clip(ratios, np.float32(policy.lowest_ratio), np.float32(e4m3.MAX))
    codes = e4m3.encode(ratios, nan="code")
    if policy.zero_code is not None:
        codes[codes == 0] = policy.zero_code
    return codes


def _steps(scales: UInt8Array, scale: np.float32, direction: Direction) -> Float32Array:
    """What one unit of an element is worth in each block."""
    blocks = e4m3.decode(scales)
    return blocks * scale if direction == "multiply" else blocks / scale


def quantize(
    weights: Float32Array, *, global_amax: float | np.float32 | None = None, policy: Policy = NATIVE
) -> NvFp4Tensor:
    """Quantize a matrix with scales from its maxima.

    Args:
        weights: float32 (out, in), `in` divisible by 16.
        global_amax: largest magnitude of the fused group the matrix belongs to; its own by default.
        policy: whose arithmetic, a value of `POLICIES`.

    Returns:
        payload, block scales and global scale; temporaries stay at a few runs of rows.

    Raises:
        TensorError: wrong type or shape, NaN or infinite weights (unless the policy lets them through), or a
            `global_amax` below the matrix's own.
    """
    require_weights(weights, SPEC.block)
    own = amax(weights)
    if policy.nonfinite == "refuse":
        require_finite(weights, own)
    if global_amax is not None and np.float32(global_amax) < own:
        raise TensorError(
            f"The group's largest magnitude {global_amax} is below this matrix's own {own}.",
            hint="Take the maximum over all members of the fused group.",
        )
    scale = global_scale(own if global_amax is None else global_amax, policy)
    out_features, in_features = weights.shape
    payload = np.empty(SPEC.payload_shape(out_features, in_features), dtype=np.uint8)
    block_scales = np.empty(SPEC.scale_shape(out_features, in_features), dtype=np.uint8)
    for run in row_runs(out_features, in_features):
        payload[run], block_scales[run] = encode_rows(weights[run], scale, policy)
    return NvFp4Tensor(payload=payload, block_scales=block_scales, global_scale=scale, direction=policy.direction)


def dequantize(
    payload: UInt8Array,
    block_scales: UInt8Array,
    global_scale: float | np.float32,
    *,
    direction: Direction = "multiply",
) -> Float32Array:
    """Weights from stored bytes, whoever wrote them; any run of whole rows will do.

    Args:
        payload: uint8 (out, in / 2).
        block_scales: uint8 (out, in / 16), E4M3 codes.
        global_scale: the stored scalar.
        direction: `multiply` for `weight_scale_2`, `divide` for `weight_global_scale`.

    Returns:
        float32 (out, in); a block with a NaN scale is NaN.

    Raises:
        TensorError: shapes or types that do not belong together.
    """
    require_bytes("payload", payload)
    SPEC.require_whole_blocks(payload.shape[1] * 2)
    rows, columns = payload.shape[0], payload.shape[1] * 2
    require_bytes("block scale tensor", block_scales, SPEC.scale_shape(rows, columns))
    weights = np.empty((rows, columns), dtype=np.float32)
    for run in row_runs(rows, columns):
        with np.errstate(all="ignore"):
            steps = _steps(block_scales[run], np.float32(global_scale), direction)
            elements = e2m1.decode_packed(payload[run]).reshape(*steps.shape, SPEC.block)
            np.multiply(elements, steps[:, :, np.newaxis], out=weights[run].reshape(elements.shape))
    return weights
