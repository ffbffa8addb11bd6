"""Drafts on the Hub: found again by content, author and starting point, landed once, given up cleanly."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.target import Draft, MovedError, Publication
from tests.hub.loopback import LoopbackHub, Repo, Stored
from tests.hub.places import FILES, REPO, HubPlace, publication


@pytest.fixture
def repo(hub: LoopbackHub) -> Repo:
    return hub.seed_repo(REPO, {"config.json": b"{}"})


@pytest.fixture
def target(hub: LoopbackHub, repo: Repo) -> HuggingFaceTarget:
    return HubPlace(hub).target()


def fill(target: HuggingFaceTarget, draft: Draft, wanted: Publication) -> None:
    place = target.at(draft.revision)
    place.commit(
        {"LICENSE": wanted.folder / "LICENSE"},
        ["config.json"],
        message="fill",
        mark=wanted.mark,
        parent=place.head(),
        progress=lambda path, size: None,
    )


def test_a_draft_is_found_by_its_content(target: HuggingFaceTarget, tiny: Publication, tmp_path: Path) -> None:
    assert target.find_draft(tiny) is None
    made = target.open_draft(tiny)
    found = target.find_draft(tiny)
    assert found is not None
    assert (found.revision, found.number, found.reused) == (made.revision, made.number, True)
    assert target.find_draft(publication(tmp_path / "other", FILES | {"config.json": b"[]"})) is None


def test_one_of_many_discussions_is_found(hub: LoopbackHub, target: HuggingFaceTarget, tiny: Publication) -> None:
    made = target.open_draft(tiny)
    for number in range(30):
        target.ask("talk", lambda api, n=number: api.create_pull_request(REPO, f"talk {n}"))
    assert (found := target.find_draft(tiny)) is not None
    assert found.number == made.number
    assert len(hub.requests("GET", "/discussions$")) > 3, "page by page"


@pytest.mark.parametrize("ends", ["closed", "merged"])
def test_a_draft_that_has_ended_is_not_found(
    hub: LoopbackHub, repo: Repo, target: HuggingFaceTarget, tiny: Publication, ends: str
) -> None:
    draft = target.open_draft(tiny)
    if ends == "closed":
        target.close_draft(draft, reason="no longer wanted")
    else:
        fill(target, draft, tiny)
        target.land(draft, message="Publish")
    assert target.find_draft(tiny) is None
    target.close_draft(draft, reason="twice")
    assert repo.pulls[0].status == ends


def test_a_draft_of_an_older_main_is_closed_when_a_new_one_is_opened(
    repo: Repo, target: HuggingFaceTarget, tiny: Publication
) -> None:
    target.open_draft(tiny)
    repo.add("somebody's", repo.files | {"x": Stored.of(b"x", False)})
    assert target.find_draft(tiny) is None
    new = target.open_draft(tiny)
    assert [pull.status for pull in repo.pulls] == ["closed", "draft"]
    assert new.base == repo.head


def test_landing_twice_merges_once(hub: LoopbackHub, repo: Repo, target: HuggingFaceTarget, tiny: Publication) -> None:
    draft = target.open_draft(tiny)
    fill(target, draft, tiny)
    target.land(draft, message="Publish")
    head = repo.head
    target.land(draft, message="Publish")
    assert repo.head == head
    assert set(repo.files) == {".gitattributes", "LICENSE"}
    assert len(hub.requests("POST", "/merge$")) == 1


def test_a_draft_that_somebody_closed_does_not_land(repo: Repo, target: HuggingFaceTarget, tiny: Publication) -> None:
    draft = target.open_draft(tiny)
    repo.pulls[0].status = "closed"
    with pytest.raises(MovedError, match="was closed by somebody"):
        target.land(draft, message="Publish")


def test_a_draft_in_conflict_does_not_land(repo: Repo, target: HuggingFaceTarget, tiny: Publication) -> None:
    draft = target.open_draft(tiny)
    fill(target, draft, tiny)
    repo.add("somebody's", repo.files | {"config.json": Stored.of(b"[]", False)})
    with pytest.raises(MovedError, match="conflicts"):
        target.land(draft, message="Publish")
    assert repo.files["config.json"].data == b"[]"


# --- towards another branch ------------------------------------------------------------------------------------------


def test_a_staging_branch_becomes_the_branch(repo: Repo, target: HuggingFaceTarget, tiny: Publication) -> None:
    branch = target.at("next")
    draft = branch.open_draft(tiny)
    fill(target, draft, tiny)
    assert (found := branch.find_draft(tiny)) is not None
    assert found.reused
    branch.land(draft, message="Publish")
    branch.land(draft, message="Publish")
    branch.close_draft(draft, reason="landed")
    assert set(repo.sides) == {"next"}
    assert set(repo.sides["next"][-1][2]) == {".gitattributes", "LICENSE"}
    assert set(repo.files) == {".gitattributes", "config.json"}, "main is as it was"


def test_a_staging_branch_that_starts_elsewhere_is_made_anew(
    repo: Repo, target: HuggingFaceTarget, tiny: Publication
) -> None:
    branch = target.at("next")
    draft = branch.open_draft(tiny)
    repo.add("somebody's", dict(repo.files), draft.revision, message="not ours")
    assert branch.find_draft(tiny) is None
    branch.open_draft(tiny)
    assert repo.sides[draft.revision][-1][0] == repo.head


def test_a_branch_that_moved_is_not_overwritten(repo: Repo, target: HuggingFaceTarget, tiny: Publication) -> None:
    target.create_branch("next", repo.head)
    branch = target.at("next")
    draft = branch.open_draft(tiny)
    fill(target, draft, tiny)
    repo.add("somebody's", repo.files | {"x": Stored.of(b"x", False)}, "next")
    with pytest.raises(Exception, match="branch was updated"):
        branch.land(draft, message="Publish")
    assert "x" in repo.sides["next"][-1][2]
