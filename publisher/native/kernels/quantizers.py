"""NVFP4 and MXFP4 of a weight, by whichever kernel is the fastest here: the bytes are the same.

On a CPU with numba (the extra `fast`) weights of a million elements and more go to the compiled kernels; smaller ones,
for which compiling would take longer than the work, and other machines use torch. On a GPU with Triton, which torch
brings there, kernels of that language are used once they have shown that they give torch's bytes. Which one was used
shows in nothing but the time and the last digits of the error meter. Rows are taken in chunks that fit the caches of a
CPU; the working memory does not grow with the tensor.
Refused: nothing; whoever calls looks at `largest` first and does not quantize what is not finite.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from publisher import formats
from publisher.formats import e8m0, nvfp4, sweep
from publisher.native.kernels import fouroversix, portable, thresholds
from publisher.native.kernels.portable import BITS, KINDS, MXFP4_BLOCK, NVFP4_BLOCK, ErrorMeter
from publisher.native.threads import at_once, row_chunks

if TYPE_CHECKING:
    from types import ModuleType

COMPILED_FROM = 1 << 20
"""Elements of the smallest weight that the compiled kernels get."""
_CHUNK = 1 << 19  # elements: a megabyte of BF16
_NUMPY = {"BF16": np.uint16, "F16": np.int16, "F32": np.float32}


@functools.cache
def accelerated() -> bool:
    """Whether the compiled kernels can be used here."""
    if sys.byteorder != "little" or importlib.util.find_spec("numba") is None:
        return False
    try:
        import numba  # noqa: F401
    except (ImportError, SystemError):  # a numba that does not know this numpy
        return False
    return True


def _kernels(weight: Tensor, work: int = 1) -> ModuleType | None:
    """The compiled kernels, where they are the better choice for so much work on each element of this weight."""
    if weight.device.type != "cpu" or weight.numel() * work < COMPILED_FROM or not accelerated():
        return None
    from publisher.native.kernels import compiled

    return compiled


def _on_gpu(weight: Tensor) -> ModuleType | None:
    """The kernels of a GPU, where the weight is on one and they have proven themselves there."""
    if weight.device.type != "cuda" or not _has_triton():
        return None
    from publisher.native.kernels import gpu

    return gpu if gpu.works(weight.device, weight.dtype) else None


@functools.cache
def _has_triton() -> bool:
    """Whether Triton is there: torch for CUDA and for ROCm brings it."""
    return importlib.util.find_spec("triton") is not None


def block_amax(weight: Tensor, block: int) -> Tensor:
    """Largest magnitude of each block, exact.

    Args:
        weight: (rows, columns) BF16, F16 or F32; columns is a multiple of `block`.
        block: elements of a block, 16 or 32.

    Returns:
        (rows, columns / block) in the weight's dtype; NaN wins over infinity, both over numbers.
    """
    kernels = _kernels(weight)
    if kernels is None:
        return (_on_gpu(weight) or portable).block_amax(weight, block)
    amax = torch.empty((weight.shape[0], weight.shape[1] // block), dtype=weight.dtype)
    bits, found = _bits(weight), _bits(amax)
    _over(weight, lambda rows: kernels.block_amax(bits[rows], block, found[rows]))
    return amax


def largest(amax: Tensor) -> Tensor:
    """The largest of some block maxima, as an fp32 scalar on the CPU."""
    integer = BITS[amax.dtype][0]
    if amax.device.type == "cpu":  # a pass too short for torch's threads, whose start costs more
        bits = amax.contiguous().view(integer).numpy().max()
        return torch.tensor([int(bits)], dtype=integer).view(amax.dtype)[0].float()
    return amax.view(integer).amax().view(amax.dtype).float().cpu()


def global_scale(amax: Tensor, producer: str = "native") -> Tensor:
    """NVFP4's global scale as a producer stores it, computed on the CPU wherever the weight is.

    Args:
        amax: fp32 scalar, the largest magnitude of the fused group.
        producer: a key of `publisher.formats.nvfp4.POLICIES`.
    """
    return torch.tensor(float(nvfp4.global_scale(float(amax), nvfp4.POLICIES[producer])), dtype=torch.float32)


def quantize_nvfp4(
    weight: Tensor, amax: Tensor, scale_2: Tensor, meter: ErrorMeter | None = None, *, producer: str = "native"
) -> tuple[Tensor, Tensor]:
    """Quantize to NVFP4 in max mode (modelopt 0.47 `nvfp4_tensor.py`, dynamic path; compressed-tensors' observers).

    Args:
        weight: (rows, columns) BF16, F16 or F32, finite; columns is a multiple of 16.
        amax: `block_amax(weight, 16)`.
        scale_2: from `global_scale`, shared by all members of a fused group.
        meter: counts the error made.
        producer: whose arithmetic: native, modelopt or compressed-tensors.

    Returns:
        payload U8 (rows, columns / 2) and block scales E4M3 (rows, columns / 16).
    """
    kernels, gpu = _kernels(weight), _on_gpu(weight)
    if kernels is None and gpu is None:
        return portable.quantize_nvfp4(weight, amax, scale_2, meter, producer)
    scales, steps = thresholds.nvfp4_rules(float(scale_2), KINDS[weight.dtype], producer)
    if gpu is not None:
        payload, codes = gpu.quantize(weight, amax, NVFP4_BLOCK, scales, steps, meter)
        return payload, codes.view(torch.float8_e4m3fn)
    payload, codes = _quantize(kernels, weight, amax, NVFP4_BLOCK, scales, steps, meter)
    return payload, codes.view(torch.float8_e4m3fn)


def quantize_nvfp4_mse(
    weight: Tensor,
    amax: Tensor,
    largest: Tensor,
    scale_2: Tensor,
    meter: ErrorMeter | None = None,
    *,
    producer: str = "native",
) -> tuple[Tensor, Tensor]:
    """Quantize to NVFP4, each block under the scale of its smallest squared error (see `publisher.formats.sweep`).

    Args:
        weight: (rows, columns) BF16, F16 or F32, finite; columns is a multiple of 16.
        amax: `block_amax(weight, 16)`.
        largest: fp32 scalar, the largest magnitude of the fused group.
        scale_2: `global_scale(largest, producer)`.
        meter: counts the error made.
        producer: whose elements and global scale: native or compressed-tensors.

    Returns:
        payload U8 (rows, columns / 2) and block scales E4M3 (rows, columns / 16).
    """
    kernels = _kernels(weight, work=len(sweep.CODES))
    if kernels is None:
        gpu = _on_gpu(weight)
        if gpu is not None and weight.dtype != torch.float32:
            codes = gpu.best_codes(weight, float(largest))
            steps = thresholds.nvfp4_rules(float(scale_2), KINDS[weight.dtype], producer)[1]
            return gpu.encode(weight, codes, steps, NVFP4_BLOCK, meter), codes.view(torch.float8_e4m3fn)
        scales = portable.best_scales(weight, float(largest))
        return portable.encode_nvfp4(weight, scales, scale_2, meter, producer), scales
    from publisher.native.kernels import search

    candidates = search.candidates(float(largest))
    rules = thresholds.nvfp4_rules(float(scale_2), KINDS[weight.dtype], producer)
    heights = amax.float().numpy()

    def improve(rows: slice, bits: Any, coded: Any) -> None:
        search.best_codes(bits, heights[rows], candidates, coded)

    payload, codes = _quantize(kernels, weight, amax, NVFP4_BLOCK, *rules, meter, improve)
    return payload, codes.view(torch.float8_e4m3fn)


def quantize_nvfp4_four_over_six(
    weight: Tensor, amax: Tensor, largest: Tensor, meter: ErrorMeter | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize to NVFP4, each block's largest weight to 6 or to 4 (see `publisher.formats.fouroversix`).

    Args:
        weight: (rows, columns) BF16, F16 or F32, finite; columns is a multiple of 16.
        amax: `block_amax(weight, 16)`.
        largest: fp32 scalar, the largest magnitude of the fused group.
        meter: counts the error made.

    Returns:
        payload U8 (rows, columns / 2), block scales E4M3 (rows, columns / 16) and the global scale F32.
    """
    scale_2 = torch.tensor(float(formats.fouroversix.global_scale(float(largest))), dtype=torch.float32)
    kernels = _kernels(weight, work=2)
    if kernels is None:
        scales = fouroversix.by_torch(weight, amax, float(largest))
        return portable.encode_nvfp4(weight, scales, scale_2, meter), scales, scale_2
    peaks = _bits(amax)

    def improve(rows: slice, bits: Any, coded: Any) -> None:
        fouroversix.choose(bits, peaks[rows], float(largest), coded)

    rules = thresholds.nvfp4_rules(float(scale_2), KINDS[weight.dtype])
    payload, codes = _quantize(kernels, weight, amax, NVFP4_BLOCK, *rules, meter, improve)
    return payload, codes.view(torch.float8_e4m3fn), scale_2


def quantize_mxfp4(
    weight: Tensor, amax: Tensor, mode: str, meter: ErrorMeter | None = None, *, producer: str = "native"
) -> tuple[Tensor, Tensor]:
    """Quantize to MXFP4.

    Args:
        weight: (rows, columns) BF16, F16 or F32, finite; columns is a multiple of 32.
        amax: `block_amax(weight, 32)`.
        mode: even, floor, ceil or ceil6.
        meter: counts the error made.
        producer: whose arithmetic: native, quark or compressed-tensors.

    Returns:
        payload U8 (rows, columns / 2) and E8M0 scales as U8 (rows, columns / 32).
    """
    kernels, gpu = _kernels(weight), _on_gpu(weight)
    if kernels is None and gpu is None:
        return portable.quantize_mxfp4(weight, amax, mode, meter, producer)
    scales, steps = thresholds.mxfp4_rules(cast(e8m0.Mode, mode), KINDS[weight.dtype], producer)
    if gpu is not None:
        payload, codes = gpu.quantize(weight, amax, MXFP4_BLOCK, scales, steps, meter)
        return payload, codes
    return _quantize(kernels, weight, amax, MXFP4_BLOCK, scales, steps, meter)


def _quantize(
    kernels: Any,
    weight: Tensor,
    amax: Tensor,
    block: int,
    scales: thresholds.Scales,
    steps: thresholds.Steps,
    meter: ErrorMeter | None,
    improve: Callable[[slice, Any, Any], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Payload and scale codes; `improve` may change a chunk's codes (rows, their weights' bits, codes)."""
    rows, columns = weight.shape
    payload = torch.empty((rows, columns // 2), dtype=torch.uint8)
    codes = torch.empty((rows, columns // block), dtype=torch.uint8)
    bits, peaks, packed, coded = _bits(weight), _bits(amax), payload.numpy(), codes.numpy()

    def quantize(run: slice) -> Any:
        sums = None if meter is None else np.zeros(2)
        kernels.scale_codes(peaks[run], scales, coded[run])
        if improve is not None:
            improve(run, bits[run], coded[run])
        kernels.encode(bits[run], coded[run], steps, block, packed[run], sums)
        return sums

    for sums in _over(weight, quantize):
        if meter is not None:
            meter.add(*torch.from_numpy(sums))
    return payload, codes


def _over(weight: Tensor, work: Callable[[slice], Any]) -> list[Any]:
    return at_once(row_chunks(weight.shape[0], weight.shape[1], _CHUNK), work)


def _bits(weight: Tensor) -> Any:
    """A weight's own memory as the array type that stands for its kind."""
    flat = weight.detach().contiguous().view(torch.uint8).numpy()
    return flat.view(_NUMPY[KINDS[weight.dtype]])
