"""Which bytes of the shards are read, in which order, and how: planned from headers, then streamed run by run.

A run is what one read fetches: neighbouring tensors with the small gaps between them, or a piece of a long tensor. Runs
come in file order and none is longer than a span, so memory is a span whatever a header claims. Local shards are read
into one reused buffer that fits into a processor's cache; of a repository the next few runs are fetched ahead by a few
threads. A shard that ends before its header says so is an error with its name, never a short array.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.files import Files, LocalFiles
from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.open import Checkpoint
from publisher.errors import CheckpointError
from publisher.subjects.evidence import Meter

SPAN = 1 << 20  # bytes of one local read: a span and what is made of it stay in the second-level cache
GAP = 16 << 10  # bytes worth reading to save a local read
FAR_SPAN = 8 << 20  # the same where a read is a request
FAR_GAP = 256 << 10
AHEAD = 8  # requests under way at once, of a span each

Codes: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one read fetches.

    Args:
        shard: file name.
        begin: first byte in the file.
        end: byte after the last.
        refs: the tensors wanted of it, in file order; one alone where it is a piece of a long tensor.
    """

    shard: str
    begin: int
    end: int
    refs: tuple[TensorRef, ...]

    @property
    def size(self) -> int:
        """Bytes to read, gaps included."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes of one tensor; they are overwritten by the next piece.

    Args:
        ref: the tensor.
        offset: where in the tensor they begin.
        codes: uint8, shape (n,).
    """

    ref: TensorRef
    offset: int
    codes: Codes

    @property
    def whole(self) -> bool:
        """Whether this is all of the tensor."""
        return len(self.codes) == self.ref.size

    @property
    def last(self) -> bool:
        """Whether the tensor ends here."""
        return self.offset + len(self.codes) == self.ref.size


def readable(checkpoint: Checkpoint, ref: TensorRef) -> bool:
    """Whether a tensor's bytes lie inside its file and are as many as dtype and shape need."""
    inside = ref.end <= checkpoint.shards[ref.shard].file_size
    return inside and ref.size * 8 == ref.elements * DTYPE_BITS.get(ref.dtype, 8)


def is_local(files: Files, shard: str) -> bool:
    """Whether a shard lies on this machine."""
    return files.local(shard) is not None


def plan(checkpoint: Checkpoint, refs: Iterable[TensorRef]) -> list[Run]:
    """The reads that fetch these tensors, in file order."""
    runs: list[Run] = []
    group: list[TensorRef] = []
    shard, span, gap = "", SPAN, GAP
    for ref in sorted(refs, key=lambda ref: (ref.shard, ref.begin)):
        if ref.shard != shard:
            shard = ref.shard
            span, gap = (SPAN, GAP) if is_local(checkpoint.files, shard) else (FAR_SPAN, FAR_GAP)
        near = group and ref.shard == group[0].shard and ref.begin - group[-1].end <= gap
        if group and not (near and ref.end - group[0].begin <= span):
            runs += _runs(group)
            group = []
        if ref.size > span:
            starts = range(ref.begin, ref.end, span)
            runs += (Run(shard=shard, begin=at, end=min(at + span, ref.end), refs=(ref,)) for at in starts)
        else:
            group.append(ref)
    return runs + _runs(group)


def _runs(group: list[TensorRef]) -> list[Run]:
    if not group:
        return []
    end = max(ref.end for ref in group)
    return [Run(shard=group[0].shard, begin=group[0].begin, end=end, refs=tuple(group))]


def pieces(checkpoint: Checkpoint, runs: Iterable[Run], meter: Meter) -> Iterator[Piece]:
    """The runs' tensors piece by piece, in order.

    Raises:
        CheckpointError: a shard cannot be read, or is shorter than its header says.
    """
    for run, data in fetch(checkpoint.files, runs, meter):
        for ref in run.refs:
            begin, end = max(ref.begin, run.begin), min(ref.end, run.end)
            meter.step(end - begin)
            yield Piece(ref=ref, offset=begin - ref.begin, codes=data[begin - run.begin : end - run.begin])


def fetch(files: Files, runs: Iterable[Run], meter: Meter) -> Iterator[tuple[Run, Codes]]:
    """Each run with its bytes, uint8 (run.size,); the array is overwritten by the next run.

    Raises:
        CheckpointError: a shard cannot be read, or is shorter than its header says.
    """
    source = _local(files, runs) if isinstance(files, LocalFiles) else _ahead(files, runs)
    for run, data in source:
        if len(data) != run.size:
            raise CheckpointError(
                f"{run.shard} ends inside the tensor {run.refs[-1].name} (byte {run.begin + len(data):,} of "
                f"{run.end:,}); it has become shorter since its header was read.",
                hint="Wait until nothing writes to the checkpoint, or copy the shard again.",
            )
        meter.bytes_read += run.size
        yield run, data


def _local(files: LocalFiles, runs: Iterable[Run]) -> Iterator[tuple[Run, Codes]]:
    """Read into one buffer, with one file open at a time; a read never maps the file, so that shrinking is harmless."""
    buffer = np.empty(SPAN, np.uint8)
    name, file = "", None
    try:
        for run in runs:
            if file is None or run.shard != name:
                if file is not None:
                    file.close()
                name, file = run.shard, _open(files, run.shard)
            if run.size > len(buffer):
                buffer = np.empty(run.size, np.uint8)
            yield run, buffer[: _fill(file, run, buffer)]
    finally:
        if file is not None:
            file.close()


def _open(files: LocalFiles, shard: str) -> FileIO:
    try:
        return FileIO(files.root / shard)
    except OSError as error:
        raise _unreadable(files, shard, error) from None


def _fill(file: FileIO, run: Run, buffer: Codes) -> int:
    """Bytes read into the buffer's start; fewer than the run's where the file ends."""
    view, done = buffer.data[: run.size], 0
    try:
        file.seek(run.begin)
        while done < run.size:
            count = file.readinto(view[done:])
            if not count:
                break
            done += count
    except OSError as error:
        raise CheckpointError(
            f"{run.shard} cannot be read at byte {run.begin + done:,}: {error.strerror or error}.",
            hint="Copy or download the file again.",
        ) from None
    return done


def _unreadable(files: Files, shard: str, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{shard} of {files.label} cannot be read: {error.strerror or error}.", hint="Copy or download the file again."
    )


def _ahead(files: Files, runs: Iterable[Run]) -> Iterator[tuple[Run, Codes]]:
    """Fetch the next runs while one is looked at; as many are held as are under way, and no more."""
    waiting: deque[tuple[Run, Future[bytes]]] = deque()
    with ThreadPoolExecutor(max_workers=AHEAD, thread_name_prefix="read-ahead") as pool:
        try:
            for run in runs:
                waiting.append((run, pool.submit(files.read, run.shard, run.begin, run.end)))
                if len(waiting) >= AHEAD:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _next(waiting: deque[tuple[Run, Future[bytes]]]) -> tuple[Run, Codes]:
    run, future = waiting.popleft()
    return run, np.frombuffer(future.result(), np.uint8)
