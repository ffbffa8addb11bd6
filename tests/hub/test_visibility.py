"""What anybody could see while a push worked, on every target and transport: never a part, never without its gate."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import HubError, PublisherError
from publisher.hub.push import push
from publisher.hub.target import Publication, TransientHubError
from tests.hub.places import FILES, Broken, FolderPlace, HubPlace, publication

Place = FolderPlace | HubPlace
SHARDS = 12
CREATING = ("create_private", "commit", "release", "hide", "set_tag")
CHANGING = ("find_draft", "open_draft", "commit", "land", "close_draft", "set_tag")
READING = ("settings", "tree", "read_digests", "head", "history")


def run(target: Any, wanted: Publication, **more: Any) -> Any:
    return push(target, wanted, sleep=lambda seconds: None, **more)


def contents(wanted: Publication) -> dict[str, bytes]:
    found = (path for path in wanted.folder.rglob("*") if path.is_file())
    return {path.relative_to(wanted.folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def update(tmp_path: Path) -> Publication:
    """The next version: one other shard, one other side file, one file more and one less."""
    files = {name: data for name, data in FILES.items() if name != "tokenizer/vocab.txt"}
    files |= {"model-00001-of-00002.safetensors": b"other bytes " * 400, "config.json": b"[]\n", "more.json": b"{}\n"}
    return publication(tmp_path / "update", files)


def calls_that_fail(place: Place, method: str) -> range:
    """Which calls of a method to let fail: every one, but of those that only read and ask a Hub every fourth."""
    return range(1, 1000, 4 if isinstance(place, HubPlace) and method in READING else 1)


def moments(changing: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Methods, and whether they fail after they did their work; to those that only read that makes no difference."""
    return [(method, after) for method in changing for after in (False, True)] + [(name, False) for name in READING]


@pytest.mark.parametrize(("method", "after"), moments(CREATING))
def test_a_new_repository_is_seen_whole_or_not_at_all(
    place: Place, tiny: Publication, method: str, after: bool
) -> None:
    """Every call of a method fails once, in a push of its own; running again completes it."""
    for call in calls_that_fail(place, method):
        place.clear()
        broken = Broken(place.target(), method, call, HubError("injected"), after=after)
        with contextlib.suppress(HubError):
            run(broken, tiny)
        if broken.broke:
            assert run(place.target(), tiny).verified
        assert place.files() == contents(tiny)
        assert place.settings() == (False, "manual")
        assert place.shown_in_parts(contents(tiny)) == []
        assert not place.was_open()
        if not broken.broke:
            break


@pytest.mark.parametrize(("method", "after"), moments(CHANGING))
def test_an_update_is_seen_whole_or_not_at_all(
    place: Place, tiny: Publication, update: Publication, method: str, after: bool
) -> None:
    """The old files until the new ones are proven; users are never locked out, wherever a push fails."""
    for call in calls_that_fail(place, method):
        place.clear()
        run(place.target(), tiny)
        broken = Broken(place.target(), method, call, HubError("injected"), after=after)
        with contextlib.suppress(HubError):
            run(broken, update)
        assert place.files() in (contents(tiny), contents(update))
        if broken.broke:
            assert run(place.target(), update).verified
        assert place.files() == contents(update)
        assert place.shown_in_parts(contents(tiny), contents(update)) == []
        assert place.states() == [(True, "off"), (False, "manual")]
        if not broken.broke:
            break


@pytest.mark.parametrize("method", ["open_draft", "commit", "land", "close_draft"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_update_survives_a_bad_moment_in_one_run(
    place: Place, tiny: Publication, update: Publication, method: str, after: bool
) -> None:
    run(place.target(), tiny)
    broken = Broken(place.target(), method, 1, TransientHubError("the line went dead"), after=after)
    assert run(broken, update).verified
    assert broken.broke
    assert place.files() == contents(update)
    assert place.shown_in_parts(contents(tiny), contents(update)) == []


def test_a_checkpoint_of_many_shards_is_shown_once(place: Place, tmp_path: Path) -> None:
    """Weights, then what makes them loadable, then one settings call."""
    folder = tmp_path / "large"
    folder.mkdir()
    names = [f"model-{number:05d}-of-{SHARDS:05d}.safetensors" for number in range(1, SHARDS + 1)]
    for number, name in enumerate(names):
        with (folder / name).open("wb") as file:
            file.truncate(1 << 16)
            file.seek(number * 8)
            file.write(name.encode())
    wanted = publication(folder, FILES)
    shards = {*names, *(name for name in FILES if name.endswith(".safetensors"))}
    record = run(place.target(), wanted)
    assert record.verified
    assert place.files() == contents(wanted)
    order = place.uploaded()
    assert set(order[: len(shards)]) == shards
    assert sorted(order) == sorted(contents(wanted))
    assert place.states() == [(True, "off"), (False, "manual")]
    assert place.settings_writes() == 1
    assert place.shown_in_parts(contents(wanted)) == []
    steps = [step["name"] for step in record.steps]
    assert steps.index("weights") < steps.index("last commit") < steps.index("read back") < steps.index("release")


def test_the_log_notices_what_this_suite_is_for(place: Place, tiny: Publication) -> None:
    """The promises can fail: files put into a public repository one by one are seen in parts."""
    run(place.target(), tiny)
    whole = contents(tiny)
    assert place.shown_in_parts(whole) == []
    target = place.target()
    for before, name in pairwise([None, "config.json", "LICENSE"]):
        changed = tiny.folder / name
        changed.write_bytes(b"changed\n")
        parent = target.head()
        target.commit({name: changed}, message=str(before), mark="", parent=parent, progress=lambda path, done: None)
    assert target.settings() is not None
    assert len(place.shown_in_parts(whole)) == 2


def test_a_push_that_nobody_lets_finish_is_never_seen(place: Place, tiny: Publication) -> None:
    broken = Broken(place.target(), "commit", 0, HubError("injected"), after=False)
    broken._breaking = lambda method: _refuse  # type: ignore[method-assign]
    with pytest.raises(PublisherError):
        run(broken, tiny)
    assert place.states() in ([(True, "off")], [])
    assert place.shown_in_parts() == []


def _refuse(*arguments: Any, **named: Any) -> Any:
    raise HubError("injected")
