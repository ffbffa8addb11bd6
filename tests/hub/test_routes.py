"""Which route a push takes; what others do on the way, and what lands, stands in test_push.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.hub.push import push
from publisher.hub.target import Publication
from tests.hub.places import FILES, REPO, FolderPlace, HubPlace, publication


def run(place: FolderPlace | HubPlace, wanted: Publication) -> tuple[str, list[str]]:
    """The route, and what was said about it."""
    said: list[str] = []

    def hear(kind: str, payload: Any) -> None:
        if kind == "log":
            said.append(payload["message"])

    return push(place.target(), wanted, emit=hear, sleep=lambda seconds: None).route, said


@pytest.mark.parametrize("private", [True, False])
def test_only_what_users_see_changes_by_a_draft(
    place: FolderPlace | HubPlace, tiny: Publication, tmp_path: Path, private: bool
) -> None:
    new = publication(tmp_path / "new", FILES | {"config.json": b'{"new": 1}\n'}, private=private)
    assert run(place, replace(tiny, private=private)) == ("direct", [])
    route, said = run(place, new)
    assert route == ("direct" if private else "draft")
    assert said[0].startswith("This update: changed config.json")
    assert any("users see it when it is proven" in text for text in said) is not private
    assert run(place, new) == ("direct", []), "nothing differs, so nothing is prepared"


def test_a_draft_that_lies_there_is_taken_up_and_said_so(hub, tiny: Publication, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    place = HubPlace(hub)
    run(place, tiny)
    new = publication(tmp_path / "new", FILES | {"config.json": b'{"new": 1}\n'})
    place.target().open_draft(new)
    _, said = run(place, new)
    assert any(f"goes on in {hub.endpoint}/{REPO}/discussions/1" in text for text in said)


def test_what_a_person_agreed_to_and_the_place_holds_still_goes_through(place, tiny: Publication) -> None:  # type: ignore[no-untyped-def]
    assert run(place, replace(tiny, agreed=frozenset(f"{name} is missing" for name in [*FILES, "publish.json"])))
    assert place.settings() == (False, "manual")
