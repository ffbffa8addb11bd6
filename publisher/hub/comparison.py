"""What a target stores against what a manifest says.

The one comparison behind every decision of a push (what to send, what is stale, whether it is proven) and behind
`publisher verify`. Sizes come from the target's tree, digests from the tree where it has them and from the stored
bytes where it does not; the Hub's own `.gitattributes` is passed over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from publisher import jsonio
from publisher import manifest as manifests
from publisher.errors import CheckpointError, HubError, PublisherError
from publisher.hub.leaks import leaks
from publisher.hub.target import HUBS_OWN, MAX_DOCUMENT, Publication, StoredFile, Target
from publisher.manifest import Difference, FileEntry, Manifest

CARD = "README.md"


def verify(target: Target, manifest: Manifest) -> list[Difference]:
    """Every way in which a target differs from a manifest, the stored manifest included; empty when it does not."""
    return compare(target, everything(manifest))


def read_manifest(target: Target) -> Manifest:
    """The manifest a target stores.

    Raises:
        PublisherError: there is no repository.
        HubError: it stores none.
        DocumentError, CheckpointError: what it stores is none.
    """
    stored = target.tree().get(manifests.NAME)
    if stored is None and target.settings() is None:
        raise PublisherError(f"There is no repository at {target.url}.", hint="Check the name.")
    if stored is None:
        raise HubError(f"{target.url} holds no {manifests.NAME}.", hint="Publish it with `publisher push`.")
    if stored.size > MAX_DOCUMENT:
        raise HubError(
            f"{target.url} holds a {manifests.NAME} of {stored.size:,} bytes; no manifest is that long.",
            hint="Publish again.",
        )
    document = jsonio.loads_json(target.read(manifests.NAME), f"{target.url}: {manifests.NAME}")
    return manifests.parse(document, f"{target.url}: {manifests.NAME}")


def groups(manifest: Manifest) -> dict[str, tuple[FileEntry, ...]]:
    """The files by the step that sends them: the weights, and last everything that makes them loadable."""
    weights = tuple(entry for entry in manifest.files if is_weight(entry.path))
    rest = tuple(entry for entry in manifest.files if not is_weight(entry.path))
    return {"weights": weights, "last commit": (*rest, manifest.own_entry())}


def is_weight(path: str) -> bool:
    """Whether a file is of no use without the ones that come last: configuration, index, card, manifest."""
    return path.endswith(".safetensors")


def everything(manifest: Manifest) -> dict[str, FileEntry]:
    """Every file that must be stored, by its path, the manifest included."""
    return {entry.path: entry for entry in (*manifest.files, manifest.own_entry())}


def compare(target: Target, expected: Mapping[str, FileEntry]) -> list[Difference]:
    """Differences between entries and the target's tree, digests read wherever the sizes agree."""
    tree = {path: found for path, found in target.tree().items() if path not in HUBS_OWN}
    unknown = [
        path
        for path, entry in expected.items()
        if path in tree and tree[path].sha256 is None and tree[path].size == entry.size
    ]
    digests = target.read_digests(unknown)
    return manifests.compare(
        expected.values(), {path: _with_digest(found, digests.get(path)) for path, found in tree.items()}
    )


def _with_digest(found: StoredFile, sha256: str | None) -> tuple[int, str | None]:
    return found.size, found.sha256 or sha256


def local_problems(publication: Publication) -> list[PublisherError]:
    """What can be known to be wrong before the target is asked: missing files, another manifest, no card, secrets."""
    problems: list[PublisherError] = []
    for entry in publication.manifest.files:
        path = publication.folder / entry.path
        if not path.is_file() or path.is_symlink():
            problems.append(CheckpointError(f"{path} is not there, the manifest lists it."))
        elif path.stat().st_size != entry.size:
            problems.append(
                CheckpointError(f"{path} has {path.stat().st_size:,} bytes, the manifest says {entry.size:,}.")
            )
    own = publication.folder / manifests.NAME
    if not own.is_file() or _sha256(own) != publication.manifest.own_entry().sha256:
        problems.append(CheckpointError(f"{own} is not the manifest of this push.", hint="Build it again."))
    if CARD not in {entry.path for entry in publication.manifest.files}:
        problems.append(CheckpointError(f"{publication.folder} has no {CARD}.", hint="Run `publisher card`."))
    return problems + leaks(publication)


def _sha256(path: Path) -> str:
    return hashlib.sha256(jsonio.read_bytes(path)).hexdigest()
