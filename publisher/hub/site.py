"""What stands in the way of publishing into a folder: something else under that name, a folder in itself, no room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from publisher.errors import PublisherError
from publisher.hub.target import Publication


def foreign(base: Path, tree: Path) -> PublisherError | None:
    """Why a repository's folder is none of this program, or None where it is or can become one."""
    if base.is_symlink() or tree.is_symlink():
        return PublisherError(f"{base} is a link.", hint="Publish to a folder of its own.")
    if not base.exists() or (base / "settings.json").exists():
        return None
    if base.is_dir() and all(path.name == tree.name for path in base.iterdir()):
        return None
    return PublisherError(f"{base} exists and is no repository of this program.", hint="Choose another folder.")


def nested(base: Path, checkpoint: Path) -> PublisherError | None:
    """Why a checkpoint cannot be published into a folder inside it or around it."""
    inner, outer = base.resolve(), checkpoint.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        return PublisherError(
            f"{base} and the checkpoint {checkpoint} lie in each other.", hint="Choose another folder."
        )
    return None


def cramped(base: Path, present: Mapping[str, int], publication: Publication) -> PublisherError | None:
    """Why the files do not fit.

    Args:
        base: the repository's folder, which need not exist.
        present: path to bytes of what lies there already.
        publication: what shall lie there.
    """
    place = next(folder for folder in (base, *base.parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return PublisherError(f"{place} cannot be written.", hint="Choose another folder.")
    needed = sum(entry.size for entry in publication.manifest.files if present.get(entry.path) != entry.size)
    free = shutil.disk_usage(place).free
    if needed > free:
        return PublisherError(
            f"{place} has {free:,} bytes free, the files still to copy need {needed:,}.",
            hint="Free space or choose another folder, then run the same command again.",
        )
    return None
