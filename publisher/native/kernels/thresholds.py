"""Where rounding turns over, as integers: what lets a kernel quantize by comparing bits instead of dividing.

The magnitude bits of a float are integers in the order of their values, and each step of the reference arithmetic
(`publisher.formats`) is monotone: the division, the rounding to E4M3 or E8M0 and the rounding to E2M1. So for every
block scale there is one smallest weight that gets code 1, one that gets code 2, and so on, and for a tensor one
smallest block maximum for every scale code. These are found here by trying the reference's own operations on both
sides of the boundary, ties, subnormals and overflow included, so that comparing with them gives the reference's codes.
An NVFP4 tensor has at most 126 different steps (a scale code times its global scale), an MX tensor 255 for ever.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from publisher.formats import e2m1, e4m3, e8m0, mxfp4, nvfp4, sweep
from publisher.formats.blocks import Float32Array, UInt8Array

Kind = Literal["BF16", "F16", "F32"]
Bits = npt.NDArray[np.int64]

_INFINITY = 0x7F800000  # F32
_SMALLEST = np.float32(2.0**-149)
MARKS = 8
"""Boundaries of a step: where the sign bit begins to be set, then where codes 1 to 7 begin."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How weights round under each block scale code.

    Attributes:
        below: (256, 8) int16 (BF16, F16) or int32 (F32); magnitude bits above entry 0 keep a minus sign, above entry k
            have code k or more.
        halves: float32 (256,), half of what one unit of an element is worth: codes are counted in halves.
    """

    below: npt.NDArray[Any]
    halves: Float32Array


@dataclass(frozen=True, slots=True)
class Scales:
    """Which scale code a block gets.

    Attributes:
        starts: int32, ascending: the magnitude bits of a block maximum at which the next of `codes` begins.
        codes: uint8, one more than `starts`.
        table: for 16-bit weights the same thing looked up, uint8 (32768,); else empty.
    """

    starts: npt.NDArray[np.int32]
    codes: UInt8Array
    table: UInt8Array


@functools.lru_cache(maxsize=16)
def nvfp4_rules(scale: float, kind: Kind, producer: str = "native") -> tuple[Scales, Steps]:
    """NVFP4 max mode under one global scale, by the arithmetic of one of `nvfp4.POLICIES`."""
    return nvfp4_scales(np.float32(scale), kind, producer), nvfp4_steps(np.float32(scale), kind, producer)


def nvfp4_scales(scale: np.float32, kind: Kind, producer: str = "native") -> Scales:
    """Block maximum to E4M3 code; the first one is what blocks get whose ratio is zero, or rounds to zero."""
    policy = nvfp4.POLICIES[producer]
    codes = np.arange(e4m3.MAX_CODE + 1, dtype=np.uint8)
    if policy.direction == "divide":
        plain = replace(policy, zero_code=0)

        def code(maxima: Float32Array) -> UInt8Array:
            with np.errstate(over="ignore"):
                return nvfp4.block_scale_codes(maxima, scale, plain)

        starts = _first_coded(code, codes[1:])
    else:
        marks = np.concatenate(([_SMALLEST], _e4m3_marks()))  # every ratio that is not zero is raised to 2**-9
        starts = first_reaching(np.array([np.float32(e2m1.MAX) * scale]), marks)[0]
    codes[0] = nvfp4.block_scale_codes(np.zeros(1, np.float32), scale, policy)[0]
    return _scales(starts, codes, kind)


def nvfp4_steps(scale: np.float32, kind: Kind, producer: str = "native") -> Steps:
    """E4M3 code to boundaries; a minus sign is kept where the quotient is not zero."""
    used = slice(1, e4m3.NAN_CODE)
    steps = np.zeros(256, np.float32)
    units = e4m3.DECODE[used]
    with np.errstate(over="ignore"):
        steps[used] = units / scale if nvfp4.POLICIES[producer].direction == "divide" else units * scale
    starts = np.full((256, MARKS), _INFINITY, np.int64)
    starts[used] = first_reaching(steps[used], np.concatenate(([_SMALLEST], _e2m1_marks())))
    return _steps(starts, steps, kind)


def sweep_steps(largest: float, kind: Kind) -> Steps:
    """Boundaries under each candidate of `publisher.formats.sweep`, in its order: 126 rows instead of 256."""
    steps = sweep.candidate_steps(largest)
    return _steps(first_reaching(steps, np.concatenate(([_SMALLEST], _e2m1_marks()))), steps, kind)


@functools.cache
def mxfp4_rules(mode: e8m0.Mode, kind: Kind, producer: str = "native") -> tuple[Scales, Steps]:
    """MXFP4 in one of its modes, in the arithmetic of a producer that rounds ties to even."""
    policy = mxfp4.POLICIES[producer]

    def code(maxima: Float32Array) -> UInt8Array:
        return e8m0.encode(maxima, mode, lowest=policy.lowest_code, zero=policy.zero_codes[mode])

    codes = np.arange(e8m0.NAN_CODE, dtype=np.uint8)
    starts = _first_coded(code, codes[1:])
    divisors = e8m0.DECODE[: e8m0.NAN_CODE]
    marks = _e2m1_marks()
    sign = marks[:1] if policy.signs == "nonzero" else np.array([_SMALLEST])
    boundaries = np.full((256, MARKS), _INFINITY, np.int64)
    boundaries[: e8m0.NAN_CODE] = first_reaching(divisors, np.concatenate((sign, marks)))
    return _scales(starts, codes, kind), _steps(boundaries, np.append(divisors, np.float32(0)), kind)


# --- boundaries ----------------------------------------------------------------------------------------------------


def first_reaching(divisors: Float32Array, marks: Float32Array) -> Bits:
    """Bits of the smallest float32 w >= 0 whose quotient w / divisor, in float32, is at least each mark.

    Args:
        divisors: float32 (n,), each > 0.
        marks: float32 (m,), each > 0.

    Returns:
        int64 (n, m); those of infinity where no number reaches.
    """
    divisor, mark = divisors[:, None], marks[None, :]
    near = np.where(mark == _SMALLEST, 2.0**-150, mark.astype(np.float64))  # half of the smallest rounds to zero
    with np.errstate(all="ignore"):
        bits = (near * divisor).astype(np.float32).view(np.int32).astype(np.int64)

    def reached() -> npt.NDArray[np.bool_]:
        with np.errstate(all="ignore"):
            return bits.astype(np.int32).view(np.float32) / divisor >= mark

    while (above := reached() & (bits > 0)).any():
        bits -= above
    while (short := ~reached() & (bits < _INFINITY)).any():
        bits += short
    return bits


def _first_coded(code: Callable[[Float32Array], UInt8Array], wanted: UInt8Array) -> Bits:
    """Bits of the smallest finite float32 with at least each code, by halving; else those of infinity."""
    low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), _INFINITY, np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        enough = code(np.minimum(middle, _INFINITY - 1).astype(np.int32).view(np.float32)) >= wanted
        high = np.where(enough, middle, high)
        low = np.where(enough, low, np.minimum(middle + 1, high))
    return low


@functools.cache
def _e2m1_marks() -> Float32Array:
    codes = np.arange(1, e2m1.MAX_CODE + 1, dtype=np.uint8)
    return _first_coded(e2m1.encode, codes).astype(np.int32).view(np.float32)


@functools.cache
def _e4m3_marks() -> Float32Array:
    codes = np.arange(2, e4m3.MAX_CODE + 1, dtype=np.uint8)
    return _first_coded(e4m3.encode, codes).astype(np.int32).view(np.float32)


# --- of the weights' own width -------------------------------------------------------------------------------------


def _scales(starts: Bits, codes: UInt8Array, kind: Kind) -> Scales:
    own = _own_bits(starts, kind)
    if kind == "F32":
        return Scales(own.astype(np.int32), codes, np.empty(0, np.uint8))
    runs = np.diff(np.concatenate(([0], np.minimum(own, 0x8000), [0x8000])))
    return Scales(own.astype(np.int32), codes, np.repeat(codes, runs))


def _steps(starts: Bits, steps: Float32Array, kind: Kind) -> Steps:
    below = (_own_bits(starts, kind) - 1).astype(np.int32 if kind == "F32" else np.int16)
    return Steps(np.ascontiguousarray(below), steps * np.float32(0.5))


def _own_bits(starts: Bits, kind: Kind) -> Bits:
    """The first value of a kind that is not below a float32, as magnitude bits; at most those of its infinity."""
    if kind == "BF16":
        return (starts + 0xFFFF) >> 16
    if kind == "F16":
        return np.searchsorted(_f16_bits(), starts).astype(np.int64)
    return starts


@functools.cache
def _f16_bits() -> Bits:
    """float32 bits of every finite F16, and of no other."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    return halves.astype(np.float32).view(np.int32).astype(np.int64)
