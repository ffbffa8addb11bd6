"""MXFP4: E2M1 elements and an E8M0 scale per 32, no second level (OCP MX specification 1.0).

Everything is exact in float32 but the element rounding itself; producers differ in the scale mode (see `e8m0`), in
ties, in signed zeros and in the code of an all-zero block. NaN and infinite weights are refused for all of them: their
own results for those depend on undefined casts.

| | native, quark 0.11 | quark 0.13 | compressed-tensors 0.20 | modelopt 0.47 |
|---|---|---|---|---|
| scale modes | all four; quark all but ceil6 | even, floor, ceil | even (its layout: all four) | ceil6 |
| ties | to even | to even | to even | towards zero |
| weight that rounds to zero | code 0 | code 0 | code 8 if it is < 0 | code 8 unless it is > 0 |
| all-zero block | 0 (quark floor, ceil: 104), bytes 0x00 | 1 (104), bytes 0x00 | 0, bytes 0x00 | 0, bytes 0x88 |

`native` writes Quark's layout, in mode `even` with Quark's bytes. The library compressed-tensors has mode `even` alone;
its layout says no mode, so the others are written there too, with the library's elements and signs. Code 8 (-0.0) is
legal and means zero; only a byte comparison notices. In modes floor and ceil Quark takes the logarithm in the weights'
own precision, which can move a scale by one code beside a power of two; here they are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from publisher.formats import e2m1, e8m0
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
from publisher.formats.spec import FORMATS

SPEC = FORMATS["mxfp4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a producer does.

    Attributes:
        name: the producer.
        zero_codes: the scale modes it has, with the code each writes for an all-zero block.
        ties: where an element exactly between two codes goes.
        signs: when an element gets the sign bit.
        lowest_code: smallest scale code of a block that is not all zero.
    """

    name: str
    zero_codes: Mapping[e8m0.Mode, int]
    ties: e2m1.Ties = "even"
    signs: e2m1.Signs = "nonzero"
    lowest_code: int = 0


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy(name="native", zero_codes={"even": 0, "floor": 0, "ceil": 0, "ceil6": 0}),
        Policy(name="quark", zero_codes={"even": 0, "floor": 104, "ceil": 104}),
        Policy(name="quark-0.13", zero_codes={"even": 1, "floor": 104, "ceil": 104}, lowest_code=1),
        Policy(name="compressed-tensors", zero_codes={"even": 0, "floor": 0, "ceil": 0, "ceil6": 0}, signs="negative"),
        Policy(name="modelopt", zero_codes={"ceil6": 0}, ties="down", signs="not-positive"),
    )
}
NATIVE = POLICIES["native"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MxFp4Tensor:
    """One quantized matrix.

    Attributes:
        payload: uint8 (out, in / 2), even element in the low nibble.
        block_scales: uint8 (out, in / 32), E8M0 codes.
    """

    payload: UInt8Array
    block_scales: UInt8Array

    def dequantize(self) -> Float32Array:
        """float32 (out, in)."""
        return dequantize(self.payload, self.block_scales)


def encode_rows(rows: Float32Array, mode: e8m0.Mode = "even", policy: Policy = NATIVE) -> tuple[UInt8Array, UInt8Array]:
    """Some rows of a matrix: the unit of streaming.

    Args:
        rows: float32 (n, in), finite.
        mode: how block maxima become scales.
        policy: the producer.

    Returns:
        payload uint8 (n, in / 2) and block scales uint8 (n, in / 32).

    Raises:
        TensorError: the producer does not have this mode, or a block maximum is not finite.
    """
    require_weights(rows, SPEC.block)
    if mode not in policy.zero_codes:
        raise TensorError(
            f"{policy.name} has no MXFP4 scale mode {mode!r}.",
            hint=f"Choose one of {', '.join(policy.zero_codes)}.",
        )
    rows = np.ascontiguousarray(rows)
    maxima = block_amax(rows, SPEC.block)
    scales = e8m0.encode(maxima, mode, lowest=policy.lowest_code, zero=policy.zero_codes[mode])
    scaled = rows.reshape(rows.shape[0], -1, SPEC.block) / e8m0.decode(scales)[:, :, np.newaxis]
    codes = e2m1.encode(scaled.reshape(rows.shape), ties=policy.ties, signs=policy.signs)
    return e2m1.pack(codes), scales


def quantize(weights: Float32Array, *, mode: e8m0.Mode = "even", policy: Policy = NATIVE) -> MxFp4Tensor:
    """Quantize a matrix with scales from its block maxima.

    Args:
        weights: float32 (out, in), `in` divisible by 32.
        mode: how block maxima become scales.
        policy: whose details, a value of `POLICIES`.

    Returns:
        payload and block scales; temporaries stay at a few runs of rows.

    Raises:
        TensorError: wrong type or shape, NaN or infinite weights, or a mode the producer does not have.
    """
    require_weights(weights, SPEC.block)
    require_finite(weights, amax(weights))
    out_features, in_features = weights.shape
    payload = np.empty(SPEC.payload_shape(out_features, in_features), dtype=np.uint8)
    block_scales = np.empty(SPEC.scale_shape(out_features, in_features), dtype=np.uint8)
    for run in row_runs(out_features, in_features):
        payload[run], block_scales[run] = encode_rows(weights[run], mode, policy)
    return MxFp4Tensor(payload=payload, block_scales=block_scales)


def dequantize(payload: UInt8Array, block_scales: UInt8Array) -> Float32Array:
    """Weights from stored bytes, whoever wrote them; any run of whole rows will do.

    Args:
        payload: uint8 (out, in / 2).
        block_scales: uint8 (out, in / 32), E8M0 codes.

    Returns:
        float32 (out, in); a block with the NaN scale 255 is NaN.

    Raises:
        TensorError: shapes or types that do not belong together.
    """
    require_bytes("payload", payload)
    SPEC.require_whole_blocks(payload.shape[1] * 2)
    rows, columns = payload.shape[0], payload.shape[1] * 2
    require_bytes("block scale tensor", block_scales, SPEC.scale_shape(rows, columns))
    weights = np.empty((rows, columns), dtype=np.float32)
    for run in row_runs(rows, columns):
        steps = e8m0.decode(block_scales[run])
        elements = e2m1.decode_packed(payload[run]).reshape(*steps.shape, SPEC.block)
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(elements, steps[:, :, np.newaxis], out=weights[run].reshape(elements.shape))
    return weights
