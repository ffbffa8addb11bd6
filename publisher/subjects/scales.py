"""Block scales, scalars and fused groups, read in one pass in file order.

Of a block scale tensor the smallest and the largest code are taken while its bytes lie in the cache; they settle most
questions. Counts and places are looked for only where a rule asks, in the bytes still at hand or by reading the one
tensor again. Memory stays bounded whatever the checkpoint's size. Tensors that lie beyond the end of their file are not
read; the meter keeps their number so that nobody takes them for checked. A block's payload is read only where a rule
asks about it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.formats import scan
from publisher.subjects.evidence import PIECE, Meter
from publisher.subjects.modules import BLOCK, CACHE_SCALARS, SCALARS, is_packed, module_format
from publisher.subjects.reading import Codes, Piece, Run, fetch, pieces, plan, readable
from publisher.subjects.scalars import FLOATS, SMOOTHING, FusedGroup, Scalars, Smoothings, Vector, fused, scalar_of

CODES = frozenset({"U8", "F8_E4M3", "F8_E8M0"})  # dtypes of block scales
GAP = 64 << 10  # bytes of payload worth reading to save a read

Places: TypeAlias = npt.NDArray[np.int64]
Counts: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of block scales, the payload it belongs to, and its format."""

    scales: TensorRef
    weight: TensorRef | None
    format: str


def stored(checkpoint: Checkpoint, module: Module) -> Iterator[Stored]:
    """A module's block scales: `weight_scale`, or gpt-oss's `<projection>_scales` of stacked experts."""
    scales = module.tensors.get("weight_scale")
    form = module_format(checkpoint, module) if scales is not None and is_packed(module) else None
    if scales is not None and form is not None and scales.dtype in CODES and scales.size:
        yield Stored(scales, module.weight, form)
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
            data = np.frombuffer(raw, np.uint8)
            blocks = data[: len(data) // width * width].reshape(-1, width)
            hit = np.flatnonzero((blocks[(run - begin)[: len(blocks)]] & 0x77).any(axis=1))
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


@dataclass(slots=True)
class _Wanted:
    """What one pass reads, by tensor name: block scales, scalars (with their suffix) and smoothing vectors."""

    blocks: dict[str, tuple[Module, Stored]] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, str] = field(default_factory=dict)

    def refs(self, checkpoint: Checkpoint) -> list[TensorRef]:
        """The tensors themselves."""
        return [checkpoint.tensors[name] for name in (*self.blocks, *self.scalars, *self.vectors)]


SCALE_KINDS: frozenset[type] = frozenset({BlockScales, ScaleRanges, Scalars, FusedGroup, Smoothings})
_OF_MODULES = frozenset((*SCALARS, *CACHE_SCALARS, SMOOTHING))


def _wanted(checkpoint: Checkpoint, kinds: Collection[type]) -> _Wanted:
    found = _Wanted()
    scales = bool({BlockScales, ScaleRanges} & set(kinds))
    suffixes = (*SCALARS, *CACHE_SCALARS) if {Scalars, FusedGroup, ScaleRanges} & set(kinds) else ()
    for module in checkpoint.modules.values():
        if scales:
            found.blocks |= {one.scales.name: (module, one) for one in stored(checkpoint, module)}
        if _OF_MODULES.isdisjoint(module.tensors):
            continue
        packed = is_packed(module)
        for suffix in suffixes:
            scalar = module.tensors.get(suffix)
            single = scalar is not None and scalar.dtype in FLOATS and scalar.elements == 1
            if scalar is not None and single and (packed or suffix in CACHE_SCALARS):
                found.scalars[scalar.name] = suffix
        vector = module.tensors.get(SMOOTHING)
        if Smoothings in kinds and vector is not None and vector.dtype in FLOATS:
            found.vectors[vector.name] = module.name
    return found


