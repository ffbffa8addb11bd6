"""The places a checkpoint is published to, by how the command line names them."""

from __future__ import annotations

from pathlib import Path

from publisher.checkpoint import source as sources
from publisher.checkpoint.files import Files, LocalFiles
from publisher.errors import PublisherError
from publisher.hub import folder, huggingface
from publisher.hub.target import Target
from publisher.pipeline.order import Order


def target_at(place: str) -> Target:
    """The target `hf://org/name` or `folder:ROOT/org/name` names.

    Raises:
        PublisherError: neither of the two.
    """
    if place.startswith(sources.SCHEME):
        return huggingface.HuggingFaceTarget(sources.parse_spec(place)[0])
    path = Path(place.removeprefix("folder:"))
    if not place.startswith("folder:") or len(path.parts) < 2:
        raise PublisherError(f"{place!r} is no published place.", hint="Write hf://org/name or folder:ROOT/org/name.")
    return folder.FolderTarget(path.parent.parent, f"{path.parent.name}/{path.name}")


def files_at(place: str) -> Files:
    """What is published at a place of `target_at`, as files that can be opened.

    Raises:
        AccessError: the Hub refuses.
        HubError: the Hub cannot be reached.
        CheckpointError: there is nothing.
    """
    if place.startswith(sources.SCHEME):
        return sources.resolve(sources.SCHEME + sources.parse_spec(place)[0]).files
    return LocalFiles(Path(place.removeprefix("folder:")) / "tree")


def ordered(order: Order) -> Target:
    """The target an order names.

    Raises:
        PublisherError: no repository is named, or the target is none we know.
    """
    if order.target is None:
        raise PublisherError(
            "No repository to publish to is named.", hint="Give --repo org/name, or `target: {repo: org/name}`."
        )
    if order.to == "hf":
        return huggingface.HuggingFaceTarget(order.target.repo)
    kind, _, path = order.to.partition(":")
    if kind == "folder" and path:
        return folder.FolderTarget(Path(path), order.target.repo)
    raise PublisherError(f"{order.to!r} is no target.", hint="Write --to hf or --to folder:DIR.")
