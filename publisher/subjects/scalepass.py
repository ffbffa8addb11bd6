"""One pass over block scales, scalars and smoothing vectors in file order; what needs all of them comes last.

Memory stays bounded whatever the checkpoint's size. Tensors that lie beyond the end of their file are not read; the
meter keeps their number so that nobody takes them for checked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.formats import scan
from publisher.subjects.evidence import Meter
from publisher.subjects.modules import BLOCK, CACHE_SCALARS, SCALARS, is_packed, stack_of
from publisher.subjects.reading import Piece, Run, pieces, plan, readable
from publisher.subjects.scalars import FLOATS, SMOOTHING, FusedGroup, Scalars, Smoothings, Vector, fused, scalar_of
from publisher.subjects.scales import BlockScales, Held, ScaleRange, ScaleRanges, Stored, stored


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
        for projection in stack_of(module):
            for suffix in suffixes:
                scalar = module.tensors.get(f"{projection}_{suffix}")
                if scalar is not None and scalar.dtype in FLOATS and scalar.elements == 1:
                    found.scalars[scalar.name] = suffix
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


def _scaled(one: ScaleRange) -> str:
    """What the name of the global scale begins with; of a stack that is itself named after its projection."""
    if one.ref.name.endswith(".weight_scale"):
        return one.module.name
    return f"{one.ref.name.removesuffix('_weight_scale')}_weight_scale_2"


def _ranges(
    checkpoint: Checkpoint, ranges: list[ScaleRange], every: Mapping[str, Scalars], meter: Meter
) -> Iterator[ScaleRanges]:
    """The ranges by format, each with its tensor's global scale."""
    globals_: dict[str, tuple[str, int]] = {}
    for suffix in ("weight_scale_2", "weight_global_scale"):
        scalars = every.get(suffix)
        if scalars is not None:
            bits = scalars.values.view(np.uint32).tolist()
            names = (ref.name.removesuffix(f".{suffix}") for ref in scalars.refs)
            globals_ |= {name: (suffix, bit) for name, bit in zip(names, bits, strict=True)}
    for form in BLOCK:
        own = [
            replace(one, suffix=suffix, bits=bits)
            for one in ranges
            if one.format == form
            for suffix, bits in (globals_.get(_scaled(one), (None, None)),)
        ]
        if own:
            yield ScaleRanges(checkpoint=checkpoint, format=form, ranges=tuple(own), meter=meter)
