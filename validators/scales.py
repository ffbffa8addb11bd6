"""SV: the values of block scales and scalars, in any order, without the source."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import BlockScales, Scalars

E4M3_NAN = (0x7F, 0xFF)
E8M0_NAN = 0xFF
TINY = float(np.finfo(np.float32).tiny)
NVFP4 = Scope("NVFP4 block scale", lambda scales: scales.format == "nvfp4")
MX = Scope("MX block scale", lambda scales: scales.format == "mxfp4")


def _first(scales: BlockScales, *codes: int) -> tuple[int, ...]:
    return scales.index(int(next(scales.places(*codes))[0]))


@rule("SV01", "nan-block-scale", severity=ERROR, engines=ENGINES, scope=NVFP4)
def nan_block_scale(scales: BlockScales) -> Iterator[Found]:
    """An NVFP4 block scale is the NaN code (0x7F or 0xFF).

    Why: one such byte turns its block, and through attention every token, into NaN; vLLM takes it for a scale that
    was never loaded.
    Fix: quantize the tensor again with scales clamped to the finite range; an all-zero tensor needs a scale by hand.
    Seen: NVIDIA/Model-Optimizer PR 1397.
    """
    count = scales.count(*E4M3_NAN)
    if count:
        place = _first(scales, *E4M3_NAN)
        message = (
            f"{count:,} of {scales.ref.size:,} block scales of {scales.module.name} are NaN, the first at "
            f"{list(place)}; quantize the tensor again."
        )
        yield Found(message, file=scales.ref.shard, tensor=scales.ref.name, index=place)


@rule("SV03", "zero-scale-on-weights", severity=ERROR, engines=ENGINES, scope=NVFP4)
def zero_scale_on_weights(scales: BlockScales) -> Iterator[Found]:
    """An NVFP4 block scale is zero while its block holds non-zero codes.

    Why: the block's weights vanish, or were computed as 0/0; the scale has underflowed. A zero scale on an all-zero
    block is exact and passes.
    Fix: quantize again with block scales clamped to at least 2^-9.
    Seen: NVIDIA/Model-Optimizer PR 1397; vllm-project/vllm PR 37464.
    """
    zeros, lost, first = scales.count(0), 0, None
    if not zeros:
        return
    for places in scales.places(0):
        count, at = scales.nonzero(places)
        lost += count
        first = at if first is None else first
    if first is not None:
        place = scales.index(first)
        message = (
            f"{lost:,} of {scales.ref.size:,} blocks of {scales.module.name} have scale 0 and non-zero weights, the "
            f"first at {list(place)}; quantize the tensor again."
        )
        yield Found(message, file=scales.ref.shard, tensor=scales.ref.name, index=place)


@rule("SV11", "nan-mx-scale", severity=ERROR, engines=ENGINES, scope=MX)
def nan_mx_scale(scales: BlockScales) -> Iterator[Found]:
    """An MX block scale is 255, the NaN of E8M0.

    Why: its block becomes NaN in every engine.
    Fix: look for Inf or NaN in the source tensor, then quantize it again.
    Seen: OCP Microscaling Formats 1.0, E8M0; AutoRound clamps to 255, not 254.
    """
    count = scales.count(E8M0_NAN)
    if count:
        place = _first(scales, E8M0_NAN)
        message = (
            f"{count:,} of {scales.ref.size:,} block scales of {scales.module.name} are 255 (NaN), the first at "
            f"{list(place)}; quantize the tensor again."
        )
        yield Found(message, file=scales.ref.shard, tensor=scales.ref.name, index=place)


def _kind(*suffixes: str) -> Scope:
    return Scope(" or ".join(suffixes), lambda scalars: scalars.suffix in suffixes)


def _judge(scalars: Scalars, low: float, high: float) -> Iterator[Found]:
    """Errors for what is not finite, positive and normal, warnings for what is out of the usual range."""
    values = scalars.values
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(values) & (values >= TINY))
        odd = ~bad & ((values < low) | (values > high))
    yield from _each(scalars, bad, lambda value: f"is {value}, not a positive normal number; export it again", True)
    usual = f"[{low:g}, {high:g}]"
    yield from _each(scalars, odd, lambda value: f"is {value}, outside the usual {usual}; compare the source", False)


def _each(scalars: Scalars, mask: npt.NDArray[np.bool_], text: Callable[[str], str], bad: bool) -> Iterator[Found]:
    for at in np.flatnonzero(mask):
        ref, value = scalars.refs[at], scalars.values[at]
        message = f"{ref.name} {text(f'{value:.6g}')}."
        yield Found(message, file=ref.shard, tensor=ref.name, severity=ERROR if bad else WARNING)


@rule("SV05", "bad-global-scale", severity=ERROR, engines=ENGINES, scope=_kind("weight_scale_2"))
def bad_global_scale(scalars: Scalars) -> Iterator[Found]:
    """A global weight scale is zero, negative, subnormal, infinite or NaN; outside 1e-7 to 0.1 it is a warning.

    Why: it multiplies every weight of its module, so the module is lost.
    Fix: quantize the module again; a dead module (all weights zero) is better kept unquantized.
    Seen: modelopt 0.47 writes 0 for an all-zero weight, and NaN block scales with it.
    """
    yield from _judge(scalars, 1e-7, 1e-1)


@rule("SV08", "bad-input-scale", severity=ERROR, engines=ENGINES, scope=_kind("input_scale", "input_scale_2"))
def bad_input_scale(scalars: Scalars) -> Iterator[Found]:
    """An activation scale is zero, negative, subnormal, infinite or NaN; outside 1e-7 to 100 it is a warning.

    Why: the engines divide activations by it; in a mixture of experts the largest one serves the whole layer.
    Fix: calibrate again with data that reaches the module.
    Seen: vllm-project/vllm issue 45212 (experts that calibration never reached).
    """
    yield from _judge(scalars, 1e-7, 1e2)
