"""How far a push is, although the client does not say."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher.hub import progress
from publisher.hub.progress import Meter, positions
from publisher.manifest import FileEntry

ON_LINUX = pytest.mark.skipif(not progress.DESCRIPTORS.is_dir(), reason="this system does not tell file positions")


def entries(**sizes: int) -> dict[str, FileEntry]:
    return {path: FileEntry(path=path, size=size, sha256="") for path, size in sizes.items()}


class Told:
    """What a meter told, by a clock that a test sets."""

    def __init__(self, passes: int = 1, **sizes: int) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.now = 0.0
        self.meter = Meter(entries=entries(**sizes), tell=self.events.append, clock=lambda: self.now, passes=passes)


def test_at_most_two_a_second_and_the_end_always() -> None:
    told = Told(a=1000, b=1000)
    told.meter.found(set())
    for tenth in range(50):
        told.now = tenth / 10
        told.meter("a", tenth * 10)
    assert len(told.events) <= 11
    told.meter("a", 1000)
    told.meter("b", 1000)
    assert told.events[-1] | {"rate": 0, "eta": 0} == {
        "done": 2000, "total": 2000, "unit": "bytes", "files": 2, "files_total": 2, "rate": 0, "eta": 0,
    }  # fmt: skip


def test_rate_and_remaining_time_leave_out_what_was_there_already() -> None:
    told = Told(there=10_000, a=1000, b=3000)
    told.meter.found({"there", "a stranger"})
    told.now = 2.0
    told.meter("a", 1000)
    event = told.events[-1]
    assert (event["done"], event["files"]) == (11_000, 2)
    assert event["rate"] == pytest.approx(500)
    assert event["eta"] == pytest.approx(6)


def test_progress_never_goes_back() -> None:
    told = Told(a=1000)
    told.meter.found(set())
    for now, count in ((1, 600), (2, 200), (3, 700), (4, 1000)):
        told.now = now
        told.meter("a", count)
    done = [event["done"] for event in told.events]
    assert done == sorted(done)
    assert done[-1] == 1000


def test_no_time_and_no_bytes_make_no_rate() -> None:
    told = Told(a=0)
    told.meter.found(set())
    told.meter("a", 0)
    assert told.events[-1]["rate"] is None
    assert told.events[-1]["eta"] is None


@ON_LINUX
def test_positions_are_those_of_open_files(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(bytes(5000))
    names = {str(path.resolve()): "a", "/nowhere": "b"}
    assert positions(names) == {}
    with path.open("rb", buffering=0) as file:
        file.read(1234)
        assert positions(names) == {"a": 1234}
        with path.open("rb", buffering=0) as other:
            other.read(2000)
            assert positions(names) == {"a": 2000}, "the reader that is further"


@ON_LINUX
@pytest.mark.parametrize(("passes", "counts"), [(1, [400, 1000]), (2, [200, 500, 700, 1000])])
def test_a_transfer_is_watched_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: int, counts: list[int]
) -> None:
    """A reader that nobody told of us: with two passes, the first one takes the digest."""
    monkeypatch.setattr(progress, "TELL", 0.01)
    path = tmp_path / "shard"
    path.write_bytes(bytes(1000))
    told = Told(passes=passes, a=1000)
    ticks = iter(range(10**9))
    told.meter.clock = lambda: float(next(ticks))
    told.meter.found(set())
    left = iter(counts)
    with told.meter.watching({"a": path}):
        for _ in range(passes):
            with path.open("rb", buffering=0) as file:
                for size in (400, 600):
                    file.read(size)
                    _wait_for(told, next(left))
    assert [event["files"] for event in told.events] == [0] * len(told.events), "complete is what the target says"


def _wait_for(told: Told, done: int) -> None:
    """Until that many bytes have been told; the watcher looks a hundred times a second."""
    for _ in range(1000):
        if any(event["done"] == done for event in told.events):
            return
        time.sleep(0.01)
    pytest.fail(f"{done} was never told: {[event['done'] for event in told.events]}")


def test_where_the_system_does_not_tell_nothing_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DESCRIPTORS", tmp_path / "none")
    told = Told(a=1000)
    with told.meter.watching({"a": tmp_path / "a"}):
        assert threading.active_count() == len(threading.enumerate())
    assert told.events == []
    assert positions({"a": "a"}) == {}
