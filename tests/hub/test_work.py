"""What steps are made of: portions of weights, and sentences about what is not stored."""

from __future__ import annotations

import pytest

from publisher.hub.folder import FolderTarget
from publisher.hub.push import push
from publisher.hub.target import Publication
from publisher.hub.work import portions, unlike
from publisher.manifest import Difference, FileEntry
from tests.hub.places import REPO, HubPlace


def entries(*sizes: int) -> list[FileEntry]:
    return [FileEntry(path=f"{number}.safetensors", size=size, sha256="") for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "limit", "counts"),
    [((), 10, [0]), ((3, 3, 3), 10, [3]), ((6, 6, 6), 10, [1, 1, 1]), ((99, 1), 10, [1, 1]), ((5, 5, 1), 10, [2, 1])],
)
def test_portions_hold_what_fits_and_never_nothing(sizes: tuple[int, ...], limit: int, counts: list[int]) -> None:
    found = list(portions(entries(*sizes), limit))
    assert [len(portion) for portion in found] == counts
    assert [entry for portion in found for entry in portion] == entries(*sizes)


def test_what_was_committed_is_not_read_again(
    hub,
    tiny: Publication,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    """Each portion is a commit of its own, so a push that goes on knows it by the tree alone."""
    monkeypatch.setattr(portions, "__defaults__", (5000,))
    place = HubPlace(hub)
    push(place.target(), tiny)
    titles = [title for _, title, _ in hub.repos[REPO].commits]
    assert titles == ["initial commit", "Add weights", "Add weights", f"Publish {tiny.key}"]


def test_five_differences_are_named_and_the_rest_counted(tmp_path) -> None:  # type: ignore[no-untyped-def]
    target = FolderTarget(tmp_path, REPO)
    text = unlike(target, [Difference(path=f"{number}", kind="missing") for number in range(1200)])
    assert "4 is missing and 1,195 more" in text
    assert "5 is missing" not in text
