"""A checkpoint written so that its final name appears only when every byte is there.

Tensors go to `.partial` files at the offsets `layout.py` decided (`shardfiles`); no shard is ever held in memory. A
full shard is flushed, hashed, renamed and entered in a ledger, and a restart goes on after it. Only an explicit
`finish` writes the index and renames the folder to its final name; leaving early never does. Refused: a final name that
is taken, and going on from a source whose files are no longer those the work began with.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from publisher import jsonio
from publisher.checkpoint.disk import disk_errors as disk_errors
from publisher.checkpoint.disk import lock, require_room, require_same_disk, sync
from publisher.checkpoint.layout import ShardLayout
from publisher.checkpoint.open import INDEX
from publisher.checkpoint.shardfiles import PARTIAL as PARTIAL
from publisher.checkpoint.shardfiles import Entry, ShardFiles, sha256
from publisher.errors import CheckpointError

LEDGER = "ledger.json"
FILES = "files"
RECORD_SUFFIX = ".quantize.json"
_PATIENCE = 2.0  # seconds


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
        for left in output.parent.glob(f".{glob.escape(record_path(output).name)}.*.partial"):  # by a killed run
            left.unlink(missing_ok=True)
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
        source: what is read, file name to what tells it from a changed one (JSON); see `stamps`.

    Raises:
        CheckpointError: `output` exists, or lies inside `staging` or on another file system, or another process works
            in `staging`, or finished shards were made from other files than `source`.
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
        source: Mapping[str, Any] | None = None,
    ) -> None:
        if output.absolute().is_relative_to(staging.absolute()):
            raise CheckpointError(f"The output {output} lies inside the staging folder {staging}.")
        if already_done(output, plan_digest):
            raise CheckpointError(f"{output} is complete already.")
        require_same_disk(staging, output)
        self.staging, self.output, self.layout, self.plan_digest = staging, output, tuple(layout), plan_digest
        self.files = staging / FILES
        self._source = None if source is None else dict(source)
        self._finished: dict[str, dict[str, Any]] = {}
        self._sizes = {shard.name: shard.size for shard in self.layout}
        self._remaining = sum(self._sizes.values())
        self._entering = threading.Lock()
        self._shards = ShardFiles(self.files, self.layout, self._enter, lambda: self.remaining)
        with disk_errors(staging, self.remaining):
            self.files.mkdir(parents=True, exist_ok=True)
            self._lock = _hold(staging)
        try:
            with disk_errors(staging, self.remaining):
                self._resume(verify)
            require_room(staging, self.remaining)
        except BaseException:
            self.close()
            raise

    # --- where we stand --------------------------------------------------------------------------------------------

    @property
    def remaining(self) -> int:
        """Bytes of shards not finished yet."""
        return self._remaining

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
        return self._shards.shard_of(name).name in self._finished

    def shard_of(self, name: str) -> str:
        """The file a tensor goes to."""
        return self._shards.shard_of(name).name

    def _resume(self, verify: bool) -> None:
        layout = hashlib.sha256(b"".join(shard.header for shard in self.layout)).hexdigest()
        self._stamp = {"schema": 1, "plan_digest": self.plan_digest, "layout": layout}
        ledger = self._ledger()
        self._refuse_change(ledger)
        if {key: ledger.get(key) for key in self._stamp} != self._stamp:
            shutil.rmtree(self.files)
            self.files.mkdir()
            ledger = {}
        recorded = ledger.get("shards")
        for name, entry in (recorded if isinstance(recorded, Mapping) else {}).items():
            if isinstance(entry, Mapping) and self._intact(name, entry, verify):
                self._finished[name] = dict(entry)
                self._remaining -= self._sizes[name]
        jsonio.sweep(self.staging)
        for path in self.files.iterdir():
            if path.is_file() and path.suffix in (PARTIAL, ".safetensors") and path.name not in self._finished:
                path.unlink()
        self._save()

    def _refuse_change(self, ledger: Mapping[str, Any]) -> None:
        """Refuse to mix shards of two sources; a ledger of another plan is started over anyhow."""
        before, shards = ledger.get("source"), ledger.get("shards")
        if self._source is None or ledger.get("plan_digest") != self.plan_digest or not isinstance(before, Mapping):
            return
        changed = sorted(name for name in {*before, *self._source} if before.get(name) != self._source.get(name))
        if changed and isinstance(shards, Mapping) and shards:
            raise CheckpointError(
                f"{changed[0]} of the source is not what it was when this run began ({len(changed)} such files); the "
                f"{len(shards)} finished shards in {self.staging} were made from the earlier one.",
                hint="Put the earlier file back with its own time, or remove that folder to start over.",
            )

    def _ledger(self) -> Mapping[str, Any]:
        try:
            value = jsonio.load_json(self.staging / LEDGER)
        except jsonio.DocumentError:
            return {}
        return value if isinstance(value, Mapping) else {}

    def _intact(self, name: str, entry: Mapping[str, Any], verify: bool) -> bool:
        path, size = self.files / name, self._sizes.get(name)
        noted = isinstance(entry.get("notes"), Mapping) and isinstance(entry.get("sha256"), str)
        if size is None or not noted or entry.get("size") != size or not path.is_file() or path.stat().st_size != size:
            return False
        return not verify or sha256(path) == entry.get("sha256")

    def _save(self) -> None:
        ledger = {**self._stamp, "source": self._source, "shards": self._finished}
        jsonio.write_atomic(self.staging / LEDGER, jsonio.dump_json(ledger))

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
        if not self.done(name):
            self._shards.write(name, chunks, note)

    def wait(self) -> None:
        """Wait until every full shard is entered.

        Raises:
            EngineError: the disk is full.
        """
        self._shards.wait()

    def adopt(self, name: str, entry: Mapping[str, Any]) -> None:
        """Enter a shard that another process wrote to its `.partial` file here, flushed and hashed.

        Raises:
            CheckpointError: no such shard in the layout, or its file is not there in its size.
            EngineError: the disk refuses.
        """
        shard = next((shard for shard in self.layout if shard.name == name), None)
        partial = self.files / f"{name}{PARTIAL}"
        if shard is None or name in self._finished or not partial.is_file() or partial.stat().st_size != shard.size:
            raise CheckpointError(f"{partial} is not the finished shard it was said to be.")
        with disk_errors(self.staging, self.remaining):
            self._enter(shard, dict(entry))

    def _enter(self, shard: ShardLayout, entry: Entry) -> None:
        os.replace(self.files / (shard.name + PARTIAL), self.files / shard.name)
        sync(self.files)
        with self._entering:
            self._finished = {**self._finished, shard.name: entry}
            self._remaining -= shard.size
            self._save()

    @property
    def lock(self) -> int:
        """The descriptor that holds the folder; a process that inherits it holds the folder too."""
        return self._lock

    # --- ending ----------------------------------------------------------------------------------------------------

    def _write_index(self) -> None:
        """`total_size` counts tensor bytes, headers left out."""
        specs = [(spec, shard) for shard in self.layout for spec in shard.specs]
        index = {
            "metadata": {"total_size": sum(spec.size for spec, _ in specs)},
            "weight_map": {spec.name: shard.name for spec, shard in specs},
        }
        jsonio.write_atomic(self.files / INDEX, jsonio.dump_json(index))

    def finish(self, record: Mapping[str, Any], *, index: bool = True) -> None:
        """Write the index, flush everything, rename to the final name and clear the staging folder.

        Side files must lie in `files` by now.

        Args:
            record: kept beside the output as `<output>.quantize.json`.
            index: whether to write one; an index that is to be another's byte for byte is a side file.

        Raises:
            CheckpointError: shards are missing, or `output` appeared meanwhile.
            EngineError: the disk is full.
        """
        self.wait()
        missing = [shard.name for shard in self.layout if shard.name not in self._finished]
        if missing:
            raise CheckpointError(f"{len(missing)} of {len(self.layout)} shards are not written, first {missing[0]}.")
        with disk_errors(self.staging, 0):
            if index:
                self._write_index()
            commit(self.files, self.output, self.plan_digest, record)
        clear(self.staging)

    def close(self) -> None:
        """Enter what is full and close the rest; what is unfinished stays `.partial`."""
        self._shards.close()
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


def _hold(folder: Path) -> int:
    """The lock of a folder; what was killed a moment ago may still be letting go of it.

    Raises:
        CheckpointError: another process holds it.
    """
    patience = time.monotonic() + _PATIENCE
    while True:
        try:
            return lock(folder)
        except CheckpointError:
            if time.monotonic() >= patience:
                raise
            time.sleep(0.05)
