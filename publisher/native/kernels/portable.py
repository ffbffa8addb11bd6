"""NVFP4 and MXFP4 in torch, chunk by chunk, on any device: the same bytes on CPU, CUDA and ROCm.

The order of the fp32 operations is that of the reference arithmetic in `publisher.formats` and of modelopt 0.47, which
is what makes the bytes equal: block maxima and element rounding work on the bits, where no device can differ; a
division is one IEEE division by a tensor (torch turns a division by a Python number into a multiplication on a GPU).
Rows are taken in chunks that fit the caches of a CPU, so the working memory does not grow with the tensor. On a CPU
whole chunks go to threads, not the parts of each operation: on a shared machine the many small barriers of the latter
cost more than the work. Sums are added in chunk order, so they do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from publisher.formats import FORMATS, e2m1, e4m3, mxfp4, nvfp4, sweep
from publisher.native.threads import T, at_once, row_chunks

NVFP4_BLOCK, MXFP4_BLOCK = FORMATS["nvfp4"].block, FORMATS["mxfp4"].block

_CPU_CHUNK = 256 * 1024  # elements; 1 MB of fp32 stays in the L2 cache
_GPU_CHUNK = 16 * 1024 * 1024
_ONE_BITS = 127 << 23
_EXPONENT = 0x7F800000
# dtype of a weight: integer type of its width, mask of everything but the sign, bits of infinity
BITS = {
    torch.bfloat16: (torch.int16, 0x7FFF, 0x7F80),
    torch.float16: (torch.int16, 0x7FFF, 0x7C00),
    torch.float32: (torch.int32, 0x7FFFFFFF, _EXPONENT),
}

KINDS: dict[torch.dtype, Literal["BF16", "F16", "F32"]] = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
}


@dataclass(slots=True)
class ErrorMeter:
    """Squared error and squared weight, summed in float64 on the device while a module is quantized."""

    error: Tensor
    weight: Tensor

    @classmethod
    def on(cls, device: torch.device) -> ErrorMeter:
        """A meter at zero."""
        return cls(
            torch.zeros((), dtype=torch.float64, device=device), torch.zeros((), dtype=torch.float64, device=device)
        )

    def add(self, error: Tensor, weight: Tensor) -> None:
        """Count one chunk's sums."""
        self.error += error
        self.weight += weight


