"""Make a proposal's changes: into a new folder, or in place beside a backup of every file that changes.

A new folder is put together beside its name and renamed when it is complete, so a kill leaves only a `.partial` folder
that the next run of the same repair goes on with. In place, the old files are first linked into the backup, then each
new file is written beside its name and renamed over it: at any moment every name holds old bytes or new ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from publisher import jsonio
from publisher.checkpoint.disk import disk_errors, lock, require_room, sync
from publisher.checkpoint.files import Files, LocalFiles
from publisher.checkpoint.open import Checkpoint
from publisher.errors import CheckpointError
from publisher.repair.change import Patch
from publisher.repair.proposal import Proposal

PIECE = 8 << 20
MARK = ".repair.json"
Progress = Callable[[int, int], None]


def into(proposal: Proposal, destination: Path, *, link: bool = False, progress: Progress | None = None) -> Path:
    """Write the repaired checkpoint as a new folder.

    Args:
        proposal: the changes.
        destination: the new folder; must not exist.
        link: hard-link files that do not change instead of copying them.
        progress: called with (bytes written, bytes in all).

    Raises:
        CheckpointError: the destination exists or lies inside the checkpoint.
        EngineError: the disk is full.
    """
    root = _folder(proposal.checkpoint)
    destination = destination.absolute()
    if destination.exists():
        raise CheckpointError(f"{destination} exists.", hint="Name a folder that does not exist yet.")
    if destination.resolve().is_relative_to(root.resolve()):
        raise CheckpointError(f"{destination} lies inside the checkpoint.", hint="Name a folder beside it.")
    staging = destination.with_name(f".{destination.name}.partial")
    with _staged(staging, proposal):
        names = [
            *proposal.checkpoint.files.sizes,
            *(n for n in proposal.touched if n not in proposal.checkpoint.files.sizes),
        ]
        wanted = [name for name in names if name not in proposal.removed]
        meter = _Meter(sum(_size(proposal, name) for name in wanted), progress)
        require_room(staging, 0 if link else meter.total - _written(staging))
        with disk_errors(staging, meter.total):
            for name in wanted:
                _place(proposal, root, staging, name, link, meter)
            (staging / MARK).unlink()
            for folder in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
                sync(folder)
            os.rename(staging, destination)
            sync(destination.parent)
    return destination


def in_place(proposal: Proposal, *, progress: Progress | None = None, now: datetime | None = None) -> Path:
    """Change the checkpoint where it lies and return the folder that holds the old files.

    Raises:
        CheckpointError: another process writes there.
        EngineError: the disk is full.
    """
    root = _folder(proposal.checkpoint)
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    backup = root.with_name(f"{root.name}.before-{stamp}")
    descriptor = lock(root)
    try:
        meter = _Meter(sum(_size(proposal, name) for name in proposal.touched), progress)
        require_room(root, meter.total)
        with disk_errors(root, meter.total):
            _keep(root, backup, [name for name in proposal.touched if name in proposal.checkpoint.files.sizes])
            for name in proposal.touched:
                if name in proposal.removed:
                    (root / name).unlink(missing_ok=True)
                else:
                    _place(proposal, root, root, name, False, meter)
    finally:
        os.close(descriptor)
    return backup


def _folder(checkpoint: Checkpoint) -> Path:
    if not isinstance(checkpoint.files, LocalFiles):
        raise CheckpointError(
            f"{checkpoint.files.label} is not a folder on this machine.", hint="Download it, then repair the folder."
        )
    return checkpoint.files.root


@contextmanager
def _staged(staging: Path, proposal: Proposal) -> Iterator[None]:
    """A staging folder of this very proposal: what another one left there is swept away."""
    mark = staging / MARK
    staging.mkdir(parents=True, exist_ok=True)
    descriptor = lock(staging)
    try:
        if not mark.is_file() or mark.read_text(encoding="utf-8") != proposal.digest():
            for path in staging.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            jsonio.write_atomic(mark, proposal.digest())
        jsonio.sweep(staging)
        yield
    finally:
        os.close(descriptor)


def _keep(root: Path, backup: Path, names: list[str]) -> None:
    """Link the files that change into the backup, complete before the first of them changes."""
    partial = backup.with_name(f".{backup.name}.partial")
    for name in names:
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(root / name, target)
    partial.mkdir(parents=True, exist_ok=True)
    os.rename(partial, backup)
    sync(backup.parent)


def _link(source: Path, target: Path) -> None:
    """A second name for the file's bytes; a copy where the file system has no such thing, or the file is a link."""
    try:
        if source.is_symlink():
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class _Meter:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self._progress, self._done = total, progress, 0

    def step(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self.total)


def _size(proposal: Proposal, name: str) -> int:
    if name in proposal.removed:
        return 0
    if name in proposal.documents:
        return len(proposal.documents[name])
    files: Files = proposal.copies.get(name, proposal.checkpoint.files)
    return files.sizes[name]


def _written(staging: Path) -> int:
    return sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())


def _place(proposal: Proposal, root: Path, folder: Path, name: str, link: bool, meter: _Meter) -> None:
    """Write one file, complete or not at all; in a staging folder a finished one is kept."""
    target, size = folder / name, _size(proposal, name)
    if folder != root and target.exists() and target.stat().st_size == size:
        meter.step(size)
        return
    if name in proposal.documents:
        jsonio.write_atomic(target, proposal.documents[name])
        meter.step(size)
    elif link and name not in proposal.copies and name not in proposal.patches:
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(root / name, target)
        meter.step(size)
    else:
        files = proposal.copies.get(name, proposal.checkpoint.files)
        _copy(files, name, target, proposal.patches.get(name, ()), meter)


def _copy(files: Files, name: str, target: Path, patches: tuple[Patch, ...], meter: _Meter) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("wb") as writer:
            for begin, end, patch in _segments(files.sizes[name], patches):
                for at in range(begin, end, PIECE):
                    piece = files.read(name, at, min(at + PIECE, end))
                    if len(piece) != min(at + PIECE, end) - at:
                        raise CheckpointError(f"{name} became shorter while it was read.", hint="Run again.")
                    writer.write(patch.convert(piece) if patch else piece)
                    meter.step(len(piece))
            writer.flush()
            os.fsync(writer.fileno())
        partial.chmod(0o644)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _segments(size: int, patches: tuple[Patch, ...]) -> Iterator[tuple[int, int, Patch | None]]:
    """The file in order, as stretches that stay and tensors that change."""
    at = 0
    for patch in sorted(patches, key=lambda patch: patch.ref.begin):
        yield at, patch.ref.begin, None
        yield patch.ref.begin, patch.ref.end, patch
        at = patch.ref.end
    yield at, size, None
