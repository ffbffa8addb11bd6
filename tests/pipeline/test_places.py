"""Places by their names on the command line."""

from __future__ import annotations

import pytest

from publisher import pipeline
from publisher.errors import PublisherError
from publisher.hub.folder import FolderTarget
from publisher.pipeline import Order
from publisher.pipeline.places import ordered
from publisher.plan.model import TargetSpec


def test_places_name_targets() -> None:
    target = pipeline.target_at("folder:out/org/name")
    assert isinstance(target, FolderTarget)
    assert target.repo == "org/name"
    for place in ("out/org/name", "folder:x", "ftp://x"):
        with pytest.raises(PublisherError, match="no published place"):
            pipeline.target_at(place)


def test_an_order_names_its_target() -> None:
    assert ordered(Order(target=TargetSpec(repo="a/b"), to="folder:out")).repo == "a/b"
    with pytest.raises(PublisherError, match="No repository"):
        ordered(Order(to="folder:out"))
    with pytest.raises(PublisherError, match="is no target"):
        ordered(Order(target=TargetSpec(repo="a/b"), to="ftp:out"))
