"""One contract for every target: what a push does to it, driven through the real client on a loopback Hub or a disk."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import HubError, PublisherError
from publisher.hub.comparison import verify
from publisher.hub.push import push
from publisher.hub.target import Gate, Publication, Settings, Target, TransientHubError, repo_problem
from tests.hub.places import FILES, REPO, Broken, FolderPlace, HubPlace, publication

Place = FolderPlace | HubPlace
SHARD = "model-00001-of-00002.safetensors"


def no_wait(seconds: float) -> None:
    """Do not wait."""


def run(target: Any, wanted: Publication, **more: Any) -> Any:
    return push(target, wanted, sleep=no_wait, **more)


def expected(wanted: Publication) -> dict[str, bytes]:
    return {
        path.relative_to(wanted.folder).as_posix(): path.read_bytes()
        for path in wanted.folder.rglob("*")
        if path.is_file()
    }


def test_a_push_publishes_every_byte_gated(place: Place, tiny: Publication) -> None:
    record = run(place.target(), tiny)
    assert place.files() == expected(tiny)
    assert place.settings() == (False, "manual")
    assert record.verified
    assert record.root_digest == tiny.manifest.root_digest
    assert record.files == len(FILES) + 1
    assert not place.was_open()
    assert place.settings_writes() == 1


def test_weights_first_card_and_manifest_last(place: Place, tiny: Publication) -> None:
    run(place.target(), tiny)
    order = place.uploaded()
    assert set(order[:2]) == {name for name in FILES if name.endswith(".safetensors")}
    assert "model.safetensors.index.json" in order[2:]
    assert sorted(order) == sorted([*FILES, "publish.json"])


@pytest.mark.parametrize("gate", ["auto", "manual", "off"])
@pytest.mark.parametrize("private", [False, True])
def test_settings_end_as_asked(place: Place, tmp_path: Path, gate: Gate, private: bool) -> None:
    record = run(place.target(), publication(tmp_path / "m", gate=gate, private=private))
    assert place.settings() == (private, gate)
    assert (record.gate, record.visibility) == (gate, "private" if private else "public")
    assert place.was_open() == (gate == "off" and not private)


def test_a_second_push_writes_nothing(place: Place, tiny: Publication) -> None:
    run(place.target(), tiny)
    before = place.writes()
    record = run(place.target(), tiny)
    assert place.writes() == before
    assert record.sent == ()
    assert record.verified


MUTATING = ("create_private", "commit", "release")
READING = ("preflight", "settings", "tree", "read_digests", "head")


@pytest.mark.parametrize(
    ("method", "after"),
    [(m, False) for m in READING] + [(m, after) for m in MUTATING for after in (False, True)],
)
def test_a_push_that_failed_anywhere_goes_on(place: Place, tiny: Publication, method: str, after: bool) -> None:
    """Every call of a method fails once, in a push of its own; running again completes it."""
    calls = 0
    while True:
        place.clear()
        if method != "create_private":
            place.target().create_private()
            place.put("stale.bin", b"old")
        broken = Broken(place.target(), method, calls + 1, HubError("injected"), after=after)
        with contextlib.suppress(HubError):
            run(broken, tiny)
        assert not place.was_open()
        if not broken.broke:
            break
        calls += 1
        record = run(place.target(), tiny)
        assert record.verified
        assert place.files() == expected(tiny)
        assert place.settings() == (False, "manual")
        assert not place.was_open()
    assert calls >= 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", MUTATING)
def test_a_failure_that_passes_is_survived_in_one_run(
    place: Place, tiny: Publication, method: str, after: bool
) -> None:
    if method == "delete":
        place.target().create_private()
        place.put("stale.bin", b"old")
    broken = Broken(place.target(), method, 1, TransientHubError("the line went dead"), after=after)
    told: list[str] = []
    record = run(broken, tiny, emit=lambda kind, payload: told.append(kind))
    assert broken.broke
    assert record.verified
    assert place.files() == expected(tiny)
    assert "warning" in told
    assert not place.was_open()


def test_a_transfer_that_was_cut_sends_only_the_rest(place: Place, tiny: Publication) -> None:
    broken = Broken(place.target(), "commit", 2, HubError("injected"), after=False)
    with pytest.raises(HubError):
        run(broken, tiny)
    record = run(place.target(), tiny)
    assert set(record.sent) == {name for name in [*FILES, "publish.json"] if not name.endswith(".safetensors")}
    assert sorted(place.uploaded()) == sorted([*FILES, "publish.json"])


def test_stale_files_go(place: Place, tmp_path: Path) -> None:
    run(place.target(), publication(tmp_path / "old", FILES | {"old/stale.safetensors": b"9" * 99, "notes.md": b"x"}))
    new = publication(tmp_path / "new", FILES | {"config.json": b'{"new": 1}\n'})
    record = run(place.target(), new)
    assert place.files() == expected(new)
    assert set(record.removed) == {"old/stale.safetensors", "notes.md"}
    assert set(record.sent) == {"config.json", "publish.json"}


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "config.json", "README.md", "publish.json"])
def test_a_corrupted_stored_file_of_a_public_repository_is_found(place: Place, tiny: Publication, name: str) -> None:
    run(place.target(), tiny)
    place.corrupt(name)
    assert [(item.path, item.kind) for item in verify(place.target(), tiny.manifest)] == [(name, "sha256")]
    if isinstance(place, HubPlace):  # the Hub believes it has that content, so it cannot be sent again
        before = place.settings_writes()
        with pytest.raises(HubError, match=name):
            run(place.target(), tiny)
        assert place.settings() == (False, "manual"), "users of what is there are not locked out"
        assert place.settings_writes() == before
    else:
        run(place.target(), tiny)
        assert place.files() == expected(tiny)
    assert not place.was_open()


@pytest.mark.parametrize(
    ("step", "name"), [("digests", "model-00001-of-00002.safetensors"), ("read back", "config.json")]
)
def test_what_spoils_between_two_steps_is_found_before_anything_is_shown(
    place: Place, tiny: Publication, step: str, name: str
) -> None:
    def spoil(kind: str, payload: Any) -> None:
        if (kind, payload["step"]) == ("start", step):
            place.remove(name)

    with pytest.raises(HubError, match=f"{name} is missing|committed 'by hand'"):
        run(place.target(), tiny, emit=spoil)
    assert place.settings()[0]
    assert ("README.md" in place.uploaded()) == (step == "read back")


def test_a_false_success_is_not_believed(place: Place, tiny: Publication) -> None:
    target = place.target()
    broken = Broken(target, "commit", 1, HubError("unused"), after=False)
    broken._breaking = lambda method: lambda *arguments, **named: None  # type: ignore[method-assign]
    with pytest.raises(HubError, match="is missing"):
        run(broken, tiny)
    assert place.settings()[0]


def test_a_public_repository_stays_visible_and_whole_while_it_changes(
    place: Place, tiny: Publication, tmp_path: Path
) -> None:
    run(place.target(), tiny)
    old = place.files()
    new = publication(tmp_path / "new", FILES | {"config.json": b'{"new": 1}\n', SHARD: b"other bytes " * 900})
    seen: list[tuple[tuple[bool, str], bool]] = []

    def look(kind: str, payload: Any) -> None:
        seen.append((place.settings(), place.files() in (old, expected(new))))

    record = run(place.target(), new, emit=look)
    assert set(seen) == {((False, "manual"), True)}
    assert record.route == "draft"
    assert place.settings() == (False, "manual")
    assert place.files() == expected(new)


def test_a_public_open_repository_gets_its_gate_in_one_call(place: Place, tmp_path: Path) -> None:
    wanted = publication(tmp_path / "m", gate="off")
    run(place.target(), wanted)
    before = place.settings_writes()
    run(place.target(), replace(wanted, gate="auto"))
    assert place.settings() == (False, "auto")
    assert place.settings_writes() == before + 1


def test_settings_that_did_not_take_leave_it_private(place: Place, tiny: Publication) -> None:
    """The settings call is answered but shows the files without the gate: read back, hidden again, reported."""
    target = place.target()

    class Careless(Broken):
        def _breaking(self, method: Any) -> Any:
            return lambda settings: method(Settings(private=False, gate="off"))

    with pytest.raises(HubError, match="left private"):
        run(Careless(target, "release", 0, HubError(""), after=False), tiny)
    assert place.settings()[0]


@pytest.mark.parametrize("lag", [1, 2])
def test_settings_that_lag_are_waited_for(place: Place, tiny: Publication, lag: int) -> None:
    target = place.target()
    old: list[Settings] = []

    class Lagging(Broken):
        def _breaking(self, method: Any) -> Any:
            def call() -> Any:
                return old.pop() if old else method()

            return call

        def release(self, settings: Settings) -> None:
            target.release(settings)
            old.extend([Settings(private=True, gate="off")] * lag)

    waits: list[float] = []
    lagging = Lagging(target, "settings", 0, HubError(""), after=False)
    assert push(lagging, tiny, sleep=waits.append, chance=lambda: 0.0).verified
    assert waits == [2.0, 4.0][:lag]
    assert place.settings() == (False, "manual")


def test_progress_counts_bytes_and_files_to_the_end(place: Place, tiny: Publication) -> None:
    seen: list[dict[str, Any]] = []
    run(place.target(), tiny, emit=lambda kind, payload: seen.append(payload) if kind == "progress" else None)
    done = [item["done"] for item in seen]
    assert done == sorted(done)
    assert seen[-1]["done"] == seen[-1]["total"] == sum(len(data) for data in expected(tiny).values())
    assert seen[-1]["files"] == seen[-1]["files_total"] == len(FILES) + 1
    assert {"unit", "rate", "eta"} <= seen[-1].keys()


def test_a_local_file_that_changed_is_named(place: Place, tiny: Publication) -> None:
    (tiny.folder / "config.json").write_bytes(b"[]\n")
    with pytest.raises(PublisherError, match=r"config\.json changed after its manifest") as caught:
        run(place.target(), tiny)
    assert caught.value.exit_code == 2
    assert place.settings()[0]


def test_a_local_file_that_grows_during_the_push_is_named(place: Place, tiny: Publication) -> None:
    def grow(kind: str, payload: Any) -> None:
        if (kind, payload["step"]) == ("start", "last commit"):
            (tiny.folder / "config.json").write_bytes(b"longer than before")

    with pytest.raises(PublisherError, match=r"config\.json changed after its manifest"):
        run(place.target(), tiny, emit=grow)
    assert place.settings()[0]


def test_everything_wrong_locally_is_said_at_once(place: Place, tiny: Publication) -> None:
    (tiny.folder / "LICENSE").unlink()
    (tiny.folder / "config.json").write_bytes(b"longer than before")
    (tiny.folder / "publish.json").write_bytes(b"{}")
    with pytest.raises(PublisherError) as caught:
        run(place.target(), tiny)
    assert all(name in caught.value.message for name in ("LICENSE", "config.json", "publish.json"))
    assert place.writes() == 0


@pytest.mark.parametrize(
    "repo", ["model", "a/b/c", "../x", "a/..", "a/b--c", "a/b.git", "a b/c", "a/" + "b" * 96, "a/-b"]
)
def test_bad_repository_names_are_refused(place: Place, repo: str) -> None:
    assert repo_problem(repo) is not None
    assert repo_problem(REPO) is None


def test_both_targets_satisfy_the_protocol(place: Place) -> None:
    target: Target = place.target()
    assert target.repo == REPO
    assert target.settings() is None