@dataclass(slots=True, kw_only=True)
class ScalePass:
    """The scales to read, planned; `read` hands them out in file order, what needs all of them last.

    Args:
        checkpoint: where they belong.
        kinds: what is asked for; what nobody wants is not read.
        meter: counts; what lies beyond the end of its file is counted there and not read.
    """

    checkpoint: Checkpoint
    kinds: Collection[type]
    meter: Meter
    planned: list[Run] = field(init=False)
    _wanted: _Wanted = field(init=False)
    _low: int = 255
    _high: int = 0
    _refs: dict[str, list[TensorRef]] = field(default_factory=dict)
    _values: dict[str, list[np.float32]] = field(default_factory=dict)
    _vectors: dict[str, Vector] = field(default_factory=dict)
    _ranges: list[ScaleRange] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._wanted = _wanted(self.checkpoint, self.kinds)
        wanted = self._wanted.refs(self.checkpoint)
        found = [ref for ref in wanted if readable(self.checkpoint, ref)]
        self.meter.unreadable["scales"] += len(wanted) - len(found)
        self.meter.total += sum(ref.size for ref in found)
        self.planned = plan(self.checkpoint, found)

    def runs(self) -> Iterator[Run]:
        """The reads, in order."""
        yield from self.planned

    def read(self) -> Iterator[BlockScales | ScaleRanges | Scalars | FusedGroup | Smoothings]:
        """The subjects.

        Raises:
            CheckpointError: a shard cannot be read at all, or has become shorter.
        """
        for piece in pieces(self.checkpoint, self.planned, self.meter):
            block = self._take(piece)
            if block is not None:
                yield block
                block.held.codes = None  # the buffer is read over
        yield from self._rest()

    def _take(self, piece: Piece) -> BlockScales | None:
        """Look at a piece; block scales are handed out with their last one."""
        name = piece.ref.name
        if name in self._wanted.blocks:
            return self._block(piece)
        if name in self._wanted.scalars:
            suffix = self._wanted.scalars[name]
            self._refs.setdefault(suffix, []).append(piece.ref)
            self._values.setdefault(suffix, []).append(scalar_of(piece.ref.dtype, piece.codes))
        else:
            self._vectors.setdefault(self._wanted.vectors[name], Vector(piece.ref)).add(piece)
        return None

    def _block(self, piece: Piece) -> BlockScales | None:
        low, high = scan.extremes(piece.codes)
        self._low, self._high = (min(self._low, low), max(self._high, high)) if piece.offset else (low, high)
        if not piece.last:
            return None
        module, own = self._wanted.blocks[piece.ref.name]
        block = BlockScales(
            checkpoint=self.checkpoint,
            module=module,
            ref=piece.ref,
            weight=own.weight,
            format=own.format,
            low=self._low,
            high=self._high,
            meter=self.meter,
            held=Held(piece.codes if piece.whole else None),
        )
        if ScaleRanges in self.kinds:
            self._ranges.append(_range(block))
        return block if BlockScales in self.kinds else None

    def _rest(self) -> Iterator[ScaleRanges | Scalars | FusedGroup | Smoothings]:
        """What could only be told after the last piece."""
        every = {
            suffix: Scalars(
                checkpoint=self.checkpoint,
                suffix=suffix,
                refs=tuple(refs),
                values=np.array(self._values[suffix], np.float32),
            )
            for suffix, refs in self._refs.items()
        }
        if ScaleRanges in self.kinds:
            yield from _ranges(self.checkpoint, self._ranges, every, self.meter)
        if Scalars in self.kinds:
            yield from every.values()
        if FusedGroup in self.kinds:
            yield from fused(every)
        if Smoothings in self.kinds and self._vectors:
            vectors = {name: vector.done() for name, vector in self._vectors.items()}
            yield Smoothings(checkpoint=self.checkpoint, vectors=vectors)


def _range(block: BlockScales) -> ScaleRange:
    return ScaleRange(
        module=block.module,
        ref=block.ref,
        weight=block.weight,
        format=block.format,
        low=block.low,
        high=block.high,
    )


def _ranges(
    checkpoint: Checkpoint, ranges: list[ScaleRange], every: Mapping[str, Scalars], meter: Meter
) -> Iterator[ScaleRanges]:
    """The ranges by format, each with its tensor's global scale."""
    globals_: dict[str, tuple[str, int]] = {}
    for suffix in ("weight_scale_2", "weight_global_scale"):
        scalars = every.get(suffix)
        if scalars is not None:
            bits = scalars.values.view(np.uint32).tolist()
            names = (ref.name.rpartition(".")[0] for ref in scalars.refs)
            globals_ |= {name: (suffix, bit) for name, bit in zip(names, bits, strict=True)}
    for form in BLOCK:
        own = [
            replace(one, suffix=suffix, bits=bits)
            for one in ranges
            if one.format == form
            for suffix, bits in (globals_.get(one.module.name, (None, None)),)
        ]
        if own:
            yield ScaleRanges(checkpoint=checkpoint, format=form, ranges=tuple(own), meter=meter)
