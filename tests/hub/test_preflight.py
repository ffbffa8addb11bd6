"""Everything that would stop a push is told before its first byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher import jsonio
from publisher.errors import CheckpointError, FindingsError, PublisherError
from publisher.hub import preflight
from publisher.hub.push import push
from publisher.hub.target import Publication, ref_problem, stricter
from publisher.manifest import FileEntry, Manifest
from tests.hub.loopback import LoopbackHub
from tests.hub.places import FILES, REPO, FolderPlace, HubPlace, publication


@pytest.fixture
def on_hub(hub: LoopbackHub) -> HubPlace:
    return HubPlace(hub)


def told(place: Any, wanted: Publication) -> list[str]:
    found = [problem.message for problem in preflight.problems(place.target(), wanted)]
    assert place.writes() == 0, "looking changes nothing"
    return found


def of(wanted: Publication, *entries: FileEntry) -> Publication:
    return replace(wanted, manifest=Manifest(files=(*wanted.manifest.files, *entries)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "refs/heads/x"}, "cannot name a branch"),
        ({"revision": "a..b"}, "cannot name a branch"),
        ({"revision": "deadbeef"}, "cannot name a branch"),
        ({"tag": "with space"}, "cannot name a tag"),
        ({"tag": "v1.lock"}, "cannot name a tag"),
        ({"propose": True, "revision": "next"}, "A pull request goes to main"),
        ({"propose": True, "tag": "v1"}, "no commit to tag"),
        ({"propose": True, "private": True}, "--private hides it"),
        ({"propose": True}, "nothing to propose a change to"),
    ],
)
def test_options_that_make_no_sense(on_hub: HubPlace, tiny: Publication, change: dict[str, Any], words: str) -> None:
    assert any(words in text for text in told(on_hub, replace(tiny, **change)))


@pytest.mark.parametrize("change", [{"revision": "next"}, {"propose": True}, {"tag": "v1"}])
def test_a_folder_keeps_no_revisions(tmp_path: Path, tiny: Publication, change: dict[str, Any]) -> None:
    assert any(
        "a folder keeps no revisions" in text for text in told(FolderPlace(tmp_path / "h"), replace(tiny, **change))
    )


def test_a_branch_that_is_a_tag(on_hub: HubPlace, tiny: Publication) -> None:
    on_hub.target().create_private()
    on_hub.hub.repos[REPO].tags["v1"] = on_hub.hub.repos[REPO].head
    on_hub.hub.log.clear()
    assert any("v1 is a tag" in text for text in told(on_hub, replace(tiny, revision="v1")))


def test_the_hubs_limits_on_files(on_hub: HubPlace, tiny: Publication) -> None:
    table = jsonio.data("hub/limits.json")
    large = FileEntry(path="huge.safetensors", size=table["file_hard"] + 1, sha256="0" * 64)
    assert any("the Hub takes 500,000,000,000 a file" in text for text in told(on_hub, of(tiny, large)))
    many = [FileEntry(path=f"f/{n}", size=0, sha256="0" * 64) for n in range(table["folder_files"] + 1)]
    assert any("The folder f has 10,001 files" in text for text in told(on_hub, of(tiny, *many)))
    spread = [FileEntry(path=f"{n % 50}/{n}", size=0, sha256="0" * 64) for n in range(table["repository_files"])]
    assert any("more than the 100,000 of a repository" in text for text in told(on_hub, of(tiny, *spread)))
    assert told(on_hub, tiny) == []


def test_what_the_caller_wants_checked_is_checked_and_stops_the_push(on_hub: HubPlace, tiny: Publication) -> None:
    asked: list[int] = []

    def check() -> list[PublisherError]:
        asked.append(len(on_hub.hub.requests("POST", "/repos/create")))
        return [FindingsError("report.json is not publishable.", hint="Mend it.")]

    with pytest.raises(FindingsError) as caught:
        push(on_hub.target(), replace(tiny, checks=(check,)))
    assert caught.value.exit_code == 1
    assert asked == [0]
    assert on_hub.hub.repos == {}


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (b"# No metadata\n", "does not begin with a metadata block"),
        (b"---\n- a\n---\n", "is no mapping"),
        (b"---\na: [\n---\n", "README.md"),
        (b"\xff\xfe", "not UTF-8"),
        (b"---\nlicense: mit\n---\n" + b"x" * 10_000_001, "reads no metadata"),
    ],
)
def test_a_card_that_nobody_could_read_is_found_without_the_hub(tmp_path: Path, card: bytes, words: str) -> None:
    """On the way to a folder, so that no Hub is there to say it."""
    wanted = publication(tmp_path / "m", FILES | {"README.md": card})
    assert any(words in text for text in told(FolderPlace(tmp_path / "hub"), wanted))


def test_the_gravest_kind_wins_and_every_reason_is_told(on_hub: HubPlace, tiny: Publication) -> None:
    (tiny.folder / "LICENSE").unlink()
    with pytest.raises(CheckpointError, match=r"LICENSE.*cannot name a tag"):
        preflight.require(on_hub.target(), replace(tiny, tag="with space"))


@pytest.mark.parametrize("name", ["main", "v1.0", "release/2026-11", "publisher-0123456789ab"])
def test_names_that_are_fine(name: str) -> None:
    assert ref_problem(name, "tag") is None


def test_the_stricter_gate() -> None:
    assert [stricter("off", "auto"), stricter("manual", "auto"), stricter("off", "off")] == ["auto", "manual", "off"]


def test_a_secret_stops_a_push_before_anything_is_created(on_hub: HubPlace, tmp_path: Path) -> None:
    token = b"hf_" + b"aZ3kQ9xLm2Pq7Rt5Vw8Yb4Nc6Df1Gh0JsE"
    wanted = publication(tmp_path / "leaky", FILES | {"notes.md": b"token: " + token + b"\n"})
    with pytest.raises(PublisherError, match="holds secrets") as caught:
        push(on_hub.target(), wanted)
    assert token.decode() not in caught.value.message
    assert on_hub.hub.repos == {}
