"""Whether tensors of two checkpoints hold the same bits, streamed, and where they first differ.

Tensors that lie alike on both sides are read together, so that a checkpoint of many small scalars costs few reads;
longer ones piece by piece. Memory is bounded by two pieces. A file that is the same file on disk is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from publisher.checkpoint.files import Files
from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.open import Checkpoint

PIECE = 8 << 20
GAP = 64 << 10

Pair = tuple[TensorRef, TensorRef]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueChange:
    """One tensor whose bits differ.

    Args:
        name: the tensor.
        elements: stored elements that differ (bytes, where an element is less than one).
        first: position of the first of them, None where it could not be read on one side.
    """

    name: str
    elements: int
    first: tuple[int, ...] | None


def compare(
    before: Checkpoint, after: Checkpoint, pairs: Iterable[Pair], *, progress: Callable[[int, int], None] | None = None
) -> Iterator[ValueChange]:
    """The tensors that differ, in the file order of `before`.

    Args:
        before: one checkpoint.
        after: the other.
        pairs: the same tensor of both, of equal dtype and shape.
        progress: called with (bytes done, bytes in all), of one side.
    """
    ordered = sorted(pairs, key=lambda pair: (pair[0].shard, pair[0].begin))
    same: dict[tuple[str, str], bool] = {}
    kept = []
    for own, other in ordered:
        files = own.shard, other.shard
        if files not in same:
            same[files] = _same_file(before.files, after.files, *files)
        if not (same[files] and own.begin == other.begin):
            kept.append((own, other))
    total, done = sum(own.size for own, _ in kept), 0
    for run in _runs(kept):
        yield from _compare(before.files, after.files, run)
        done += sum(own.size for own, _ in run)
        if progress is not None:
            progress(done, total)


def _same_file(before: Files, after: Files, one: str, other: str) -> bool:
    paths = before.local(one), after.local(other)
    try:
        return paths[0] is not None and paths[1] is not None and paths[0].samefile(paths[1])
    except OSError:
        return False


def _runs(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Pairs that lie equally far apart on both sides, at most a piece together."""
    run: list[Pair] = []
    for own, other in pairs:
        if run:
            first, twin = run[0]
            last = run[-1][0]
            alike = own.shard == first.shard and other.shard == twin.shard
            alike = alike and own.begin - first.begin == other.begin - twin.begin and own.begin >= last.end
            if not (alike and own.begin - last.end <= GAP and own.end - first.begin <= PIECE):
                yield run
                run = []
        run.append((own, other))
    if run:
        yield run


def _compare(before: Files, after: Files, run: Sequence[Pair]) -> Iterator[ValueChange]:
    (first, twin), last = run[0], run[-1][0]
    if len(run) == 1:
        change = _tensor(before, after, first, twin)
        if change is not None:
            yield change
        return
    length = last.end - first.begin
    one = before.read(first.shard, first.begin, last.end)
    other = after.read(twin.shard, twin.begin, twin.begin + length)
    if one == other and len(one) == length:
        return
    for own, _ in run:
        begin, end = own.begin - first.begin, own.end - first.begin
        differs = _piece(own, 0, one[begin:end], other[begin:end], end - begin)
        if differs is not None:
            yield ValueChange(name=own.name, elements=differs[0], first=_index(own, differs[1]))


def _tensor(before: Files, after: Files, own: TensorRef, other: TensorRef) -> ValueChange | None:
    """One tensor, piece by piece."""
    count, first = 0, None
    for at in range(0, own.size, PIECE):
        end = min(at + PIECE, own.size)
        pieces = (
            before.read(own.shard, own.begin + at, own.begin + end),
            after.read(other.shard, other.begin + at, other.begin + end),
        )
        differs = _piece(own, at, *pieces, end - at)
        if differs is None:
            continue
        if differs[1] is None:
            return ValueChange(name=own.name, elements=own.elements, first=None)
        count += differs[0]
        first = differs[1] if first is None else first
    return None if first is None else ValueChange(name=own.name, elements=count, first=_index(own, first))


def _piece(own: TensorRef, at: int, one: bytes, other: bytes, length: int) -> tuple[int, int | None] | None:
    """(elements that differ, the first one's flat position) of equal pieces; (all, None) where one is too short."""
    if len(one) != length or len(other) != length:
        return own.elements, None
    if one == other:
        return None
    width = max(DTYPE_BITS.get(own.dtype, 8) // 8, 1)
    whole = length // width * width
    left, right = (np.frombuffer(data, np.uint8, whole).reshape(-1, width) for data in (one, other))
    places = np.flatnonzero((left != right).any(axis=1))
    if not len(places):  # a length that is no multiple of the element
        return 1, (at + whole) // width
    return len(places), at // width + int(places[0])


def _index(own: TensorRef, flat: int | None) -> tuple[int, ...] | None:
    if flat is None:
        return None
    if 0 <= flat < own.elements and 0 not in own.shape and DTYPE_BITS.get(own.dtype, 8) >= 8:
        place: list[int] = []
        for size in reversed(own.shape):
            flat, rest = divmod(flat, size)
            place.insert(0, rest)
        return tuple(place)
    return (flat,)
