"""The steps of a push: their order, their record, both routes, and what others do meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub.changes import sight
from publisher.hub.comparison import verify
from publisher.hub.folder import FolderTarget
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.push import STEPS, push
from publisher.hub.target import MovedError, Publication, QuotaError, Settings
from tests.hub.loopback import LoopbackHub, Request, Stored
from tests.hub.places import FILES, REPO, Broken, FolderPlace, HubPlace, publication

Place = FolderPlace | HubPlace
SHARD = "model-00001-of-00002.safetensors"
NEW = FILES | {"config.json": b'{"new": 1}\n', SHARD: b"other bytes " * 900}


@pytest.fixture
def on_hub(hub: LoopbackHub) -> HubPlace:
    return HubPlace(hub)


@pytest.fixture
def published(on_hub: HubPlace, tiny: Publication) -> HubPlace:
    """A public gated repository with the first edition."""
    run(on_hub.target(), tiny)
    on_hub.hub.log.clear()
    return on_hub


@pytest.fixture
def new(tmp_path: Path) -> Publication:
    """The second edition."""
    return publication(tmp_path / "new", NEW)


def run(target: Any, wanted: Publication, **more: Any) -> Any:
    return push(target, wanted, sleep=lambda seconds: None, **more)


def expected(wanted: Publication) -> dict[str, bytes]:
    files = (path for path in wanted.folder.rglob("*") if path.is_file())
    return {path.relative_to(wanted.folder).as_posix(): path.read_bytes() for path in files}


def on(step: str, act: Callable[[], Any]) -> Callable[[str, Any], None]:
    """A listener that does something once, when a step begins."""
    left = [act]

    def hear(kind: str, payload: Any) -> None:
        if (kind, payload.get("step")) == ("start", step) and left:
            left.pop()()

    return hear


def somebody(place: HubPlace, name: str = "notes.md", revision: str = "main") -> None:
    """Another member of the organisation commits."""
    repo = place.hub.repos[REPO]
    files = repo.line(revision)[-1][2] | {name: Stored.of(b"mine", False)}
    repo.add("my own commit", files, revision, author="bob")


def seen(place: HubPlace) -> list[frozenset[str]]:
    """The files that anybody could see on main, every state once, in order."""
    states: list[frozenset[str]] = []
    for item in place.hub.log:
        if item.state.get(REPO, (True, False))[0] is False:
            files = frozenset(f"{path} {stored.oid}" for path, stored in item.trees[REPO].items())
            if not states or states[-1] != files:
                states.append(files)
    return states


# --- order and record ------------------------------------------------------------------------------------------------


def test_the_steps_are_told_and_recorded_in_order(place: Place, tiny: Publication) -> None:
    told: list[tuple[str, Any]] = []
    ticks = iter(range(100_000))
    record = push(
        place.target(),
        tiny,
        emit=lambda kind, payload: told.append((kind, payload["step"])),
        clock=lambda: float(next(ticks)),
    )
    names = [name for name, _ in STEPS]
    assert [step for kind, step in told if kind == "start"] == names
    left_out = ["merge", "tag"] if isinstance(place, FolderPlace) else ["merge"]
    assert [step for kind, step in told if kind == "skip"] == left_out, "a step that does nothing is not told as done"
    assert [step for kind, step in told if kind == "done"] == [name for name in names if name not in left_out]
    document = json.loads(json.dumps(record.to_json()))
    assert [step["name"] for step in document["steps"]] == names
    assert [step["name"] for step in document["steps"] if "skipped" in step] == left_out
    assert document["verified"] is True
    assert document["verified_at"] > document["steps"][-1]["time"]
    assert document["root_digest"] == tiny.manifest.root_digest
    assert document["bytes"] == sum((tiny.folder / name).stat().st_size for name in [*FILES, "publish.json"])
    assert (document["gate"], document["visibility"], document["repo"]) == ("manual", "public", REPO)
    assert (document["route"], document["released"], document["pull_request"]) == ("direct", True, None)


def test_a_push_of_what_is_there_says_of_every_step_why_it_does_nothing(place: Place, tiny: Publication) -> None:
    run(place.target(), tiny)
    told: dict[str, str] = {}

    def hear(kind: str, payload: Any) -> None:
        if kind == "skip":
            told[payload["step"]] = payload["message"]

    run(place.target(), replace(tiny, tag=None), emit=hear)
    assert told == {
        "weights": "weights: all 2 file(s) are there already",
        "last commit": "last commit: everything else is there already, and nothing is stale",
        "merge": "merge: nothing to merge: users see these files already",
        "release": "release: it is public, gate manual already",
        "tag": "tag: a folder keeps no tags" if isinstance(place, FolderPlace) else "tag: left out by --no-tag",
    }


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


def test_everything_that_makes_weights_loadable_comes_in_the_last_commit(on_hub: HubPlace, tiny: Publication) -> None:
    on_hub.target().create_private()
    on_hub.put("stale.txt", b"old")
    run(on_hub.target(), tiny)
    commits = [item.lines() for item in on_hub.hub.requests("POST", "/commit/")]
    named = [{(line["key"], line["value"]["path"]) for line in lines[1:]} for lines in commits]
    weights = {name for name in FILES if name.endswith(".safetensors")}
    assert named[0] == {("lfsFile", name) for name in weights}
    assert named[1] == {("file", name) for name in {*FILES, "publish.json"} - weights} | {("deletedFile", "stale.txt")}
    parents = [lines[0]["value"]["parentCommit"] for lines in commits]
    assert parents == [sha for sha, _, _ in on_hub.hub.repos[REPO].commits[1:3]], "each on top of the one before"


# --- the tag ---------------------------------------------------------------------------------------------------------


def test_the_released_commit_is_tagged_once(published: HubPlace, tiny: Publication, new: Publication) -> None:
    repo = published.hub.repos[REPO]
    assert repo.tags == {f"publisher-{tiny.key}": repo.head}
    assert run(published.target(), tiny).tag == f"publisher-{tiny.key}"
    assert published.hub.requests("POST", "/tag/") == []
    record = run(published.target(), replace(new, tag="v2"))
    assert (record.tag, repo.tags["v2"]) == ("v2", repo.head)
    assert run(published.target(), replace(new, tag=None)).tag is None


def test_a_tag_of_other_files_is_refused_before_anything_is_sent(
    published: HubPlace, tiny: Publication, new: Publication
) -> None:
    run(published.target(), replace(tiny, tag="v1"))
    before = published.writes()
    with pytest.raises(PublisherError, match=r"tag v1 .* holds other files"):
        run(published.target(), replace(new, tag="v1"))
    assert published.writes() == before


def test_a_tag_that_did_not_take_is_told_and_hides_nothing(on_hub: HubPlace, tiny: Publication) -> None:
    class Careless(Broken):
        def _breaking(self, method: Any) -> Any:
            return lambda *arguments, **named: None

    with pytest.raises(HubError, match="is published; its tag"):
        run(Careless(on_hub.target(), "set_tag", 0, HubError(""), after=False), tiny)
    assert on_hub.settings() == (False, "manual")
    assert run(on_hub.target(), tiny).tag


# --- updates of what is public ---------------------------------------------------------------------------------------


def test_an_update_is_one_transition_of_main(published: HubPlace, tiny: Publication, new: Publication) -> None:
    record = run(published.target(), new)
    assert len(seen(published)) == 2, "the old files, then the new ones"
    assert published.files() == expected(new)
    assert record.pull_request == f"{published.hub.endpoint}/{REPO}/discussions/1"
    assert published.hub.repos[REPO].pulls[0].status == "merged"
    assert set(published.uploaded()) == {SHARD, "config.json", "publish.json"}, "only what differs"
    assert published.hub.requests("PUT", "/settings") == []
    assert not published.was_open()


def test_what_an_update_changes_stands_in_the_log(place: Place, tiny: Publication, new: Publication) -> None:
    told: list[list[str]] = []

    def hear(kind: str, payload: Any) -> None:
        if "changes" in payload:
            told.append(payload["changes"])

    run(place.target(), tiny, emit=hear)
    run(place.target(), tiny, emit=hear)
    assert told == [], "a first edition and the same again change nothing that is there"
    run(place.target(), replace(new, gate="auto"), emit=hear)
    assert len(told) == 1
    assert "config new: (absent) to 1" in told[0]
    assert "settings: public, gate manual to public, gate auto" in told[0]


def test_an_interrupted_update_goes_on_in_the_same_pull_request(published: HubPlace, new: Publication) -> None:
    published.hub.fail("POST", "/merge$", status=422, body=b'{"error": "not now"}')
    with pytest.raises(HubError, match="not now"):
        run(published.target(), new)
    sent = len(published.hub.requests("PUT", "/_lfs/"))
    assert run(published.target(), new).verified
    pulls = published.hub.repos[REPO].pulls
    assert [pull.status for pull in pulls] == ["merged"]
    assert len(published.hub.requests("PUT", "/_lfs/")) == sent
    assert len(seen(published)) == 2


def test_a_strangers_pull_request_of_the_same_name_is_not_taken_up(published: HubPlace, new: Publication) -> None:
    """Its author could change it between the proof and the merge."""
    repo = published.hub.repos[REPO]
    token = published.hub.add_user("hf_strangerToken0000", "bob", orgs={"org": "write"})
    theirs = published.target(token).open_draft(new)
    repo.add("trap", repo.files | {"evil.py": Stored.of(b"import os", False)}, theirs.revision, author="bob")
    run(published.target(), new)
    assert [pull.status for pull in repo.pulls] == ["draft", "merged"]
    assert published.files() == expected(new)


@pytest.mark.parametrize("step", ["weights", "last commit", "read back", "merge"])
def test_whoever_commits_to_a_public_main_meanwhile_is_named_and_keeps_what_they_made(
    published: HubPlace, tiny: Publication, new: Publication, step: str
) -> None:
    """A person agreed to the difference that they were shown, and to no other."""
    with pytest.raises(MovedError, match=r"bob committed 'my own commit': notes\.md is not in the manifest") as caught:
        run(published.target(), new, emit=on(step, lambda: somebody(published)))
    assert caught.value.exit_code == 4
    assert "run again" in caught.value.hint
    assert published.files() == expected(tiny) | {"notes.md": b"mine"}
    assert published.settings() == (False, "manual")
    assert [pull.status for pull in published.hub.repos[REPO].pulls] == ["draft"]
    changed: list[str] = []
    sent = len(published.hub.requests("PUT", "/_lfs/"))
    record = run(published.target(), new, emit=lambda kind, payload: changed.extend(payload.get("changes", [])))
    assert "removed notes.md (4 B)" in changed, "the next run tells first what it takes away"
    assert (record.verified, record.removed) == (True, ("notes.md",))
    assert len(published.hub.requests("PUT", "/_lfs/")) == sent, "nothing is sent twice"
    assert published.files() == expected(new)
    assert [pull.status for pull in published.hub.repos[REPO].pulls] == ["closed", "merged"]


def test_a_file_that_somebody_adds_to_our_pull_request_ends_the_push(published: HubPlace, new: Publication) -> None:
    with pytest.raises(MovedError, match="bob committed"):
        run(published.target(), new, emit=on("last commit", lambda: somebody(published, revision="refs/pr/1")))
    assert run(published.target(), new).verified
    assert published.files() == expected(new)


def test_what_somebody_committed_and_took_back_or_what_is_in_the_manifest_is_no_obstacle(
    published: HubPlace, new: Publication
) -> None:
    repo = published.hub.repos[REPO]

    def act() -> None:
        before = dict(repo.files)
        somebody(published)
        ours = Stored.of((new.folder / "config.json").read_bytes(), False)
        repo.add("taken back", before | {"config.json": ours}, author="bob")

    record = run(published.target(), new, emit=on("merge", act))
    assert published.files() == expected(new)
    assert [pull.status for pull in repo.pulls] == ["merged"]
    assert [step["name"] for step in record.steps] == [name for name, _ in STEPS], "in one go"


def test_a_commit_between_the_last_look_and_the_merge_is_told_as_it_is(published: HubPlace, new: Publication) -> None:
    """The Hub merges a pull request into whatever main has become, if nothing conflicts."""
    late(published, "notes.md")
    with pytest.raises(
        MovedError, match=r"moment in which this push landed: bob committed .* Users see both"
    ) as caught:
        run(published.target(), new)
    assert "notes.md is not in the manifest" in caught.value.message
    assert "take away" in caught.value.hint
    assert published.files() == expected(new) | {"notes.md": b"mine"}
    assert run(published.target(), new).removed == ("notes.md",)
    assert published.files() == expected(new)


def test_a_merge_that_conflicts_ends_the_push(published: HubPlace, tiny: Publication, new: Publication) -> None:
    """Between the look at main and the merge somebody changes a file that the pull request changes too."""
    late(published, "config.json")
    with pytest.raises(MovedError, match=r"bob committed 'my own commit': config\.json has") as caught:
        run(published.target(), new)
    assert "run again" in caught.value.hint
    assert published.files() == expected(tiny) | {"config.json": b"mine"}
    assert run(published.target(), new).verified
    assert published.files() == expected(new)
    assert [pull.status for pull in published.hub.repos[REPO].pulls] == ["closed", "merged"]


def late(place: HubPlace, name: str) -> None:
    """Somebody commits to main right before our merge."""
    acted: list[int] = []

    def hook(request: Request) -> None:
        if request.method == "POST" and request.path.endswith("/merge") and not acted:
            acted.append(1)
            somebody(place, name)

    place.hub.faults.append(hook)  # type: ignore[arg-type]


def test_what_changed_after_a_person_was_asked_ends_the_push_before_it_does_anything(
    place: Place, tiny: Publication, new: Publication
) -> None:
    run(place.target(), tiny)
    shown = sight(place.target(), new.manifest)
    place.put("notes.md", b"mine")
    writes = place.writes()
    with pytest.raises(MovedError, match=r"after you were asked: notes\.md is not in the manifest \(4 B.*sent nothing"):
        run(place.target(), replace(new, agreed=shown))
    assert place.writes() == writes
    place.remove("notes.md")
    assert run(place.target(), replace(new, agreed=shown)).verified
    assert run(place.target(), replace(new, agreed=sight(place.target(), new.manifest))).sent == ()


def test_a_repository_that_appeared_after_a_person_was_asked_is_not_written_over(
    place: Place, tiny: Publication, new: Publication
) -> None:
    shown = sight(None, new.manifest)
    run(place.target(), tiny)
    with pytest.raises(MovedError, match="after you were asked"):
        run(place.target(), replace(new, agreed=shown))
    assert place.files() == expected(tiny)


def test_a_stricter_gate_is_set_before_the_first_byte_a_looser_one_after_the_merge(
    published: HubPlace, new: Publication
) -> None:
    repo = published.hub.repos[REPO]
    repo.gated = "auto"
    run(published.target(), new)
    order = [
        "gate" if item.path.endswith("/settings") else item.path.rsplit("/", 2)[1 if "commit" in item.path else 2]
        for item in published.hub.log
        if item.method in ("PUT", "POST") and any(p in item.path for p in ("/settings", "/commit/", "/merge", "_lfs/"))
    ]
    assert order[0] == "gate"
    assert order.count("gate") == 1
    published.hub.log.clear()
    run(published.target(), replace(publication(new.folder.parent / "third", FILES), gate="auto"))
    calls = [item.path.rsplit("/", 1)[1] for item in published.hub.log if item.method in ("PUT", "POST")]
    assert calls.index("merge") < calls.index("settings")
    assert published.settings() == (False, "auto")
    assert not published.was_open()


def test_a_proposal_changes_nothing_that_users_see(published: HubPlace, new: Publication) -> None:
    repo, before = published.hub.repos[REPO], published.files()
    told: list[tuple[str, Any]] = []
    record = run(
        published.target(), replace(new, propose=True), emit=lambda kind, item: told.append((kind, item["step"]))
    )
    assert [step for kind, step in told if kind == "skip"] == ["merge", "release", "settings", "tag"]
    assert [step for kind, step in told if kind == "done"] == [name for name, _ in STEPS[:6]], "and no other is told"
    assert (record.released, record.tag, record.revision) == (False, None, "refs/pr/1")
    assert published.files() == before
    assert repo.pulls[0].status == "draft"
    assert verify(published.target().at("refs/pr/1"), new.manifest) == []
    again = run(published.target(), replace(new, propose=True))
    assert (again.pull_request, len(repo.pulls), again.sent) == (record.pull_request, 1, ())
    assert run(published.target(), new).released
    assert published.files() == expected(new)


def test_a_public_repository_that_shall_be_private_is_hidden_first(published: HubPlace, new: Publication) -> None:
    record = run(published.target(), replace(new, private=True))
    assert record.route == "direct"
    assert published.settings() == (True, "manual")
    assert len(seen(published)) == 1, "nothing of the new files"


# --- branches --------------------------------------------------------------------------------------------------------


def test_a_new_branch_of_a_public_repository_appears_whole(published: HubPlace, new: Publication) -> None:
    repo, head = published.hub.repos[REPO], published.hub.repos[REPO].head
    states: list[int] = []
    published.hub.faults.append(
        lambda request: states.append(len(repo.sides["next"][-1][2])) if "next" in repo.sides else None  # type: ignore[func-returns-value]
    )
    record = run(published.target(), replace(new, revision="next"))
    assert repo.head == head
    assert set(states) == {len(expected(new)) + 1}
    assert (record.revision, set(repo.sides)) == ("next", {"next"})
    assert record.url == f"{published.hub.endpoint}/{REPO}/tree/next", "where these files are seen"
    assert repo.tags[record.tag] == repo.sides["next"][-1][0] == record.commit


def test_an_existing_branch_of_a_public_repository_changes_in_one_commit(
    published: HubPlace, tiny: Publication, new: Publication
) -> None:
    repo = published.hub.repos[REPO]
    run(published.target(), replace(tiny, revision="next"))
    before = len(repo.sides["next"])
    puts = len(published.hub.requests("PUT", "/_lfs/"))
    run(published.target(), replace(new, revision="next"))
    assert len(repo.sides["next"]) == before + 1
    assert verify(published.target().at("next"), new.manifest) == []
    assert len(published.hub.requests("PUT", "/_lfs/")) == puts + 1, "each content is sent once"
    assert set(repo.sides) == {"next"}, "the staging branch is gone"


def test_a_branch_of_a_new_private_repository(on_hub: HubPlace, tiny: Publication) -> None:
    record = run(on_hub.target(), replace(tiny, revision="next", private=True))
    assert on_hub.settings()[0]
    assert list(on_hub.hub.repos[REPO].files) == [".gitattributes"]
    assert verify(on_hub.target().at("next"), tiny.manifest) == []
    assert (record.route, record.revision) == ("direct", "next")


# --- private storage that is too small -------------------------------------------------------------------------------


def test_where_private_storage_is_too_small_an_empty_gated_repository_is_shown_first(
    place: Place, tiny: Publication
) -> None:
    if isinstance(place, FolderPlace):
        return  # a disk has one room for both
    place.hub.private_quota = 5000  # the first shard fits, both do not
    told: list[str] = []
    record = run(place.target(), replace(tiny, gate="auto"), emit=lambda kind, payload: told.append(str(payload)))
    assert (record.route, record.verified) == ("draft", True)
    assert place.settings() == (False, "auto")
    assert place.files() == expected(tiny)
    assert not place.was_open()
    states = seen(place)
    assert [len(state) for state in states] == [1, len(FILES) + 2], "empty, then whole"
    assert any("behind a manual gate" in text for text in told)
    settings = [item.json() for item in place.hub.requests("PUT", "/settings")]
    assert settings == [
        {"gated": "manual", "visibility": "private"},
        {"gated": "manual", "visibility": "public"},
        {"gated": "auto", "visibility": "public"},
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [({"public_staging": False}, "--no-public-staging forbids"), ({"private": True}, "is to stay private")],
)
def test_public_staging_that_is_not_wanted_is_an_error(
    on_hub: HubPlace, tiny: Publication, change: dict[str, Any], why: str
) -> None:
    on_hub.hub.private_quota = 100
    with pytest.raises(QuotaError, match=why) as caught:
        run(on_hub.target(), replace(tiny, **change))
    assert caught.value.exit_code == 3
    assert on_hub.settings()[0]


def test_a_repository_with_a_history_of_its_own_is_never_shown_for_room(on_hub: HubPlace, tiny: Publication) -> None:
    on_hub.target().create_private()
    somebody(on_hub, "secret.txt")
    on_hub.hub.private_quota = 100
    with pytest.raises(QuotaError, match="history of its own"):
        run(on_hub.target(), tiny)
    assert on_hub.settings() == (True, "off")


# --- others at work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["weights", "last commit", "release"])
def test_whoever_commits_to_a_private_repository_meanwhile_is_named(
    on_hub: HubPlace, tiny: Publication, step: str
) -> None:
    with pytest.raises(MovedError, match="bob committed 'my own commit'") as caught:
        run(on_hub.target(), tiny, emit=on(step, lambda: somebody(on_hub)))
    assert caught.value.exit_code == 4
    assert on_hub.settings()[0]
    assert run(on_hub.target(), tiny).verified
    assert on_hub.files() == expected(tiny)


def test_a_commit_that_somebody_slips_in_is_refused_by_the_hub_and_told(on_hub: HubPlace, tiny: Publication) -> None:
    acted: list[int] = []

    def late(request: Request) -> None:
        if request.method == "POST" and "/commit/" in request.path and not acted:
            acted.append(1)
            somebody(on_hub)

    on_hub.hub.faults.append(late)  # type: ignore[arg-type]
    with pytest.raises(MovedError, match="bob committed"):
        run(on_hub.target(), tiny)
    assert [item.status for item in on_hub.hub.requests("POST", "/commit/")] == [412]
    assert on_hub.settings()[0]


@pytest.mark.parametrize("step", ["weights", "last commit", "read back"])
@pytest.mark.parametrize("gate", ["off", "manual"])
def test_a_repository_that_somebody_shows_too_early_is_hidden_again(
    on_hub: HubPlace, tiny: Publication, step: str, gate: str
) -> None:
    told: list[str] = []
    act = on(step, lambda: on_hub.show(gate))

    def hear(kind: str, payload: Any) -> None:
        act(kind, payload)
        if kind == "warning":
            told.append(payload["message"])

    record = run(on_hub.target(), tiny, emit=hear)
    assert record.verified
    assert on_hub.settings() == (False, "manual")
    assert step == "read back" or any("public before it was proven" in text for text in told)
    whole = [frozenset(f"{path} {stored.oid}" for path, stored in on_hub.hub.repos[REPO].files.items())]
    assert seen(on_hub)[-1:] == whole


def test_a_failure_leaves_nothing_visible_that_was_not_proven(on_hub: HubPlace, tiny: Publication) -> None:
    def act() -> None:
        on_hub.show("off")
        on_hub.remove(SHARD)

    with pytest.raises(HubError):
        run(on_hub.target(), tiny, emit=on("digests", act))
    assert on_hub.settings()[0]


def test_a_gate_that_somebody_opens_during_an_update_is_closed_again(published: HubPlace, new: Publication) -> None:
    def act() -> None:
        published.hub.repos[REPO].gated = False

    run(published.target(), new, emit=on("last commit", act))
    assert published.settings() == (False, "manual")


def test_two_pushes_of_different_files_at_once(on_hub: HubPlace, tiny: Publication, new: Publication) -> None:
    outcomes: dict[str, Any] = {}
    both = threading.Barrier(2)

    def one(name: str, wanted: Publication) -> None:
        def hear(kind: str, payload: Any) -> None:
            if (kind, payload["step"]) == ("start", "weights"):
                both.wait(20)

        try:
            outcomes[name] = run(on_hub.target(), wanted, emit=hear)
        except (PublisherError, threading.BrokenBarrierError) as error:
            outcomes[name] = error

    threads = [threading.Thread(target=one, args=pair) for pair in (("a", tiny), ("b", new))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    won = [name for name, outcome in outcomes.items() if not isinstance(outcome, Exception)]
    lost = [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]
    assert len(won) == 1, outcomes
    assert isinstance(lost[0], MovedError)
    assert "was changed while this push was running" in lost[0].message
    assert on_hub.files() == expected({"a": tiny, "b": new}[won[0]])
    assert on_hub.settings() == (False, "manual")
    whole = [len(state) for state in seen(on_hub)]
    assert set(whole) == {len(FILES) + 2}


def test_two_pushes_of_the_same_files_at_once_both_succeed(on_hub: HubPlace, tiny: Publication) -> None:
    second: list[Any] = []
    record = run(on_hub.target(), tiny, emit=on("last commit", lambda: second.append(run(on_hub.target(), tiny))))
    assert record.verified
    assert second[0].verified
    assert record.commit == second[0].commit
    titles = [title for _, title, _ in on_hub.hub.repos[REPO].commits]
    assert titles == ["initial commit", "Add weights", f"Publish {tiny.key}"], "nothing twice"


def test_a_second_push_into_a_folder_is_refused_while_one_is_running(tmp_path: Path, tiny: Publication) -> None:
    refused: list[HubError] = []

    def second() -> None:
        try:
            run(FolderTarget(tmp_path / "hub", REPO), tiny)
        except HubError as error:
            refused.append(error)

    assert run(FolderTarget(tmp_path / "hub", REPO), tiny, emit=on("last commit", second)).verified
    assert "Another push is writing" in refused[0].message
    assert refused[0].exit_code == 4
    assert run(FolderTarget(tmp_path / "hub", REPO), tiny).sent == ()


# --- lost replies ----------------------------------------------------------------------------------------------------


def test_a_lost_reply_to_anything_is_settled_by_looking(published: HubPlace, new: Publication) -> None:
    for pattern in ("/discussions$", "/commit/", "/merge$", "/tag/", "/status$"):
        published.hub.fail("POST", pattern, lose_reply=True)
    record = run(published.target(), new)
    assert record.verified
    repo = published.hub.repos[REPO]
    assert len(repo.pulls) == 1, "no second pull request"
    assert [title for _, title, _ in repo.sides["refs/pr/1"]].count("Add weights") == 2, "of both editions, one each"
    assert published.files() == expected(new)
