"""Taking over a checkpoint that was made elsewhere, and the folders that may not lie in each other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from publisher import manifest as manifests
from publisher.checkpoint.files import LocalFiles
from publisher.errors import CheckpointError, PublisherError
from publisher.pipeline.order import Prepared


def adopt(place: Path, staging: Path, checkpoint: Path) -> None:
    """Take over a checkpoint that was made elsewhere: hard links for shards, copies for the rest."""
    files = LocalFiles(place)
    shutil.rmtree(staging, ignore_errors=True)
    for name in files.sizes:
        if name in ("README.md", manifests.NAME):
            continue
        goal = staging / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(place / name, goal)
    staging.rename(checkpoint)


def require_apart(prepared: Prepared, run: Path) -> None:
    """Refuse a run inside what it reads: its own files would be published with the rest."""
    inside = [prepared.source.folder, prepared.order.checkpoint]
    outputs = {"run directory": run}
    if prepared.order.target is not None and prepared.order.to.startswith("folder:"):
        outputs["target"] = Path(prepared.order.to.removeprefix("folder:"))
    for name, path in outputs.items():
        for read in filter(None, inside):
            place, outer = path.resolve(), read.resolve()
            hidden = place.is_relative_to(outer) and any(p.startswith(".") for p in place.relative_to(outer).parts)
            if place.is_relative_to(outer) and not hidden:
                raise PublisherError(
                    f"The {name} {path} lies in {read}, whose files are published.",
                    hint=f"Name a {name} outside it.",
                )


def link_or_copy(origin: Path, goal: Path) -> None:
    """A hard link for a shard, a copy for anything small."""
    if origin.suffix != ".safetensors":
        shutil.copyfile(origin.resolve(), goal)
        return
    try:
        os.link(origin.resolve(), goal)
    except OSError:
        raise CheckpointError(
            f"{origin} cannot be linked into {goal.parent}.",
            hint="Give --run-dir a folder on the same file system as the checkpoint.",
        ) from None
