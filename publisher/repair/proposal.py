"""What would be repaired: every change with its numbers, decided before a byte is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.checkpoint.files import Files
from publisher.checkpoint.open import Checkpoint
from publisher.errors import CheckpointError, PublisherError
from publisher.repair.change import Change, Draft, Patch
from publisher.repair.documents import config, declaration, ignore, index, sidefiles
from publisher.repair.equalize import equalize

Repair = Callable[[Checkpoint, Checkpoint | None, Draft], None]
# Name to what it does, in the order they run; a later one sees what an earlier one wrote.
REPAIRS: Mapping[str, Repair] = {
    "index": index,
    "declaration": declaration,
    "config": config,
    "ignore": ignore,
    "side-files": sidefiles,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Changes to one checkpoint, not yet made.

    Args:
        checkpoint: the checkpoint as it is.
        documents: file name to its new content.
        copies: file name to the place its bytes come from.
        removed: files that go.
        patches: shard to the scales that change in it.
        changes: what is changed, for people.
        refused: what stays broken, and why.
    """

    checkpoint: Checkpoint
    documents: Mapping[str, bytes]
    copies: Mapping[str, Files]
    removed: frozenset[str]
    patches: Mapping[str, tuple[Patch, ...]]
    changes: tuple[Change, ...]
    refused: tuple[Change, ...]

    @property
    def touched(self) -> tuple[str, ...]:
        """Names of all files that are written, copied or removed, sorted."""
        return tuple(sorted({*self.documents, *self.copies, *self.removed, *self.patches}))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "changes": [change.to_json() for change in self.changes],
            "refused": [change.to_json() for change in self.refused],
            "files": list(self.touched),
        }

    def digest(self) -> str:
        """Digest of what is to be done, to recognise an interrupted run of the same repair."""
        sizes = {name: self.checkpoint.files.sizes.get(name) for name in self.touched}
        return jsonio.digest([self.to_json(), sizes, {n: d.decode("utf-8") for n, d in self.documents.items()}])


def propose(
    checkpoint: Checkpoint,
    *,
    source: Checkpoint | None = None,
    only: Collection[str] = (),
    scales: bool = False,
) -> Proposal:
    """Look at a checkpoint and say what would be repaired.

    Args:
        checkpoint: a folder's checkpoint.
        source: what it was made from; without it nothing is restored.
        only: names of `REPAIRS`; all when empty.
        scales: whether global scales of fused layers are made equal.

    Raises:
        PublisherError: an unknown repair.
        CheckpointError: config.json cannot be read.
    """
    unknown = sorted(set(only) - set(REPAIRS))
    if unknown:
        raise PublisherError(f"There is no repair {unknown[0][:40]!r}.", hint=f"Repairs are {', '.join(REPAIRS)}.")
    flaw = checkpoint.document_flaws.get("config.json")
    if flaw is not None and source is None:
        raise CheckpointError(f"{flaw.rstrip('.')}.", hint="Name the source with --source; config.json comes from it.")
    draft = Draft()
    for name, repair in REPAIRS.items():
        if not only or name in only:
            repair(checkpoint, source, draft)
    if scales:
        equalize(checkpoint, draft)
    return Proposal(
        checkpoint=checkpoint,
        documents=dict(draft.documents),
        copies=dict(draft.copies),
        removed=frozenset(draft.removed),
        patches={shard: tuple(patches) for shard, patches in draft.patches.items()},
        changes=tuple(draft.changes),
        refused=tuple(draft.refused),
    )
