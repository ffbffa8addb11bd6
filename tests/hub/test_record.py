"""The record of a push is plain JSON, every field of it."""

from __future__ import annotations

import json
from dataclasses import fields

from publisher.hub.push import push
from publisher.hub.record import PushRecord
from publisher.hub.target import Publication
from tests.hub.places import FolderPlace, HubPlace


def test_a_record_is_json(place: FolderPlace | HubPlace, tiny: Publication) -> None:
    document = push(place.target(), tiny).to_json()
    assert json.loads(json.dumps(document)) == document
    assert set(document) == {field.name for field in fields(PushRecord)}
