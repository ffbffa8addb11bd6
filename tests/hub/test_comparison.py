"""What a target stores against a manifest, and the manifest read back from a target."""

from __future__ import annotations

import pytest

from publisher.errors import CheckpointError, HubError, PublisherError
from publisher.hub.comparison import everything, groups, read_manifest, verify
from publisher.hub.push import push
from publisher.hub.target import Publication
from tests.hub.places import FILES, FolderPlace, HubPlace

Place = FolderPlace | HubPlace


def test_every_file_is_sent_by_exactly_one_step(tiny: Publication) -> None:
    sent = [entry.path for group in groups(tiny.manifest).values() for entry in group]
    assert sorted(sent) == sorted([*FILES, "publish.json"]) == sorted(everything(tiny.manifest))


def test_what_differs_is_named(place: Place, tiny: Publication) -> None:
    push(place.target(), tiny)
    assert verify(place.target(), tiny.manifest) == []
    place.put("config.json", b"[]\n")
    place.put("README.md", b"shorter")
    place.put("stray.bin", b"x")
    place.put("publish.json", b"{}")
    found = {item.path: item.kind for item in verify(place.target(), tiny.manifest)}
    assert found == {"config.json": "sha256", "README.md": "size", "stray.bin": "unexpected", "publish.json": "size"}


def test_a_wrong_name_is_told_as_one(place: Place) -> None:
    with pytest.raises(PublisherError, match=r"no repository at|does not exist"):
        read_manifest(place.target())


def test_the_stored_manifest_is_read_and_judged(place: Place, tiny: Publication) -> None:
    target = place.target()
    target.create_private()
    with pytest.raises(HubError, match=r"holds no publish\.json"):
        read_manifest(target)
    push(target, tiny)
    assert read_manifest(target) == tiny.manifest
    edited = place.files()["publish.json"].replace(b'"size": 3', b'"size": 4')
    place.put("publish.json", edited)
    with pytest.raises(CheckpointError, match="root digest"):
        read_manifest(place.target())
