"""Programs print events that the journal reads; progress tells what, how much, how fast and how long."""

from __future__ import annotations

import pytest

from publisher import journal
from publisher.native import events


def test_events_are_lines_the_journal_reads(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit("quantize", "start", message="native\nengine")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    event = journal.parse(lines[0])
    assert event is not None
    assert (event.stage, event.kind, event.payload["message"]) == ("quantize", "start", "native\nengine")


def test_progress_has_rate_and_eta_and_ends_at_its_total(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("publisher.native.events.time.monotonic", lambda: now[0])
    progress = events.Progress("quantize", 1000, "bytes", interval=1.0)
    now[0] = 101.0
    progress.add(250, tensor="a")
    progress.add(50)  # within the interval: counted, not printed
    now[0] = 104.0
    progress.add(700)
    found = [journal.parse(line) for line in capsys.readouterr().out.splitlines()]
    assert [event.payload["done"] for event in found if event] == [250, 1000]
    first, last = (event.payload for event in found if event)
    assert (first["rate"], first["eta"], first["tensor"]) == (250.0, 3.0, "a")
    assert (last["rate"], last["eta"]) == (250.0, 0.0)
