"""Block scales of one module, and the extremes of all.

Of a block scale tensor the smallest and the largest code are taken while its bytes lie in the cache; they settle most
questions. Counts and places are looked for only where a rule asks, in the bytes still at hand or by reading the one
tensor again. A block's payload is read only where a rule asks about it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.formats import scan
from publisher.subjects.evidence import PIECE, Meter
from publisher.subjects.modules import BLOCK, is_packed, module_format, stack_of
from publisher.subjects.reading import Codes, fetch, plan, readable

CODES = frozenset({"U8", "F8_E4M3", "F8_E8M0"})  # dtypes of block scales
GAP = 64 << 10  # bytes of payload worth reading to save a read
MAGNITUDES = np.uint64(0x7777777777777777)  # of sixteen E2M1 codes; a sign alone is still zero

Places: TypeAlias = npt.NDArray[np.int64]
Counts: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of block scales, the payload it belongs to, and its format."""

    scales: TensorRef
    weight: TensorRef | None
    format: str


def stored(checkpoint: Checkpoint, module: Module) -> Iterator[Stored]:
    """A module's block scales: `weight_scale`, or, of experts in one tensor, gpt-oss's `<projection>_scales` and
    modelopt's `<projection>_weight_scale`; the payload of the latter lies across its scales and is not given.
    """
    scales = module.tensors.get("weight_scale")
    form = module_format(checkpoint, module) if scales is not None and is_packed(module) else None
    if scales is not None and form is not None and scales.dtype in CODES and scales.size:
        yield Stored(scales, module.weight, form)
    for projection in stack_of(module):
        ref = module.tensors[f"{projection}_weight_scale"]
        if ref.size:
            yield Stored(ref, None, "nvfp4")
    if module.name.endswith(".experts"):
        for suffix, ref in module.tensors.items():
            payload = module.tensors.get(f"{suffix.removesuffix('_scales')}_blocks")
            if suffix.endswith("_scales") and payload is not None and ref.dtype == "U8" and ref.size:
                yield Stored(ref, payload, "mxfp4")


@dataclass(slots=True)
class Held:
    """A tensor's bytes while they are in the buffer, and what was counted of them."""

    codes: Codes | None = None
    counts: Counts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockScales:
    """The block scales of one module.

    Args:
        checkpoint: where it belongs.
        module: the module.
        ref: its `weight_scale`, or what stands for it.
        weight: the payload, where there is one.
        format: nvfp4 (E4M3 codes) or mxfp4 (E8M0 codes).
        low: the smallest code.
        high: the largest code.
        meter: counts what is read later.
        held: the bytes, while they are at hand.
    """

    checkpoint: Checkpoint
    module: Module
    ref: TensorRef
    weight: TensorRef | None
    format: str
    low: int
    high: int
    meter: Meter
    held: Held = field(default_factory=Held)

    @property
    def histogram(self) -> Counts:
        """How often each of the 256 codes occurs, shape (256,); counted when first asked for."""
        if self.held.counts is None:
            self.held.counts = sum((scan.histogram(codes) for _, codes in self._codes()), np.zeros(256, np.int64))
        return self.held.counts

    def count(self, *codes: int) -> int:
        """How many scales have one of these codes."""
        within = [code for code in codes if self.low <= code <= self.high]
        return int(self.histogram[within].sum()) if within else 0

    def places(self, *codes: int) -> Iterator[Places]:
        """Flat positions of these codes, in order, at most one piece of the tensor at a time."""
        for offset, data in self._codes():
            found = np.flatnonzero(np.isin(data, codes))
            if len(found):
                yield found.astype(np.int64) + offset

    def index(self, place: int) -> tuple[int, ...]:
        """The position (row, block) of a flat position."""
        return tuple(int(n) for n in np.unravel_index(place, self.ref.shape)) if self.ref.shape else ()

    def nonzero(self, places: Places) -> tuple[int, int | None]:
        """How many of these blocks hold a code other than ±0, and the first of them.

        Reads the blocks' payload only; (0, None) where payload and scales do not fit together.
        """
        weight, width = self.weight, BLOCK[self.format] // 2
        if weight is None or weight.size != self.ref.size * width or not readable(self.checkpoint, weight):
            return 0, None
        total, first = 0, None
        for run in _runs(places, GAP // width, PIECE // width):
            begin, end = int(run[0]), int(run[-1]) + 1
            at = weight.begin + begin * width
            raw = self.meter.read(self.checkpoint.files, weight.shard, at, weight.begin + end * width)
            words = np.frombuffer(raw, "<u8", len(raw) // width * width // 8).reshape(-1, width // 8)
            held = functools.reduce(np.bitwise_or, words.T) & MAGNITUDES
            hit = np.flatnonzero(held[(run - begin)[: len(held)]])
            total += len(hit)
            if first is None and len(hit):
                first = int(run[hit[0]])
        return total, first

    def _codes(self) -> Iterator[tuple[int, Codes]]:
        """The codes with their offset: those at hand, or read again."""
        if self.held.codes is not None:
            yield 0, self.held.codes
            return
        for run, data in fetch(self.checkpoint.files, plan(self.checkpoint, [self.ref]), self.meter):
            yield run.begin - self.ref.begin, data


def _runs(places: Places, gap: int, span: int) -> Iterator[Places]:
    """Cut sorted positions where a hole is wider than `gap`, and every `span` positions."""
    for run in np.split(places, np.flatnonzero(np.diff(places) > gap) + 1):
        while len(run):
            cut = int(np.searchsorted(run, run[0] + span))
            yield run[:cut]
            run = run[cut:]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRange:
    """The extremes of one module's block scales, beside the scale of its tensor.

    Args:
        module: the module.
        ref: its `weight_scale`, or what stands for it.
        weight: the payload, where there is one.
        format: nvfp4 or mxfp4.
        low: the smallest code.
        high: the largest code.
        suffix: its global scale's name; None where it has none that could be read.
        bits: the global scale's float32 bit pattern, None likewise.
    """

    module: Module
    ref: TensorRef
    weight: TensorRef | None
    format: str
    low: int
    high: int
    suffix: str | None = None
    bits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRanges:
    """The extremes of all block scales of one format, in file order.

    Args:
        checkpoint: where they belong.
        format: nvfp4 or mxfp4.
        ranges: one per module.
        meter: counts what is read later.
    """

    checkpoint: Checkpoint
    format: str
    ranges: tuple[ScaleRange, ...]
    meter: Meter

    def scales(self, one: ScaleRange) -> BlockScales:
        """A module's block scales, to be read again."""
        return BlockScales(
            checkpoint=self.checkpoint,
            module=one.module,
            ref=one.ref,
            weight=one.weight,
            format=one.format,
            low=one.low,
            high=one.high,
            meter=self.meter,
        )