def block_amax(weight: Tensor, block: int) -> Tensor:
    """Largest magnitude of each block, exact.

    Args:
        weight: (rows, columns) BF16, F16 or F32; columns is a multiple of `block`.
        block: elements of a block.

    Returns:
        (rows, columns / block) in the weight's dtype; NaN wins over infinity, both over numbers.
    """
    integer, mask, _ = BITS[weight.dtype]
    bits = weight.view(integer)
    out = torch.empty((weight.shape[0], weight.shape[1] // block), dtype=integer, device=weight.device)

    def reduce(rows: slice) -> None:
        torch.amax((bits[rows] & mask).view(-1, out.shape[1], block), dim=-1, out=out[rows])

    _over(weight, reduce)
    return out.view(weight.dtype)


def count_not_finite(weight: Tensor) -> int:
    """How many elements are NaN or infinite."""
    return sum(_over(weight, lambda rows: int((~torch.isfinite(weight[rows])).sum())))


def quantize_nvfp4(
    weight: Tensor, amax: Tensor, scale_2: Tensor, meter: ErrorMeter | None = None, producer: str = "native"
) -> tuple[Tensor, Tensor]:
    """See `quantizers.quantize_nvfp4`."""
    policy, scale_2 = nvfp4.POLICIES[producer], scale_2.to(weight.device)
    if policy.direction == "divide":
        ratio = scale_2 * (amax.float() / torch.full((), e2m1.MAX, device=weight.device))
    else:
        ratio = amax.float() / (e2m1.MAX * scale_2)
    if policy.zero_code is None:
        ratio.masked_fill_(ratio == 0, 1.0)
    scales = ratio.clamp_(policy.lowest_ratio, e4m3.MAX).to(torch.float8_e4m3fn)
    if policy.zero_code is not None:
        codes = scales.view(torch.uint8)
        codes.masked_fill_(codes == 0, policy.zero_code)
    return encode_nvfp4(weight, scales, scale_2, meter, producer), scales


def encode_nvfp4(
    weight: Tensor, scales: Tensor, scale_2: Tensor, meter: ErrorMeter | None = None, producer: str = "native"
) -> Tensor:
    """Payload of a weight under E4M3 block scales, wherever those come from."""
    units, scale_2 = scales.float(), scale_2.to(weight.device)
    divide = nvfp4.POLICIES[producer].direction == "divide"
    return _encode(weight, units / scale_2 if divide else units * scale_2, NVFP4_BLOCK, True, meter)


def best_scales(weight: Tensor, largest: float) -> Tensor:
    """E4M3 block scales of the smallest squared error: every candidate of `publisher.formats.sweep` tried in turn."""
    steps = torch.from_numpy(sweep.candidate_steps(largest)).to(weight.device)
    codes = torch.empty((weight.shape[0], weight.shape[1] // NVFP4_BLOCK), dtype=torch.uint8, device=weight.device)

    def search(rows: slice) -> None:
        values = weight[rows].float().abs().view(-1, codes.shape[1], NVFP4_BLOCK)
        best = torch.full(values.shape[:2], torch.inf, device=weight.device)
        found = torch.ones_like(best, dtype=torch.uint8)
        for code, step in enumerate(steps, 1):
            error = values - _e2m1(values / step)[1].mul_(step)
            error.mul_(error)
            loss = error[..., 0].clone()
            for place in range(1, NVFP4_BLOCK):  # in this order on every device
                loss += error[..., place]
            better = loss < best
            best = torch.where(better, loss, best)
            found.masked_fill_(better, code)
        codes[rows] = found

    _over(weight, search)
    return codes.view(torch.float8_e4m3fn)


def quantize_mxfp4(
    weight: Tensor, amax: Tensor, mode: str, meter: ErrorMeter | None = None, producer: str = "native"
) -> tuple[Tensor, Tensor]:
    """See `quantizers.quantize_mxfp4`."""
    codes = e8m0_codes(amax.float(), mode)
    exponents = torch.where(codes > 0, codes << 23, 1 << 22)  # code 0 is 2^-127, a subnormal
    signed = mxfp4.POLICIES[producer].signs == "negative"
    payload = _encode(weight, exponents.view(torch.float32), MXFP4_BLOCK, signed, meter)
    return payload, codes.to(torch.uint8)


def e8m0_codes(amax: Tensor, mode: str) -> Tensor:
    """E8M0 codes (int32, 0 to 254) of finite fp32 block maxima; see `publisher.formats.e8m0` for the modes."""
    if mode == "ceil6":
        ratio = amax / torch.full((), e2m1.MAX, device=amax.device)
        logarithm = torch.log2(ratio.double()).float()  # in fp64, so that every device rounds to the same fp32
        return (logarithm.clamp(min=-127.0).ceil() + 127).to(torch.int32)
    bits = amax.contiguous().view(torch.int32)
    if mode == "even":  # half of the element's last mantissa bit: carries from 1.75 upwards
        bits = bits + (1 << 21)
    codes = bits >> 23
    if mode == "ceil":
        codes = codes + ((bits & 0x7FFFFF) != 0)
    return (codes - 2).clamp_(0, 254)


def _encode(weight: Tensor, scale: Tensor, block: int, negative_zero: bool, meter: ErrorMeter | None) -> Tensor:
    """Divide by the block scales, round to E2M1 (ties to even), pack; the even element lies in the low nibble."""
    out = torch.empty((weight.shape[0], weight.shape[1] // 2), dtype=torch.uint8, device=weight.device)

    def encode(rows: slice) -> tuple[Tensor, Tensor] | None:
        values = weight[rows].float().view(-1, scale.shape[1], block)
        divisor = scale[rows].unsqueeze(-1)
        scaled = values / divisor
        sign = scaled < 0
        magnitude = scaled.abs_()
        codes, rounded = _e2m1(magnitude)
        sums = None if meter is None else (_square(rounded.sub_(magnitude).mul_(divisor)), _square(values))
        if not negative_zero:
            sign &= codes != 0
        codes |= sign.view(torch.uint8) << 3
        pairs = codes.view(weight[rows].shape).view(torch.int16)  # low byte: even element
        out[rows] = (pairs | (pairs >> 4)).to(torch.uint8)
        return sums

    for sums in _over(weight, encode):
        if meter is not None and sums is not None:
            meter.add(*sums)
    return out


def _square(values: Tensor) -> Tensor:
    return torch.dot(values.flatten(), values.flatten())


def _e2m1(magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """Codes 0 to 7 and their values for magnitudes in fp32; above 6 saturates.

    A magnitude of exponent e >= 0 has steps of 2^(e-1), below 1 of 1/2. Adding 2^(e+22), whose last bit is worth just
    that step, lets the fp32 adder round (ties to even); what it adds to the bits is the number of steps.
    """
    clamped = magnitude.clamp(max=e2m1.MAX)
    exponent = (clamped.view(torch.int32) & _EXPONENT).clamp_(min=_ONE_BITS)
    magic = (exponent + (22 << 23)).view(torch.float32)
    total = clamped.add_(magic)
    steps = total.view(torch.int32) - magic.view(torch.int32)
    codes = steps.add_((exponent - _ONE_BITS) >> 22).to(torch.uint8)
    return codes, total.sub_(magic)


def _over(weight: Tensor, work: Callable[[slice], T]) -> list[T]:
    """The results of some work on every chunk of rows, in order; on a CPU several chunks at once."""
    if weight.device.type != "cpu":
        return [work(rows) for rows in row_chunks(weight.shape[0], weight.shape[1], _GPU_CHUNK)]
    return at_once(row_chunks(weight.shape[0], weight.shape[1], _CPU_CHUNK), work)
