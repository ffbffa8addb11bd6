"""Write packed FP4 weights sparsely, or as they were before: shard by shard, run of rows by run of rows.

Memory holds a few runs of rows and the metadata of one tensor. A kill leaves a staging folder that the next run goes on
with. The digest of every dense shard is taken while it is read and kept; on the way back each shard must have it again,
so nothing is given a final name that is not, byte for byte, what there was.

Refused by name: a group of eight with more than two pairs, or with a negative zero beside two of them; metadata that
`formats.sparse` does not write; a shard that does not become what it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from publisher import __version__, jsonio
from publisher.checkpoint.files import LocalFiles
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.sidefiles import CONFIG
from publisher.checkpoint.stamps import stamps
from publisher.checkpoint.writer import StagedWriter, already_done, clear, disk_errors
from publisher.errors import CheckpointError
from publisher.formats import sparse
from publisher.formats.blocks import TensorError, UInt8Array
from publisher.repair.sparse import DENSE, DIGESTS, REPLACED, Pair, Rewriting, by_place, declared_config, folder_of

_PIECE = 8 << 20
_RUN = 2 << 20  # bytes of packed codes that one thread works on
Progress = Callable[[int, int], None]
T = TypeVar("T")


def write(made: Rewriting, output: Path, *, progress: Progress | None = None) -> Path:
    """Write the converted checkpoint.

    Args:
        made: what `to_sparse` or `to_dense` found.
        output: the new folder; must not exist, unless this very conversion made it.
        progress: called with (bytes read, bytes in all).

    Returns:
        The new folder.

    Raises:
        CheckpointError: the output exists, or a weight cannot be stored without loss.
        EngineError: the disk is full.
    """
    files = folder_of(made.checkpoint)
    output = output.absolute()
    if output.resolve().is_relative_to(files.root.resolve()):
        raise CheckpointError(f"{output} lies inside the checkpoint.", hint="Name a folder beside it.")
    staging = output.with_name(f".{output.name}.convert")
    if already_done(output, made.digest):
        clear(staging)
        return output
    wanted = _kept_digests(made, files)
    stamp = stamps(files.root, made.checkpoint.shards)
    meter = _Meter(made, progress)
    with (
        StagedWriter(staging, output, made.layout, plan_digest=made.digest, source=stamp) as writer,
        ThreadPoolExecutor(os.cpu_count() or 1, "sparse") as pool,
    ):
        for name in made.checkpoint.shards:
            _Shard(made, name, writer, pool, meter).write()
        writer.wait()
        names = _documents(made, files, writer, wanted)
        record = {"schema": 1, "engine": "convert", "versions": {"publisher": __version__}, "side_files": names}
        writer.finish(record, index=made.to == "sparse")
    return output


class _Meter:
    """Counts what was read."""

    def __init__(self, made: Rewriting, progress: Progress | None) -> None:
        self._done, self._progress = 0, progress
        self._total = sum(ref.size for header in made.checkpoint.shards.values() for ref in header.tensors)

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Shard:
    """One shard's tensors, in the order they lie in it.

    Args:
        made: what is written.
        name: the shard's.
        writer: where to.
        pool: works on runs of rows.
        meter: counts.
    """

    def __init__(self, made: Rewriting, name: str, writer: StagedWriter, pool: ThreadPoolExecutor, meter: _Meter):
        self._made, self._writer, self._pool, self._meter = made, writer, pool, meter
        self._header = made.checkpoint.shards[name]
        self._refs = {ref.name: ref for ref in self._header.tensors}
        self._hash = hashlib.sha256()

    def write(self) -> None:
        """Write what is not finished yet; a finished shard is passed over whole."""
        if self._header.shard in self._writer.finished:
            self._meter.add(sum(ref.size for ref in self._header.tensors))
            return
        if self._made.to == "dense":
            self._write_dense()
            return
        checkpoint, last = self._made.checkpoint, by_place(self._header)[-1:]
        self._hash.update(checkpoint.files.read(self._header.shard, 0, self._header.data_start))
        for ref in by_place(self._header):
            note: dict[str, str] | None = {} if ref in last else None
            pair = self._made.pairs.get(ref.name)
            if pair is None:
                self._writer.write(ref.name, self._noted(self._read(ref), note), note)
            else:
                self._compress(ref, pair, note)

    def _noted(self, pieces: Iterator[bytes], note: dict[str, str] | None) -> Iterator[bytes]:
        """The pieces; after the shard's last one its digest is noted."""
        yield from pieces
        if note is not None:
            note["dense"] = self._hash.hexdigest()

    def _read(self, ref: TensorRef, step: int = _PIECE) -> Iterator[bytes]:
        for piece in self._made.checkpoint.chunks(ref, step):
            self._hash.update(piece)
            self._meter.add(len(piece))
            yield piece

    # --- to sparse ---------------------------------------------------------------------------------------------

    def _compress(self, ref: TensorRef, pair: Pair, note: dict[str, str] | None) -> None:
        metadata = np.zeros(pair.metadata.shape, np.uint8)
        width = ref.shape[1]
        step = max(1, _RUN // width)

        def work(number: int, piece: bytes) -> UInt8Array:
            first = number * step
            rows = np.frombuffer(piece, np.uint8).reshape(-1, width)
            with _named(ref):
                kept, metadata[:, first : first + len(rows)] = sparse.compress(rows, first)
            return kept

        kept = _in_order(self._pool, work, self._read(ref, step * width))
        self._writer.write(pair.kept.name, (rows.tobytes() for rows in kept))
        self._writer.write(pair.metadata.name, self._noted(iter([metadata.tobytes()]), note), note)

    # --- to dense ----------------------------------------------------------------------------------------------

    def _write_dense(self) -> None:
        layout = next(shard for shard in self._made.layout if shard.name == self._header.shard)
        for spec in layout.specs:
            pair = self._made.pairs.get(spec.name)
            pieces = self._read(self._refs[spec.name]) if pair is None else self._expand(pair)
            self._writer.write(spec.name, pieces)

    def _expand(self, pair: Pair) -> Iterator[bytes]:
        ref, width = self._refs[pair.kept.name], pair.kept.shape[1]
        stored = b"".join(self._read(self._refs[pair.metadata.name]))
        metadata = np.frombuffer(stored, np.uint8).reshape(pair.metadata.shape)
        step = max(1, _RUN // width)
        with _named(ref):
            if metadata[:, pair.dense.shape[0] :].any():
                raise TensorError("Its metadata have rows that it does not have.")

        def work(number: int, piece: bytes) -> UInt8Array:
            first = number * step
            rows = np.frombuffer(piece, np.uint8).reshape(-1, width)
            with _named(ref):
                return sparse.expand(rows, metadata[:, first : first + len(rows)], pair.columns, first)

        for rows in _in_order(self._pool, work, self._read(ref, step * width)):
            yield rows.tobytes()


@contextmanager
def _named(ref: TensorRef) -> Iterator[None]:
    """Put a tensor's name before what is wrong with it."""
    try:
        yield
    except TensorError as error:
        raise CheckpointError(f"{ref.shard}: {ref.name}: {error.message}", hint=error.hint) from None


def _in_order(pool: ThreadPoolExecutor, work: Callable[[int, bytes], T], pieces: Iterator[bytes]) -> Iterator[T]:
    """Results of work on every piece, in order; a few pieces at a time."""
    waiting: deque[Future[T]] = deque()
    for number, piece in enumerate(pieces):
        waiting.append(pool.submit(work, number, piece))
        if len(waiting) > 2 * (os.cpu_count() or 1):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


# --- documents -----------------------------------------------------------------------------------------------------


def _documents(made: Rewriting, files: LocalFiles, writer: StagedWriter, wanted: Mapping[str, str]) -> list[str]:
    """Put every file that is no shard in its place; the names written, sorted."""
    others = [name for name in files.sizes if name not in made.checkpoint.shards]
    if made.to == "sparse":
        found = {name: REPLACED.get(name, name) for name in others}
    else:
        _refuse_other_bytes(writer, wanted)
        back = {aside: name for name, aside in REPLACED.items() if aside in others}
        kept = {name: name for name in others if name not in REPLACED and not name.startswith(f"{DENSE}/")}
        found = kept | back
    with disk_errors(writer.staging, sum(files.sizes[name] for name in found)):
        for old, new in found.items():
            _copy(files.root / old, writer.files / new)
        if made.to == "sparse":
            text = json.dumps(declared_config(made), indent=2, ensure_ascii=False) + "\n"
            jsonio.write_atomic(writer.files / CONFIG, text)
            digests = {"sha256": _noted_digests(writer)}
            jsonio.write_atomic(writer.files / DENSE / DIGESTS, jsonio.dump_json(digests))
    return sorted(found.values())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _noted_digests(writer: StagedWriter) -> dict[str, str]:
    """What each dense shard's digest was, in this run and those before it."""
    return {
        name: note["dense"]
        for name, entry in sorted(writer.finished.items())
        for note in entry["notes"].values()
        if "dense" in note
    }


def _kept_digests(made: Rewriting, files: LocalFiles) -> Mapping[str, str]:
    """What the dense shards must become; empty on the way there."""
    if made.to == "sparse":
        return {}
    where = f"{files.label}/{DENSE}/{DIGESTS}"
    name = f"{DENSE}/{DIGESTS}"
    found = jsonio.loads_json(files.read(name), where) if name in files.sizes else {}
    digests = found.get("sha256") if isinstance(found, Mapping) else None
    if not isinstance(digests, Mapping) or digests.keys() != made.checkpoint.shards.keys():
        raise CheckpointError(f"{where} does not tell the digest of every dense shard.", hint="Copy the folder again.")
    return digests


def _refuse_other_bytes(writer: StagedWriter, wanted: Mapping[str, str]) -> None:
    other = sorted(name for name, entry in writer.finished.items() if entry["sha256"] != wanted[name])
    if other:
        raise CheckpointError(
            f"{len(other)} of {len(wanted)} shards do not become what they were, first {other[0]}.",
            hint="The sparse checkpoint is damaged; copy or download it again.",
        )
