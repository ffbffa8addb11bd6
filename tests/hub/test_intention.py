"""The dry run: everything told, nothing changed."""

from __future__ import annotations

from pathlib import Path

from publisher.errors import AccessError
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.intention import intend
from publisher.hub.push import push
from publisher.hub.target import Publication, TransientHubError
from tests.hub.loopback import LoopbackHub
from tests.hub.places import FILES, REPO, FolderPlace, HubPlace, publication

Place = FolderPlace | HubPlace


def test_a_dry_run_tells_everything_and_changes_nothing(place: Place, tiny: Publication, tmp_path: Path) -> None:
    before = intend(place.target(), tiny)
    assert place.writes() == 0
    assert before.problems == ()
    assert before.current is None
    assert [len(paths) for paths in before.groups.values()] == [2, 4, 2]
    push(place.target(), tiny)
    assert intend(place.target(), tiny).bytes == 0
    place.put("stray", b"x")
    new = publication(tmp_path / "new", FILES | {"config.json": b'{"new": 1}\n'})
    writes = place.writes()
    found = intend(place.target(), new)
    assert place.writes() == writes
    assert found.to_json() == {
        "problems": [],
        "current": "public, gate manual",
        "wanted": "public, gate manual",
        "hide": True,
        "groups": {"weights": [], "side files": ["config.json"], "card and manifest": ["publish.json"]},
        "remove": ["stray"],
        "bytes": 11 + len(new.manifest.encoded()),
    }


def test_a_dry_run_without_a_token_says_what_is_missing(hub: LoopbackHub, tiny: Publication) -> None:
    found = intend(HuggingFaceTarget(REPO, endpoint=hub.endpoint), tiny)
    assert [type(problem) for problem in found.problems] == [AccessError]
    assert found.current is None


def test_a_dry_run_without_a_hub_says_so(tiny: Publication) -> None:
    found = intend(HuggingFaceTarget(REPO, endpoint="http://127.0.0.1:9", token="hf_any", sleep=lambda s: None), tiny)
    assert [type(problem) for problem in found.problems] == [TransientHubError]
