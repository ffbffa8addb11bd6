"""The places a checkpoint is published to, by how the command line names them."""

from __future__ import annotations

from pathlib import Path

from publisher.checkpoint import source as sources
from publisher.checkpoint.files import Files, LocalFiles
from publisher.errors import PublisherError
from publisher.hub import folder, huggingface
from publisher.hub.preflight import contradictions
from publisher.hub.target import MAIN, Target
from publisher.pipeline.order import Order


def target_at(place: str, *, every_byte: bool = False) -> Target:
    """The target `hf://org/name[@revision]` or `folder:ROOT/org/name` names.

    Args:
        place: one of the two.
        every_byte: read large files too, where the digest that the Hub records would do.

    Raises:
        PublisherError: neither of the two.
    """
    if place.startswith(sources.SCHEME):
        repo, revision = sources.parse_spec(place)
        limit = None if every_byte else huggingface.READ_LIMIT
        return huggingface.HuggingFaceTarget(repo, revision=revision or MAIN, read_limit=limit)
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
        return sources.resolve(place).files
    return LocalFiles(Path(place.removeprefix("folder:")) / "tree")


def ordered(order: Order) -> Target:
    """The target an order names.

    Raises:
        PublisherError: no repository is named, the target is none we know, or options contradict each other.
    """
    if order.target is None:
        raise PublisherError(
            "No repository to publish to is named.", hint="Give --repo org/name, or `target: {repo: org/name}`."
        )
    target = _opened(order.to, order.target.repo)
    for problem in contradictions(target, order.manner, private=order.target.private):
        raise problem
    return target


def _opened(to: str, repo: str) -> Target:
    kind, _, path = to.partition(":")
    if to == "hf":
        return huggingface.HuggingFaceTarget(repo)
    if kind == "folder" and path:
        return folder.FolderTarget(Path(path), repo)
    raise PublisherError(f"{to!r} is no target.", hint="Write --to hf or --to folder:DIR.")
