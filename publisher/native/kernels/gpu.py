"""NVFP4 and MXFP4 on a GPU, in Triton: one source for CUDA and ROCm, integers from a weight's bits to its code.

What the CPU's compiled kernels compare (`thresholds`), these compare: a block's largest magnitude is an integer
maximum, its scale code is looked up, and an element's code is the number of boundaries its magnitude bits lie above.
No division and no rounding decides about a byte, so there is none that a device could do in another way. Floats are
computed with where errors are measured: for the meter, and in the search of MSE mode, whose losses are added in the
order of the elements with nothing contracted. A weight is read once for its maxima and once for its codes, and nothing
of its size is kept beside the result.

Importing this module imports Triton, which comes with torch for GPUs. Before a device quantizes its first weight,
`works` runs every kernel on it and compares with torch's; what fails is left to torch, with a warning.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from publisher.formats import sweep
from publisher.native.kernels import portable, thresholds
from publisher.native.kernels.portable import KINDS, MXFP4_BLOCK, NVFP4_BLOCK, ErrorMeter

TILE = 128  # blocks a program works on
_NUMBER = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}


# --- kernels -------------------------------------------------------------------------------------------------------
# Weights come as 32-bit words: two neighbours of 16 bits, the even one low, or one of 32.


@triton.jit
def _magnitudes(words, at, inside, WIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Magnitude bits and signs of the pair of neighbours number `at`."""
    if WIDE:
        low = tl.load(words + 2 * at, mask=inside, other=0)
        high = tl.load(words + 2 * at + 1, mask=inside, other=0)
        return low & 0x7FFFFFFF, (low >> 31) & 1, high & 0x7FFFFFFF, (high >> 31) & 1
    word = tl.load(words + at, mask=inside, other=0)
    return word & 0x7FFF, (word >> 15) & 1, (word >> 16) & 0x7FFF, (word >> 31) & 1


