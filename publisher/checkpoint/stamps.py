"""What tells the files of a source from changed ones: size, time of the last change and a digest of each header.

Hours of work are finished shard by shard, perhaps over days; a source that was downloaded again or trained on in
between would give a checkpoint of two models. Reading the weights again would tell more and cost what the work costs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from publisher.checkpoint.header import MAX_HEADER
from publisher.errors import CheckpointError


def stamps(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The stamp of each shard: `size` in bytes, `time` in nanoseconds, `header` as sha256; JSON as it is.

    Raises:
        CheckpointError: a shard is gone or cannot be read.
    """
    return {name: _stamp(folder / name) for name in sorted(set(names))}


def _stamp(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            status = path.stat()
            length = file.read(8)
            header = file.read(min(int.from_bytes(length, "little"), MAX_HEADER))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}.", hint="Copy or download the file again."
        ) from error
    return {
        "size": status.st_size,
        "time": status.st_mtime_ns,
        "header": hashlib.sha256(length + header).hexdigest(),
    }


def require_unchanged(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> None:
    """Refuse a result whose source changed while it was being read.

    Raises:
        CheckpointError: naming the first file.
    """
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise CheckpointError(
            f"{changed[0]} of the source changed while it was being read ({len(changed)} such files).",
            hint="Remove the staging folder and start again from a source that nobody writes to.",
        )
