"""A checkpoint written so that its final name appears only when every byte is there.

Tensors go to `.partial` files at the offsets `layout.py` decided; no shard is ever held in memory. A full shard is
flushed, hashed, renamed and entered in a ledger, and a restart goes on after it. Only an explicit `finish` writes the
index and renames the folder to its final name; leaving early never does. Refused: a final name that is taken.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from publisher import jsonio
from publisher.checkpoint.disk import disk_errors as disk_errors
from publisher.checkpoint.disk import lock, require_room, require_same_disk, sync
from publisher.checkpoint.layout import ShardLayout
from publisher.checkpoint.open import INDEX
from publisher.errors import CheckpointError

LEDGER = "ledger.json"
FILES = "files"
RECORD_SUFFIX = ".quantize.json"
PARTIAL = ".partial"
_STEP = 8 << 20


def record_path(output: Path) -> Path:
    """Where the record of how a checkpoint was made lies: beside it, `<output>.quantize.json`."""
    return output.with_name(output.name + RECORD_SUFFIX)


def already_done(output: Path, plan_digest: str) -> bool:
    """Whether `output` is there and was made by this very plan.

    Raises:
        CheckpointError: something else is there.
    """
    if not os.path.lexists(output):
        return False
    record = record_path(output)
    if record.is_file() and output.is_dir():
        found = jsonio.load_json(record)
        if isinstance(found, Mapping) and found.get("plan_digest") == plan_digest:
            return True
    raise CheckpointError(
        f"{output} exists already and was not made by this plan.",
        hint="Choose another run directory, or move that folder away.",
    )


def commit(folder: Path, output: Path, plan_digest: str, record: Mapping[str, Any]) -> None:
    """Give a complete folder its final name: record beside it first, then one rename, both flushed to the disk.

    Args:
        folder: the staged checkpoint, on the file system of `output`.
        output: the final name; must not exist.
        plan_digest: stamped into the record as `plan_digest`.
        record: what else the record tells (`quantize.json`).

    Raises:
        CheckpointError: `output` exists.
        EngineError: the disk is full or the rename failed.
    """
    if already_done(output, plan_digest):
        return
    with disk_errors(output, 0):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                os.chmod(path, 0o644)
            sync(path)
        sync(folder)
        output.parent.mkdir(parents=True, exist_ok=True)
        jsonio.write_atomic(record_path(output), jsonio.dump_json({**record, "plan_digest": plan_digest}))
        os.rename(folder, output)
        sync(output.parent)


class StagedWriter:
    """Writes the shards of one checkpoint under `staging`, and renames them to `output` on `finish`.

    A context manager that only closes files: an exception, or no call of `finish`, leaves `staging` to go on from.

    Args:
        staging: folder to work in; `files/` in it becomes the checkpoint, `ledger.json` lists finished shards.
        output: the final folder; must not exist (see `already_done`).
        layout: from `layout.plan_shards`.
        plan_digest: what a ledger must belong to for its shards to be kept; anything else starts over.
        verify: hash the shards a ledger names before trusting them, instead of comparing sizes only.

    Raises:
        CheckpointError: `output` exists, or lies inside `staging` or on another file system, or another process works
            in `staging`.
        EngineError: the disk has no room for what is not written yet.
    """

    def __init__(
        self,
        staging: Path,
        output: Path,
        layout: Sequence[ShardLayout],
        *,
        plan_digest: str,
        verify: bool = False,
    ) -> None:
        if output.absolute().is_relative_to(staging.absolute()):
            raise CheckpointError(f"The output {output} lies inside the staging folder {staging}.")
        if already_done(output, plan_digest):
            raise CheckpointError(f"{output} is complete already.")
        require_same_disk(staging, output)
        self.staging, self.output, self.layout, self.plan_digest = staging, output, tuple(layout), plan_digest
        self.files = staging / FILES
        self._shard_of = {spec.name: shard for shard in self.layout for spec in shard.specs}
        self._spec = {spec.name: spec for shard in self.layout for spec in shard.specs}
        self._open: dict[str, int] = {}
        self._missing: dict[str, set[str]] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._finished: dict[str, dict[str, Any]] = {}
        with disk_errors(staging, self.remaining):
            self.files.mkdir(parents=True, exist_ok=True)
            self._lock = lock(staging)
            self._resume(verify)
        require_room(staging, self.remaining)

    # --- where we stand --------------------------------------------------------------------------------------------

    @property
    def remaining(self) -> int:
        """Bytes of shards not finished yet."""
        return sum(shard.size for shard in self.layout if shard.name not in self._finished)

    @property
    def finished(self) -> Mapping[str, Mapping[str, Any]]:
        """Shard name to `size`, `sha256` and `notes` of what is finished."""
        return self._finished

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted beside the tensors of finished shards, in this run and in those before it."""
        return {name: note for entry in self._finished.values() for name, note in entry["notes"].items()}

    def done(self, name: str) -> bool:
        """Whether a tensor lies in a finished shard and need not be written again."""
        return self._shard_of[name].name in self._finished

    def _resume(self, verify: bool) -> None:
        layout = hashlib.sha256(b"".join(shard.header for shard in self.layout)).hexdigest()
        self._stamp = {"schema": 1, "plan_digest": self.plan_digest, "layout": layout}
        ledger = self._ledger()
        if {key: ledger.get(key) for key in self._stamp} != self._stamp:
            shutil.rmtree(self.files)
            self.files.mkdir()
            ledger = {}
        recorded = ledger.get("shards")
        sizes = {shard.name: shard.size for shard in self.layout}
        for name, entry in (recorded if isinstance(recorded, Mapping) else {}).items():
            if name in sizes and isinstance(entry, Mapping) and self._intact(name, sizes[name], entry, verify):
                self._finished[name] = dict(entry)
        for path in self.files.iterdir():
            if path.is_file() and path.suffix in (PARTIAL, ".safetensors") and path.name not in self._finished:
                path.unlink()
        self._save()

    def _ledger(self) -> Mapping[str, Any]:
        try:
            value = jsonio.load_json(self.staging / LEDGER)
        except jsonio.DocumentError:
            return {}
        return value if isinstance(value, Mapping) else {}

    def _intact(self, name: str, size: int, entry: Mapping[str, Any], verify: bool) -> bool:
        path = self.files / name
        noted = isinstance(entry.get("notes"), Mapping) and isinstance(entry.get("sha256"), str)
        if not noted or entry.get("size") != size or not path.is_file() or path.stat().st_size != size:
            return False
        return not verify or _sha256(path) == entry.get("sha256")

    def _save(self) -> None:
        jsonio.write_atomic(self.staging / LEDGER, jsonio.dump_json({**self._stamp, "shards": self._finished}))

    # --- writing ---------------------------------------------------------------------------------------------------

    def write(self, name: str, chunks: Iterable[bytes | memoryview], note: Any = None) -> None:
        """Write one tensor; its shard is finished with its last tensor. A tensor already `done` is left alone.

        Args:
            name: a tensor of the layout, in any order, once.
            chunks: its bytes, row-major and little-endian, in pieces.
            note: JSON kept in the ledger beside the tensor once its shard is finished; see `notes`.

        Raises:
            CheckpointError: the pieces add up to another size than the layout says, or the tensor was written before.
            EngineError: the disk is full.
        """
        shard, spec = self._shard_of[name], self._spec[name]
        if shard.name in self._finished:
            return
        with disk_errors(self.staging, self.remaining):
            descriptor = self._descriptor(shard)
            if name not in self._missing[shard.name]:
                raise CheckpointError(f"The tensor {name} was written before.")
            position, end = shard.offsets[name], shard.offsets[name] + spec.size
            for chunk in chunks:
                view = memoryview(chunk).cast("B")
                if position + len(view) > end:
                    raise CheckpointError(f"More bytes came for {name} than its {spec.size:,}.")
                position = _write_all(descriptor, view, position)
            if position != end:
                raise CheckpointError(f"{end - position:,} of {spec.size:,} bytes are missing for {name}.")
            self._missing[shard.name].discard(name)
            if note is not None:
                self._notes.setdefault(shard.name, {})[name] = note
            if not self._missing[shard.name]:
                self._close_shard(shard)

    def _descriptor(self, shard: ShardLayout) -> int:
        if shard.name not in self._open:
            path = self.files / (shard.name + PARTIAL)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            self._open[shard.name] = descriptor
            self._missing[shard.name] = set(shard.offsets)
            os.fchmod(descriptor, 0o644)
            _write_all(descriptor, memoryview(shard.header), 0)
        return self._open[shard.name]

    def _close_shard(self, shard: ShardLayout) -> None:
        descriptor = self._open[shard.name]
        os.fsync(descriptor)
        partial = self.files / (shard.name + PARTIAL)
        digest = _sha256(partial)
        os.close(self._open.pop(shard.name))
        os.replace(partial, self.files / shard.name)
        sync(self.files)
        self._finished[shard.name] = {
            "size": shard.size,
            "sha256": digest,
            "notes": self._notes.pop(shard.name, {}),
        }
        self._save()

    # --- ending ----------------------------------------------------------------------------------------------------

    def _write_index(self) -> None:
        """`total_size` counts tensor bytes, headers left out."""
        specs = [(spec, shard) for shard in self.layout for spec in shard.specs]
        index = {
            "metadata": {"total_size": sum(spec.size for spec, _ in specs)},
            "weight_map": {spec.name: shard.name for spec, shard in specs},
        }
        jsonio.write_atomic(self.files / INDEX, jsonio.dump_json(index))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the index, flush everything, rename to the final name and clear the staging folder.

        Side files must lie in `files` by now.

        Args:
            record: kept beside the output as `<output>.quantize.json`.

        Raises:
            CheckpointError: shards are missing, or `output` appeared meanwhile.
            EngineError: the disk is full.
        """
        missing = [shard.name for shard in self.layout if shard.name not in self._finished]
        if missing:
            raise CheckpointError(f"{len(missing)} of {len(self.layout)} shards are not written, first {missing[0]}.")
        with disk_errors(self.staging, 0):
            self._write_index()
            commit(self.files, self.output, self.plan_digest, record)
        clear(self.staging)

    def close(self) -> None:
        """Close open files; what is unfinished stays `.partial`."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> StagedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def clear(staging: Path) -> None:
    """Remove what a finished job left in its staging folder; a file of anybody else's stays, and the folder with it."""
    shutil.rmtree(staging / FILES, ignore_errors=True)
    for name in (LEDGER, "quantize.json"):
        (staging / name).unlink(missing_ok=True)
    if staging.is_dir() and not any(staging.iterdir()):
        staging.rmdir()


def _write_all(descriptor: int, view: memoryview, position: int) -> int:
    while len(view):
        written = os.pwrite(descriptor, view[:_STEP], position)
        position += written
        view = view[written:]
    return position


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
