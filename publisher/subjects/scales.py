"""Block scales, scalars and fused groups, read in one pass in file order.

Neighbours share a read; a tensor longer than a piece is counted piece by piece, so memory stays bounded whatever the
checkpoint's size. Tensors that lie beyond the end of their file are not read; the meter keeps their number so that
nobody takes them for checked. A block's payload is read only where a rule asks about it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module, fused_group_of, fused_groups
from publisher.checkpoint.open import Checkpoint
from publisher.subjects.evidence import PIECE, Meter
from publisher.subjects.modules import BLOCK, SCALARS, is_packed, module_format

GAP = 64 << 10  # bytes worth reading to save a read
WIDTHS = {"F32": 4, "BF16": 2, "F16": 2}

Places: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockScales:
    """The block scales of one module.

    Args:
        checkpoint: where it belongs.
        module: the module.
        ref: its `weight_scale`.
        format: nvfp4 (E4M3 codes) or mxfp4 (E8M0 codes).
        histogram: how often each of the 256 codes occurs, shape (256,).
        meter: counts what is read later.
        data: the codes, where the tensor fits into one piece.
    """

    checkpoint: Checkpoint
    module: Module
    ref: TensorRef
    format: str
    histogram: npt.NDArray[np.int64]
    meter: Meter
    data: bytes | None

    def count(self, *codes: int) -> int:
        """How many scales have one of these codes."""
        return int(sum(self.histogram[code] for code in codes))

    def places(self, *codes: int) -> Iterator[Places]:
        """Flat positions of these codes, in order, at most one piece of the tensor at a time."""
        for begin in range(0, self.ref.size, PIECE):
            data = self.data if self.data is not None else self._piece(self.ref, begin, begin + PIECE)
            found = np.flatnonzero(np.isin(np.frombuffer(data, np.uint8), codes))
            if len(found):
                yield found.astype(np.int64) + begin

    def index(self, place: int) -> tuple[int, ...]:
        """The position (row, block) of a flat position."""
        return tuple(int(n) for n in np.unravel_index(place, self.ref.shape)) if self.ref.shape else ()

    def nonzero(self, places: Places) -> tuple[int, int | None]:
        """How many of these blocks hold a code other than ±0, and the first of them.

        Reads the blocks' payload only; (0, None) where payload and scales do not fit together.
        """
        weight, width = self.module.weight, BLOCK[self.format] // 2
        if weight is None or weight.size != self.ref.size * width:
            return 0, None
        total, first = 0, None
        for run in _runs(places, GAP // width, PIECE // width):
            begin = int(run[0])
            raw = np.frombuffer(self._piece(weight, begin * width, (int(run[-1]) + 1) * width), np.uint8)
            blocks = raw[: len(raw) // width * width].reshape(-1, width)[(run - begin)[: len(raw) // width]]
            hit = np.flatnonzero((blocks & 0x77).any(axis=1))
            total += len(hit)
            if first is None and len(hit):
                first = int(run[hit[0]])
        return total, first

    def _piece(self, ref: TensorRef, begin: int, end: int) -> bytes:
        return self.meter.read(self.checkpoint.files, ref.shard, ref.begin + begin, min(ref.begin + end, ref.end))


def _runs(places: Places, gap: int, span: int) -> Iterator[Places]:
    """Cut sorted positions where a hole is wider than `gap`, and every `span` positions."""
    for run in np.split(places, np.flatnonzero(np.diff(places) > gap) + 1):
        while len(run):
            cut = int(np.searchsorted(run, run[0] + span))
            yield run[:cut]
            run = run[cut:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalars:
    """All scalars of one kind.

    Args:
        checkpoint: where they belong.
        suffix: such as `weight_scale_2`.
        refs: their tensors, in file order.
        values: float32, shape (n,).
    """

    checkpoint: Checkpoint
    suffix: str
    refs: tuple[TensorRef, ...]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedGroup:
    """Modules that become one layer in the engines, with their global scales.

    Args:
        checkpoint: where they belong.
        name: the fused layer.
        kind: its last name part: qkv_proj, gate_up_proj, fused_qkv_a_proj or w13.
        role: the members' role.
        suffix: the global scale's name: weight_scale_2 or weight_global_scale.
        refs: the members' global scales.
        values: the same as numbers.
        bits: the same as bit patterns.
    """

    checkpoint: Checkpoint
    name: str
    kind: str
    role: str
    suffix: str
    refs: tuple[TensorRef, ...]
    values: tuple[float, ...]
    bits: tuple[int, ...]


def read_scales(
    checkpoint: Checkpoint, kinds: Collection[type], meter: Meter
) -> Iterator[BlockScales | Scalars | FusedGroup]:
    """One pass over scales and scalars in file order; what needs all scalars comes last.

    Raises:
        CheckpointError: a shard cannot be read at all.
    """
    blocks: dict[str, tuple[Module, str]] = {}
    scalars: dict[str, str] = {}
    for module in filter(is_packed, checkpoint.modules.values()):
        form = module_format(checkpoint, module)
        ref = module.tensors.get("weight_scale")
        if BlockScales in kinds and ref is not None and form is not None and ref.dtype in {"U8", "F8_E4M3", "F8_E8M0"}:
            blocks[ref.name] = module, form
        for suffix in SCALARS:
            scalar = module.tensors.get(suffix)
            if scalar is not None and scalar.dtype in WIDTHS and scalar.shape in ((), (1,)):
                scalars[scalar.name] = suffix
    refs = [checkpoint.tensors[name] for name in (*blocks, *scalars)]
    values: dict[str, dict[TensorRef, np.float32]] = {}
    for ref, histogram, data in _counted(checkpoint, _readable(checkpoint, refs, meter), meter):
        if ref.name in blocks:
            module, form = blocks[ref.name]
            yield BlockScales(
                checkpoint=checkpoint,
                module=module,
                ref=ref,
                format=form,
                histogram=histogram,
                meter=meter,
                data=data,
            )
        elif data is not None and len(data) == WIDTHS[ref.dtype]:
            values.setdefault(scalars[ref.name], {})[ref] = _value(ref.dtype, data)
    for suffix, found in values.items():
        if Scalars in kinds:
            numbers = np.array(list(found.values()), np.float32)
            yield Scalars(checkpoint=checkpoint, suffix=suffix, refs=tuple(found), values=numbers)
    if FusedGroup in kinds:
        for suffix in ("weight_scale_2", "weight_global_scale"):
            yield from _groups(checkpoint, suffix, values.get(suffix, {}))


def _readable(checkpoint: Checkpoint, refs: Iterable[TensorRef], meter: Meter) -> list[TensorRef]:
    """The tensors whose bytes exist, in file order."""
    found, lost = [], 0
    for ref in refs:
        header = checkpoint.shards[ref.shard]
        if ref.end <= header.file_size and ref.size == ref.elements * WIDTHS.get(ref.dtype, 1):
            found.append(ref)
        else:
            lost += 1
    meter.unreadable += lost
    meter.total += sum(ref.size for ref in found)
    return sorted(found, key=lambda ref: (ref.shard, ref.begin))


def _counted(
    checkpoint: Checkpoint, refs: list[TensorRef], meter: Meter
) -> Iterator[tuple[TensorRef, npt.NDArray[np.int64], bytes | None]]:
    """Each tensor with the histogram of its bytes, and its bytes where they fit into one piece."""
    for run in _neighbours(refs):
        begin, end = run[0].begin, max(ref.end for ref in run)
        if len(run) == 1 and end - begin > PIECE:
            histogram = np.zeros(256, np.int64)
            for at in range(begin, end, PIECE):
                piece = meter.read(checkpoint.files, run[0].shard, at, min(at + PIECE, end))
                histogram += _histogram(piece)
                meter.step(len(piece))
            yield run[0], histogram, None
            continue
        data = meter.read(checkpoint.files, run[0].shard, begin, end)
        for ref in run:
            own = data[ref.begin - begin : ref.end - begin]
            meter.step(len(own))
            yield ref, _histogram(own), own


def _neighbours(refs: list[TensorRef]) -> Iterator[list[TensorRef]]:
    """Tensors close enough to one another for one read of at most a piece."""
    run: list[TensorRef] = []
    for ref in refs:
        near = run and ref.shard == run[0].shard and ref.begin - run[-1].end <= GAP
        if run and not (near and ref.end - run[0].begin <= PIECE):
            yield run
            run = []
        run.append(ref)
    if run:
        yield run


def _histogram(data: bytes) -> npt.NDArray[np.int64]:
    """Counts of the 256 byte values; pairs are counted at once, which halves the work on long tensors."""
    if len(data) < 1 << 16:
        return np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    even = len(data) // 2 * 2
    pairs = np.bincount(np.frombuffer(data, np.uint16, even // 2), minlength=1 << 16).reshape(256, 256)
    counts: npt.NDArray[np.int64] = pairs.sum(axis=0) + pairs.sum(axis=1)
    if even != len(data):
        counts[data[-1]] += 1
    return counts


def _value(dtype: str, data: bytes) -> np.float32:
    if dtype == "BF16":
        return np.float32(np.frombuffer(b"\0\0" + data, "<f4")[0])
    return np.float32(np.frombuffer(data, "<f4" if dtype == "F32" else "<f2")[0])


def _groups(checkpoint: Checkpoint, suffix: str, values: Mapping[TensorRef, np.float32]) -> Iterator[FusedGroup]:
    refs = {ref.name.rpartition(".")[0]: ref for ref in values}
    for name, members in fused_groups(sorted(refs)).items():
        own = tuple(refs[member] for member in members)
        numbers = np.array([values[ref] for ref in own], np.float32)
        yield FusedGroup(
            checkpoint=checkpoint,
            name=name,
            kind=(fused_group_of(members[0]) or name).rpartition(".")[2],
            role=checkpoint.modules[members[0]].role,
            suffix=suffix,
            refs=own,
            values=tuple(float(number) for number in numbers),
            bits=tuple(int(bit) for bit in numbers.view(np.uint32)),
        )