@triton.jit
def _value(bits, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """The magnitude that bits stand for; kind 0 is BF16, 1 F16, 2 F32."""
    if KIND == 0:
        return (bits << 16).to(tl.float32, bitcast=True)
    if KIND == 1:
        return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _doubled(code):  # type: ignore[no-untyped-def]
    """Twice the value of an E2M1 magnitude code: 0, 1, 2, 3, 4, 6, 8, 12."""
    shift = tl.maximum((code >> 1) - 1, 0)
    return tl.where(code < 4, code, (2 + (code & 1)) << shift).to(tl.float32)


@triton.jit
def _peaks(words, out, blocks, PAIRS: tl.constexpr, TILE: tl.constexpr, WIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Largest magnitude bits of each block."""
    block = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    at = block[:, None] * PAIRS + tl.arange(0, PAIRS)[None, :]
    low, _low_sign, high, _high_sign = _magnitudes(words, at, (block < blocks)[:, None], WIDE)
    tl.store(out + block, tl.max(tl.maximum(low, high), axis=1).to(out.dtype.element_ty), mask=block < blocks)


@triton.jit
def _encode(  # type: ignore[no-untyped-def]
    words,
    codes,
    below,
    halves,
    out,
    sums,
    blocks,
    PAIRS: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
    KIND: tl.constexpr,
    METER: tl.constexpr,
):
    """Elements under given scales, two to a byte; and, asked for, the tile's squared error and squared weight."""
    program = tl.program_id(0)
    block = program.to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = (block < blocks)[:, None]
    at = block[:, None] * PAIRS + tl.arange(0, PAIRS)[None, :]
    scale = tl.load(codes + block, mask=block < blocks, other=0).to(tl.int32)
    low, low_sign, high, high_sign = _magnitudes(words, at, inside, WIDE)
    signs = tl.load(below + scale * 8).to(tl.int32)[:, None]
    low_code = tl.zeros([TILE, PAIRS], dtype=tl.int32)
    high_code = tl.zeros([TILE, PAIRS], dtype=tl.int32)
    for mark in tl.static_range(1, 8):
        edge = tl.load(below + scale * 8 + mark).to(tl.int32)[:, None]
        low_code += (low > edge).to(tl.int32)
        high_code += (high > edge).to(tl.int32)
    low_nibble = low_code | ((low_sign & (low > signs).to(tl.int32)) << 3)
    high_nibble = high_code | ((high_sign & (high > signs).to(tl.int32)) << 3)
    tl.store(out + at, (low_nibble | (high_nibble << 4)).to(tl.uint8), mask=inside)
    if METER:
        half = tl.load(halves + scale)[:, None]
        low_value, high_value = _value(low, KIND), _value(high, KIND)
        low_error = low_value - _doubled(low_code) * half
        high_error = high_value - _doubled(high_code) * half
        error = tl.where(inside, low_error * low_error + high_error * high_error, 0.0)
        weight = tl.where(inside, low_value * low_value + high_value * high_value, 0.0)
        tl.store(sums + 2 * program, tl.sum(tl.sum(error, axis=1), axis=0))
        tl.store(sums + 2 * program + 1, tl.sum(tl.sum(weight, axis=1), axis=0))


@triton.jit
def _term(loss, bits, edges, step, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """The loss with one more element's squared error; `edges` points at where codes 1 to 7 begin."""
    code = tl.zeros_like(bits)
    for mark in tl.static_range(7):
        code += (bits > tl.load(edges + mark)).to(tl.int32)
    error = _value(bits, KIND) - (_doubled(code) * 0.5) * step
    return loss + error * error


@triton.jit
def _pair(loss, word, edges, step, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """The same for two neighbours of 16 bits, the even one first."""
    return _term(_term(loss, word & 0x7FFF, edges, step, KIND), (word >> 16) & 0x7FFF, edges, step, KIND)


@triton.jit
def _search(words, edges, steps, out, blocks, CANDIDATES: tl.constexpr, TILE: tl.constexpr, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first scale code of the smallest loss for each block of 16 weights of 16 bits."""
    block = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = block < blocks
    first = words + block * 8
    w0 = tl.load(first, mask=inside, other=0)
    w1 = tl.load(first + 1, mask=inside, other=0)
    w2 = tl.load(first + 2, mask=inside, other=0)
    w3 = tl.load(first + 3, mask=inside, other=0)
    w4 = tl.load(first + 4, mask=inside, other=0)
    w5 = tl.load(first + 5, mask=inside, other=0)
    w6 = tl.load(first + 6, mask=inside, other=0)
    w7 = tl.load(first + 7, mask=inside, other=0)
    best = tl.full([TILE], float("inf"), dtype=tl.float32)
    found = tl.full([TILE], 1, dtype=tl.int32)
    for candidate in range(CANDIDATES):
        step = tl.load(steps + candidate)
        edge = edges + candidate * 7
        loss = tl.zeros([TILE], dtype=tl.float32)
        loss = _pair(_pair(loss, w0, edge, step, KIND), w1, edge, step, KIND)
        loss = _pair(_pair(loss, w2, edge, step, KIND), w3, edge, step, KIND)
        loss = _pair(_pair(loss, w4, edge, step, KIND), w5, edge, step, KIND)
        loss = _pair(_pair(loss, w6, edge, step, KIND), w7, edge, step, KIND)
        better = loss < best
        best = tl.where(better, loss, best)
        found = tl.where(better, candidate + 1, found)
    tl.store(out + block, found.to(tl.uint8), mask=inside)


# --- what they are called with -------------------------------------------------------------------------------------


def block_amax(weight: Tensor, block: int) -> Tensor:
    """Largest magnitude of each block, exact; see `quantizers.block_amax`."""
    wide = weight.dtype == torch.float32
    out = torch.empty(_blocks(weight, block), dtype=torch.int32 if wide else torch.int16, device=weight.device)
    with _at(weight.device):
        _peaks[_grid(out.numel())](
            _words(weight), out, out.numel(), PAIRS=block // 2, TILE=TILE, WIDE=wide, enable_fp_fusion=False
        )
    return out.view(weight.dtype)


def scale_codes(amax: Tensor, scales: thresholds.Scales) -> Tensor:
    """Block scale codes (uint8) of finite block maxima, looked up."""
    bits = amax.contiguous().view(portable.BITS[amax.dtype][0])
    if len(scales.table):
        return torch.from_numpy(scales.table).to(amax.device)[bits.int()]
    starts = torch.from_numpy(scales.starts).to(amax.device)
    return torch.from_numpy(scales.codes).to(amax.device)[torch.searchsorted(starts, bits, right=True, out_int32=True)]


def best_codes(weight: Tensor, largest: float) -> Tensor:
    """MSE mode's scale codes (uint8) of a BF16 or F16 weight, by trying all of them; see `publisher.formats.sweep`."""
    steps = thresholds.sweep_steps(largest, KINDS[weight.dtype])
    edges = torch.from_numpy(np.ascontiguousarray(steps.below[:, 1:]).astype(np.int32)).to(weight.device)
    units = torch.from_numpy(sweep.candidate_steps(largest)).to(weight.device)
    out = torch.empty(_blocks(weight, NVFP4_BLOCK), dtype=torch.uint8, device=weight.device)
    with _at(weight.device):
        _search[_grid(out.numel())](
            _words(weight),
            edges,
            units,
            out,
            out.numel(),
            CANDIDATES=len(units),
            TILE=TILE,
            KIND=_NUMBER[weight.dtype],
            enable_fp_fusion=False,  # a contracted product would be another loss than the reference's
        )
    return out


def encode(weight: Tensor, codes: Tensor, steps: thresholds.Steps, block: int, meter: ErrorMeter | None) -> Tensor:
    """Payload of a weight under given block scale codes.

    Args:
        weight: (rows, columns) BF16, F16 or F32, finite.
        codes: uint8 (rows, columns / block).
        steps: boundaries of the same kind of weight.
        block: 16 or 32.
        meter: counts the error made.

    Returns:
        uint8 (rows, columns / 2).
    """
    out = torch.empty((weight.shape[0], weight.shape[1] // 2), dtype=torch.uint8, device=weight.device)
    grid = _grid(codes.numel())
    sums = torch.zeros((grid[0] if meter else 1, 2), dtype=torch.float32, device=weight.device)
    with _at(weight.device):
        _encode[grid](
            _words(weight),
            codes.contiguous(),
            torch.from_numpy(steps.below).to(weight.device),
            torch.from_numpy(steps.halves).to(weight.device),
            out,
            sums,
            codes.numel(),
            PAIRS=block // 2,
            TILE=TILE,
            WIDE=weight.dtype == torch.float32,
            KIND=_NUMBER[weight.dtype],
            METER=meter is not None,
            enable_fp_fusion=False,
        )
    if meter is not None:
        meter.add(*sums.double().sum(0))
    return out


def quantize(
    weight: Tensor,
    amax: Tensor,
    block: int,
    scales: thresholds.Scales,
    steps: thresholds.Steps,
    meter: ErrorMeter | None,
) -> tuple[Tensor, Tensor]:
    """Payload and scale codes (both uint8) of a weight whose `block_amax` is known."""
    codes = scale_codes(amax, scales)
    return encode(weight, codes, steps, block, meter), codes


def _blocks(weight: Tensor, block: int) -> tuple[int, int]:
    return weight.shape[0], weight.shape[1] // block


def _grid(blocks: int) -> tuple[int]:
    return (-(-blocks // TILE),)


def _words(weight: Tensor) -> Tensor:
    whole = weight.contiguous()
    if whole.data_ptr() % 4:  # a view that begins between two words
        whole = whole.clone()
    return whole.view(torch.int32)


def _at(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the weight's."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


# --- proof ---------------------------------------------------------------------------------------------------------


@functools.cache
def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether every kernel gives torch's bytes on a device: asked before it quantizes its first weight of a kind."""
    try:
        wrong = [name for name, same in _trials(_specimen(dtype).to(device)) if not same]
    except Exception as error:  # noqa: BLE001 - a compiler, a driver and a device stand behind this call
        wrong = [f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"]
    if wrong:
        warnings.warn(
            f"Triton is not used on {device}: {', '.join(wrong)} failed its check; torch computes the same, slower.",
            RuntimeWarning,
            stacklevel=2,
        )
    return not wrong


def _specimen(dtype: torch.dtype) -> Tensor:
    """Every finite magnitude of a 16-bit kind that the arithmetic tells apart, both signs; of F32 a spread of them."""
    if dtype == torch.float32:
        bits = torch.arange(1 << 16, dtype=torch.int64) * 32401 + 0x2000_0000
        values = (bits % 0x5F00_0000).int().view(torch.float32)
    else:
        bits = torch.arange(1 << 15, dtype=torch.int32).clamp(max=portable.BITS[dtype][2] - 1)
        values = bits.to(torch.int16).view(dtype)
        values = torch.where(values.float() > 2.0**60, torch.ones((), dtype=dtype), values)  # squares must be finite
    mixed = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(0))]
    signed = torch.where(torch.arange(len(mixed)) % 3 == 0, -mixed, mixed)
    return torch.cat((signed, values)).view(-1, 256)


def _trials(weight: Tensor) -> list[tuple[str, bool]]:
    def same(ours: Tensor, theirs: Tensor) -> bool:
        return bool(torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8)))

    kind, found = KINDS[weight.dtype], []
    amax = portable.block_amax(weight, NVFP4_BLOCK)
    found.append(("largest magnitudes", same(block_amax(weight, NVFP4_BLOCK), amax)))
    for scale_2 in (torch.tensor(2.0**-9), torch.tensor(1.1e-3)):
        theirs = portable.quantize_nvfp4(weight, amax, scale_2)
        ours = quantize(weight, amax, NVFP4_BLOCK, *thresholds.nvfp4_rules(float(scale_2), kind), None)
        found.append(("NVFP4", same(ours[0], theirs[0]) and same(ours[1], theirs[1])))
    wide = portable.block_amax(weight, MXFP4_BLOCK)
    theirs = portable.quantize_mxfp4(weight, wide, "even")
    ours = quantize(weight, wide, MXFP4_BLOCK, *thresholds.mxfp4_rules("even", kind), None)
    found.append(("MXFP4", same(ours[0], theirs[0]) and same(ours[1], theirs[1])))
    if weight.dtype != torch.float32:
        few = weight[:: max(1, weight.shape[0] // 8)]
        found.append(("the search for scales", same(best_codes(few, 3.7), portable.best_scales(few, 3.7))))
    return found
