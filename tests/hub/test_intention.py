"""The dry run: everything told, nothing changed, and what it tells is what the push then asks of the Hub."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import AccessError
from publisher.hub import permission
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.intention import intend
from publisher.hub.push import push
from publisher.hub.target import Publication, TransientHubError
from tests.hub.loopback import LoopbackHub, Request
from tests.hub.places import FILES, REPO, FolderPlace, HubPlace, publication

Place = FolderPlace | HubPlace
SHARD = "model-00001-of-00002.safetensors"
CHANGED = FILES | {"config.json": b'{"new": 1, "deep": {"er": [1]}}\n', SHARD: b"other bytes " * 900}
CHANGING = re.compile(r"/(create|settings|commit|branch|tag|discussions|merge|status)\b")


def test_a_dry_run_tells_everything_and_changes_nothing(place: Place, tiny: Publication, tmp_path: Path) -> None:
    before = intend(place.target(), tiny)
    assert place.writes() == 0
    assert before.problems == ()
    assert before.current is None
    assert before.changes is None
    assert [len(paths) for paths in before.groups.values()] == [2, 6]
    push(place.target(), tiny)
    assert intend(place.target(), tiny).bytes == 0
    place.put("stray", b"x")
    new = publication(tmp_path / "new", FILES | {"config.json": b'{"new": 1}\n'})
    writes = place.writes()
    found = intend(place.target(), new)
    assert place.writes() == writes
    document = found.to_json()
    assert document.pop("requests")
    seen = document.pop("seen")
    assert [line.split(" (")[0] for line in seen if "publish.json" not in line] == [
        "config.json has size 3, the manifest says 11",
        "stray is not in the manifest",
    ]
    assert document.pop("changed") == [
        "changed config.json (3 B to 11 B)",
        f"changed publish.json ({size(tiny)} to {size(new)})",
        "removed stray (1 B)",
        "config new: (absent) to 1",
        "the card stays as it is",
        "settings: public, gate manual",
    ]
    manifest = (tiny.manifest.own_entry().size, new.manifest.own_entry().size)
    assert document == {
        "problems": [],
        "current": "public, gate manual",
        "wanted": "public, gate manual",
        "route": "draft",
        "groups": {"weights": [], "last commit": ["config.json", "publish.json"]},
        "remove": ["stray"],
        "bytes": 11 + len(new.manifest.encoded()),
        "changes": {
            "files": [
                {"path": "config.json", "kind": "changed", "before": 3, "after": 11},
                {"path": "publish.json", "kind": "changed", "before": manifest[0], "after": manifest[1]},
                {"path": "stray", "kind": "removed", "before": 1, "after": None},
            ],
            "config": [{"key": "new", "before": "(absent)", "after": "1"}],
            "card": False,
            "card_lines": [],
            "settings": ["public, gate manual", "public, gate manual"],
        },
    }


def size(wanted: Publication) -> str:
    """In bytes: the two differ by less than the rounding of larger units."""
    return f"{wanted.manifest.own_entry().size:,} B"


def asked(request: Request, number: str) -> str:
    """A logged request as the dry run writes it."""
    path = re.sub(r"/tag/[0-9a-f]{40}$", "/tag/COMMIT", request.path)
    return f"{request.method} {path.replace(f'refs%2Fpr%2F{number}', 'refs%2Fpr%2FN')}".replace(
        f"/discussions/{number}/", "/discussions/N/"
    )


SITUATIONS: dict[str, dict[str, Any]] = {
    "new": {},
    "new, private": {"private": True},
    "new, without a tag": {"tag": None},
    "new, on a branch": {"revision": "next"},
    "unchanged": {"first": FILES},
    "unchanged, stricter gate": {"first": FILES, "gate": "manual", "before": "auto"},
    "update": {"first": CHANGED},
    "update, stricter gate": {"first": CHANGED, "gate": "manual", "before": "off"},
    "update, looser gate": {"first": CHANGED, "gate": "auto", "before": "manual"},
    "update that hides": {"first": CHANGED, "private": True},
    "update of a private one": {"first": CHANGED, "hidden": True},
    "proposal": {"first": CHANGED, "propose": True, "tag": None},
    "proposal to a private one": {"first": CHANGED, "propose": True, "hidden": True},
    "a new branch of a public one": {"first": CHANGED, "revision": "next"},
    "a new branch of a private one": {"first": CHANGED, "revision": "next", "hidden": True},
    "a tag of one's own": {"first": CHANGED, "tag": "v2"},
    "private storage too small": {"small": True},
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_push_asks_what_the_dry_run_told(
    hub: LoopbackHub, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = dict(SITUATIONS[name])
    place = HubPlace(hub)
    first, before, hidden = case.pop("first", None), case.pop("before", "manual"), case.pop("hidden", False)
    if case.pop("small", False):
        monkeypatch.setattr(permission, "private_room", lambda client: 100)
        hub.private_quota = 100
    if first is not None:
        push(place.target(), publication(tmp_path / "old", first, gate=before, private=hidden))
    hub.log.clear()
    wanted = replace(publication(tmp_path / "new"), **case)
    told = intend(place.target(), wanted)
    assert place.writes() == 0
    record = push(place.target(), wanted)
    done = [item for item in hub.log if item.method in ("PUT", "DELETE", "POST") and CHANGING.search(item.path)]
    done = [item for item in done if "/_lfs/" not in item.path and "preupload" not in item.path]
    assert [asked(item, "1") for item in done] == [act.request for act in told.acts]
    assert told.route == record.route
    assert not place.was_open() or wanted.settings.open or before == "off"


def test_a_dry_run_without_a_token_says_what_is_missing(hub: LoopbackHub, tiny: Publication) -> None:
    found = intend(HuggingFaceTarget(REPO, endpoint=hub.endpoint, sleep=lambda s: None), tiny)
    assert [type(problem) for problem in found.problems] == [AccessError]
    assert found.current is None


def test_a_dry_run_without_a_hub_says_so(tiny: Publication) -> None:
    found = intend(HuggingFaceTarget(REPO, endpoint="http://127.0.0.1:9", token="hf_any", sleep=lambda s: None), tiny)
    assert [type(problem) for problem in found.problems] == [TransientHubError]
