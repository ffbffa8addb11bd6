"""When a repository may be prepared in public; what then happens stands in test_push.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from publisher.hub import permission
from publisher.hub.push import push
from publisher.hub.staging import too_large_for_private
from publisher.hub.target import Publication
from tests.hub.loopback import LoopbackHub
from tests.hub.places import REPO, FolderPlace, HubPlace


@pytest.mark.parametrize(
    ("room", "change", "too_large"),
    [
        (None, {}, False),
        (100, {}, True),
        (10**9, {}, False),
        (100, {"private": True}, False),
        (100, {"public_staging": False}, False),
    ],
)
def test_known_room_decides_only_for_what_may_be_public(
    hub: LoopbackHub,
    tiny: Publication,
    monkeypatch: pytest.MonkeyPatch,
    room: int | None,
    change: dict[str, Any],
    too_large: bool,
) -> None:
    monkeypatch.setattr(permission, "private_room", lambda client: room)
    assert too_large_for_private(HubPlace(hub).target(), replace(tiny, **change)) is too_large


def test_a_disk_has_no_private_room_of_its_own(tmp_path, tiny: Publication) -> None:  # type: ignore[no-untyped-def]
    assert not too_large_for_private(FolderPlace(tmp_path / "hub").target(), tiny)


def test_a_room_that_is_known_beforehand_is_never_filled(
    hub: LoopbackHub, tiny: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permission, "private_room", lambda client: 100)
    place = HubPlace(hub)
    told: list[str] = []
    record = push(place.target(), tiny, emit=lambda kind, payload: told.append(str(payload.get("message"))))
    assert record.route == "draft"
    commits = [item for item in hub.requests("POST", "/commit/") if item.state[REPO][0]]
    assert commits == [], "nothing was sent while it was private"
    assert any("more than the account's private storage" in text for text in told)
    assert not place.was_open()
