"""The steps of a push: their order, their record, and what a dry run tells."""

from __future__ import annotations

import json
from typing import Any

import pytest

from publisher.errors import AccessError
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.push import STEPS, push
from publisher.hub.target import Publication, Settings
from tests.hub.loopback import LoopbackHub
from tests.hub.places import FILES, REPO, FolderPlace, HubPlace

Place = FolderPlace | HubPlace


def test_the_steps_are_told_and_recorded_in_order(place: Place, tiny: Publication) -> None:
    told: list[tuple[str, Any]] = []
    ticks = iter(range(10_000))
    record = push(
        place.target(),
        tiny,
        emit=lambda kind, payload: told.append((kind, payload["step"])),
        clock=lambda: float(next(ticks)),
    )
    names = [name for name, _ in STEPS]
    assert [step for kind, step in told if kind == "start"] == names
    assert [step for kind, step in told if kind == "done"] == names
    document = json.loads(json.dumps(record.to_json()))
    assert [step["name"] for step in document["steps"]] == names
    assert document["verified"] is True
    assert document["verified_at"] > document["steps"][-1]["time"]
    assert document["root_digest"] == tiny.manifest.root_digest
    assert document["bytes"] == sum((tiny.folder / name).stat().st_size for name in [*FILES, "publish.json"])
    assert (document["gate"], document["visibility"], document["repo"]) == ("manual", "public", REPO)


def test_all_problems_are_raised_together_with_the_gravest_class(hub: LoopbackHub, tiny: Publication) -> None:
    (tiny.folder / "LICENSE").unlink()
    with pytest.raises(AccessError, match=r"LICENSE.*no Hub token"):
        push(HuggingFaceTarget(REPO, endpoint=hub.endpoint), tiny)


def test_only_private_or_gated_settings_are_closed() -> None:
    assert [Settings(private=p, gate=g).open for p in (True, False) for g in ("off", "auto", "manual")] == [
        False,
        False,
        False,
        True,
        False,
        False,
    ]
