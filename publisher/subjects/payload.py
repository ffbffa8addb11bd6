"""Packed payloads beside their block scales, and plain floating-point tensors: what only the weights' own bytes tell.

One pass for all rules: of each module its bytes are counted, and its blocks by scale code and by the largest magnitude
in them. Where a sample is asked for, a few stretches of each module are read, chosen by its name alone, so that two
runs read the same. Plain tensors are searched for NaN and infinity. Memory is one piece, whatever the tensors' sizes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.formats import scan
from publisher.formats.scan import BlockCounts, Counts
from publisher.subjects import reading
from publisher.subjects.evidence import Meter
from publisher.subjects.modules import BLOCK, CACHE_SCALARS, SCALARS, is_packed
from publisher.subjects.reading import Codes, Run, fetch, is_local, pieces, plan, readable
from publisher.subjects.scalars import FLOATS, SMOOTHING, scalar_of
from publisher.subjects.scales import stored

STRETCH = 256  # neighbouring blocks that a sample reads at once
FAST_FROM = 2 << 30  # bytes of payload from which on compiling the loop takes less time than it saves
# An NVFP4 scale of at least 2**-5 has its half beside it on the grid; below, producers have no choice of scales left.
LOWEST_FREE = {"nvfp4": 0x10, "mxfp4": 0x02}
HIGHEST = {"nvfp4": 0x7E, "mxfp4": 0xFE}
_HOLDS_WEIGHT = np.arange(256) & 0x77 != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One module's payload beside its block scales, and which blocks of it are looked at.

    Args:
        checkpoint: where it belongs.
        module: the module.
        weight: the packed codes.
        scales: one code per block.
        format: nvfp4 or mxfp4.
        sample: blocks to look at; None for all of them.
    """

    checkpoint: Checkpoint
    module: Module
    weight: TensorRef
    scales: TensorRef
    format: str
    sample: int | None = None

    @property
    def width(self) -> int:
        """Bytes of payload in a block."""
        return BLOCK[self.format] // 2

    @property
    def size(self) -> int:
        """Bytes to read."""
        if self.sample is None or self.sample >= self.scales.size:
            return self.scales.size + self.weight.size
        return sum(end - begin for begin, end in self.stretches()) * (self.width + 1)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """The blocks to look at, as ranges in order."""
        total = self.scales.size
        if self.sample is not None and self.sample < total:
            yield from _stretches(total, self.sample, self.module.name)
            return
        span = reading.SPAN if is_local(self.checkpoint.files, self.weight.shard) else reading.FAR_SPAN
        step = max(1, span // self.width)
        yield from ((begin, min(begin + step, total)) for begin in range(0, total, step))

    def runs(self) -> Iterator[Run]:
        """The reads: of each stretch the scales, then the payload."""
        for begin, end in self.stretches():
            for ref, width in ((self.scales, 1), (self.weight, self.width)):
                yield Run(shard=ref.shard, begin=ref.begin + begin * width, end=ref.begin + end * width, refs=(ref,))

    def first(self, wanted: npt.NDArray[np.bool_], meter: Meter) -> tuple[int, ...] | None:
        """The position (row, block) of the first block whose (scale code, peak) is wanted, a mask (256, 8)."""
        data = fetch(self.checkpoint.files, self.runs(), meter)
        for begin, end in self.stretches():
            scales = next(data)[1].copy()
            hits = wanted[scales, scan.block_peaks(next(data)[1], end - begin)]
            if hits.any():
                place = begin + int(hits.argmax())
                return tuple(int(n) for n in np.unravel_index(place, self.scales.shape or (1,)))
        return None


def _stretches(total: int, sample: int, name: str) -> Iterator[tuple[int, int]]:
    """`sample` of `total` blocks in stretches, one at a random place in each of equally long parts."""
    count = math.ceil(sample / STRETCH)
    chance = random.Random(name)  # the same blocks in every run
    for number in range(count):
        low, high = number * total // count, (number + 1) * total // count
        length = min((number + 1) * sample // count - number * sample // count, high - low)
        begin = low + chance.randrange(high - low - length + 1)
        yield begin, begin + length


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What one module's packed blocks hold.

    Args:
        packed: where they lie.
        counts: blocks by scale code and peak, and bytes.
        meter: counts what is read later.
    """

    packed: Packed
    counts: BlockCounts
    meter: Meter

    @property
    def blocks(self) -> int:
        """Blocks looked at."""
        return int(self.counts.peaks.sum())

    @property
    def zeros(self) -> Counts:
        """Blocks of zeros by scale code, int64 (256,)."""
        return self.counts.peaks[:, 0]

    def global_scale(self) -> float | None:
        """The module's `weight_scale_2`, read now; None where it has none that can be read."""
        ref = self.packed.module.tensors.get("weight_scale_2")
        if ref is None or ref.dtype not in FLOATS or ref.elements != 1 or not readable(self.packed.checkpoint, ref):
            return None
        raw = self.meter.read(self.packed.checkpoint.files, ref.shard, ref.begin, ref.end)
        return float(scalar_of(ref.dtype, np.frombuffer(raw, np.uint8)))

    def first(self, wanted: npt.NDArray[np.bool_]) -> tuple[int, ...] | None:
        """Position of the first block whose (scale code, peak) is wanted, a mask (256, 8)."""
        return self.packed.first(wanted, self.meter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What is kept of a module's blocks.

    Args:
        packed: where they lie.
        blocks: blocks looked at.
        zeros: those that hold nothing but zeros.
        free: the others whose scale is inside the range in which every producer can choose, by their largest magnitude
            code, int64 (8,).
        positive: elements with a code above zero.
        negative: elements with a code below zero.
        top: the most frequent byte that holds a code other than ±0.
        share: its share of all bytes.
    """

    packed: Packed
    blocks: int
    zeros: int
    free: Counts
    positive: int
    negative: int
    top: int
    share: float

    @property
    def dead(self) -> bool:
        """Whether all blocks looked at hold nothing but zeros."""
        return self.zeros == self.blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Payloads:
    """All packed modules of one format, in file order.

    Args:
        checkpoint: where they belong.
        format: nvfp4 or mxfp4.
        tallies: one per module.
        meter: counts what is read later.
    """

    checkpoint: Checkpoint
    format: str
    tallies: tuple[Tally, ...]
    meter: Meter

    def first(self, packed: Packed, peaks: Collection[int]) -> tuple[int, ...] | None:
        """Position of a module's first block counted in `Tally.free` with one of these peaks."""
        wanted = np.zeros((256, 8), np.bool_)
        wanted[LOWEST_FREE[self.format] : HIGHEST[self.format] + 1, sorted(peaks)] = True
        return packed.first(wanted, self.meter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A floating-point tensor that is no scale of FP4.

    Args:
        checkpoint: where it belongs.
        ref: the tensor.
        bad: how many elements are NaN or infinite.
        first: flat index of the first of them.
    """

    checkpoint: Checkpoint
    ref: TensorRef
    bad: int
    first: int | None


PAYLOAD_KINDS: frozenset[type] = frozenset({Payload, Payloads, Plain})


@dataclass(slots=True, kw_only=True)
class PayloadPass:
    """The payloads and plain tensors to read, planned; `read` hands them out in file order, what needs all of it last.

    Args:
        checkpoint: where they belong.
        kinds: what is asked for; what nobody wants is not read.
        meter: counts; what lies beyond the end of its file is counted there and not read.
        sample: blocks per module; None for all.
    """

    checkpoint: Checkpoint
    kinds: Collection[type]
    meter: Meter
    sample: int | None = None
    packed: list[Packed] = field(init=False)
    plain: list[Run] = field(init=False)

    def __post_init__(self) -> None:
        wanted = _packed(self.checkpoint, self.sample) if {Payload, Payloads} & set(self.kinds) else ()
        found = sorted(wanted, key=lambda one: (one.weight.shard, one.weight.begin))
        self.packed = [one for one in found if all(self._there(ref) for ref in (one.scales, one.weight))]
        floats = [ref for ref in _floats(self.checkpoint) if self._there(ref)] if Plain in self.kinds else []
        self.plain = plan(self.checkpoint, floats)
        self.meter.total += sum(ref.size for ref in floats) + sum(one.size for one in self.packed)

    def _there(self, ref: TensorRef) -> bool:
        found = readable(self.checkpoint, ref)
        self.meter.unreadable["payload"] += not found
        return found

    def runs(self) -> Iterator[Run]:
        """The reads, in order."""
        for one in self.packed:
            yield from one.runs()
        yield from self.plain

    def read(self) -> Iterator[Payload | Payloads | Plain]:
        """The subjects.

        Raises:
            CheckpointError: a shard cannot be read at all, or has become shorter.
        """
        tallies: dict[str, list[Tally]] = {}
        for payload in self._payloads():
            if Payload in self.kinds:
                yield payload
            if Payloads in self.kinds:
                tallies.setdefault(payload.packed.format, []).append(_tally(payload))
        for form, own in tallies.items():
            yield Payloads(checkpoint=self.checkpoint, format=form, tallies=tuple(own), meter=self.meter)
        yield from _plain(self.checkpoint, self.plain, self.meter)

    def _payloads(self) -> Iterator[Payload]:
        fast = self.sample is None and sum(one.weight.size for one in self.packed) >= FAST_FROM
        data = fetch(self.checkpoint.files, (run for one in self.packed for run in one.runs()), self.meter)
        for one in self.packed:
            counts = BlockCounts()
            for begin, end in one.stretches():
                scales = next(data)[1].copy()  # the payload is read over it
                counts.add(next(data)[1], scales, fast=fast)
                self.meter.step((end - begin) * (one.width + 1))
            yield Payload(packed=one, counts=counts, meter=self.meter)


def _packed(checkpoint: Checkpoint, sample: int | None) -> Iterator[Packed]:
    """Modules whose payload and scales fit together; a rule on headers names the others."""
    for module in checkpoint.modules.values():
        for one in stored(checkpoint, module):
            weight, width = one.weight, BLOCK[one.format] // 2
            if weight is not None and weight.dtype in {"U8", "I8", "F4"} and weight.size == one.scales.size * width:
                yield Packed(
                    checkpoint=checkpoint,
                    module=module,
                    weight=weight,
                    scales=one.scales,
                    format=one.format,
                    sample=sample,
                )


def _tally(payload: Payload) -> Tally:
    form = payload.packed.format
    free = payload.counts.peaks[LOWEST_FREE[form] : HIGHEST[form] + 1].sum(axis=0)
    free[0] = 0
    codes, values = payload.counts.codes, np.where(_HOLDS_WEIGHT, payload.counts.bytes, 0)
    top = int(values.argmax())
    return Tally(
        packed=payload.packed,
        blocks=payload.blocks,
        zeros=int(payload.zeros.sum()),
        free=free,
        positive=int(codes[1:8].sum()),
        negative=int(codes[9:].sum()),
        top=top,
        share=float(values[top] / payload.counts.bytes.sum()),
    )


def _floats(checkpoint: Checkpoint) -> Iterable[TensorRef]:
    """Floating-point tensors that no rule on scales judges."""
    judged = {"weight_scale", SMOOTHING, *SCALARS}
    for module in checkpoint.modules.values():
        own = {*CACHE_SCALARS, *(judged if is_packed(module) else ())}
        yield from (ref for suffix, ref in module.tensors.items() if ref.dtype in scan.FLOATS and suffix not in own)


def _plain(checkpoint: Checkpoint, runs: Iterable[Run], meter: Meter) -> Iterator[Plain]:
    bad, first = 0, None
    for piece in pieces(checkpoint, runs, meter):
        if piece.offset == 0:
            bad, first = 0, None
        if scan.has_nonfinite(piece.codes, piece.ref.dtype):
            bad, first = _worse(piece.codes, piece.ref.dtype, piece.offset, bad, first)
        if piece.last:
            yield Plain(checkpoint=checkpoint, ref=piece.ref, bad=bad, first=first)


def _worse(codes: Codes, dtype: str, offset: int, bad: int, first: int | None) -> tuple[int, int | None]:
    """The count and the first index with those of another piece."""
    found = scan.nonfinite(codes, dtype)
    place = offset // scan.float_width(dtype) + int(found[0])
    return bad + len(found), place if first is None else first
