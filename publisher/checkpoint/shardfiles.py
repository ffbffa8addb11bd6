"""Shards while they are written: tensors in any order to where the layout puts them, full shards flushed and hashed.

A shard is a `.partial` file until it is full. What a full one still needs, its flush to the disk and its digest, is
done by a thread of its own while the next shard is being written; data are flushed as they come, so that little is
left for the end. Whoever owns the files says in `finished` what becomes of a shard then (see `writer`, and the
workers of the quantizer). At most `PENDING` full shards wait; then writing waits for them.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from publisher.checkpoint.disk import disk_errors
from publisher.checkpoint.layout import ShardLayout, TensorSpec
from publisher.errors import CheckpointError

PARTIAL = ".partial"
PENDING = 2
_STEP = 8 << 20
_FLUSH = 64 << 20  # bytes of a shard written between two flushes

Entry = dict[str, Any]
"""What is known of a finished shard: `size`, `sha256`, and `notes` beside its tensors."""


class ShardFiles:
    """The shards of a layout, written under a folder.

    Args:
        folder: where; exists.
        layout: the shards that may be written.
        finished: called in another thread with each shard whose bytes are on the disk, still under its `.partial` name.
        needed: bytes still to be written, for the message when the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        layout: Sequence[ShardLayout],
        finished: Callable[[ShardLayout, Entry], None],
        needed: Callable[[], int],
    ) -> None:
        self._folder, self._finished, self._needed = folder, finished, needed
        self._places: dict[str, tuple[ShardLayout, TensorSpec]] = {
            spec.name: (shard, spec) for shard in layout for spec in shard.specs
        }
        self._open: dict[str, int] = {}
        self._missing: dict[str, set[str]] = {}
        self._unflushed: dict[str, int] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._closer = ThreadPoolExecutor(1, "flush")
        self._closing: deque[Future[None]] = deque()
        self._flushing: deque[Future[None]] = deque()

    def shard_of(self, name: str) -> ShardLayout:
        """The shard a tensor belongs to."""
        return self._places[name][0]

    def write(self, name: str, chunks: Iterable[bytes | memoryview], note: Any = None) -> None:
        """Write one tensor; its shard is full with its last tensor. One thread at a time.

        Args:
            name: a tensor of the layout, in any order, once.
            chunks: its bytes, row-major and little-endian, in pieces.
            note: JSON kept beside the tensor in the shard's entry.

        Raises:
            CheckpointError: the pieces add up to another size than the layout says, or the tensor was written before.
            EngineError: the disk is full, here or when an earlier shard was flushed.
        """
        shard, spec = self._places[name]
        with disk_errors(self._folder, self._needed()):
            self._collect(self._closing, PENDING)
            self._collect(self._flushing, 1)
            descriptor = self._descriptor(shard)
            if name not in self._missing[shard.name]:
                raise CheckpointError(f"The tensor {name} was written before.")
            self._pour(descriptor, spec, shard.offsets[name], chunks)
            self._missing[shard.name].discard(name)
            if note is not None:
                self._notes.setdefault(shard.name, {})[name] = note
            self._after(shard, spec.size)

    def _pour(self, descriptor: int, spec: TensorSpec, begin: int, chunks: Iterable[bytes | memoryview]) -> None:
        position, end = begin, begin + spec.size
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            if position + len(view) > end:
                raise CheckpointError(f"More bytes came for {spec.name} than its {spec.size:,}.")
            position = _write_all(descriptor, view, position)
        if position != end:
            raise CheckpointError(f"{end - position:,} of {spec.size:,} bytes are missing for {spec.name}.")

    def _after(self, shard: ShardLayout, size: int) -> None:
        """Flush from time to time; close what is full."""
        self._unflushed[shard.name] += size
        if not self._missing[shard.name]:
            self._closing.append(self._closer.submit(self._close_shard, shard))
        elif self._unflushed[shard.name] >= _FLUSH and not self._flushing:
            self._unflushed[shard.name] = 0
            self._flushing.append(self._closer.submit(os.fdatasync, self._open[shard.name]))

    def _descriptor(self, shard: ShardLayout) -> int:
        if shard.name not in self._open:
            path = self._folder / (shard.name + PARTIAL)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            self._open[shard.name] = descriptor
            self._missing[shard.name] = set(shard.offsets)
            self._unflushed[shard.name] = 0
            os.fchmod(descriptor, 0o644)
            _write_all(descriptor, memoryview(shard.header), 0)
        return self._open[shard.name]

    def _close_shard(self, shard: ShardLayout) -> None:
        os.fsync(self._open[shard.name])
        digest = sha256(self._folder / (shard.name + PARTIAL))
        os.close(self._open.pop(shard.name))
        entry = {"size": shard.size, "sha256": digest, "notes": self._notes.pop(shard.name, {})}
        self._finished(shard, entry)

    def _collect(self, futures: deque[Future[None]], allowed: int) -> None:
        """Raise what went wrong behind our back; wait while more than so many are not done."""
        while futures and (len(futures) > allowed or futures[0].done()):
            futures.popleft().result()

    def wait(self) -> None:
        """Wait until every full shard was handed over.

        Raises:
            EngineError: the disk is full.
        """
        with disk_errors(self._folder, self._needed()):
            self._collect(self._flushing, 0)
            self._collect(self._closing, 0)

    def close(self) -> None:
        """Close open files once the full shards are handed over; what is not full stays `.partial`."""
        self._closer.shutdown()
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


def sha256(path: Path) -> str:
    """A file's digest, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_all(descriptor: int, view: memoryview, position: int) -> int:
    while len(view):
        count = os.pwrite(descriptor, view[:_STEP], position)
        position += count
        view = view[count:]
    return position
