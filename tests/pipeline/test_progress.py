"""Progress: what, of how much, how fast, how long still; not too often."""

from __future__ import annotations

import pytest

from publisher.journal import Event, Journal
from publisher.pipeline.progress import Told


def test_progress_is_told_twice_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("publisher.pipeline.progress.time.monotonic", lambda: now[0])
    heard: list[Event] = []
    told = Told(Journal(None, heard.append), "validate", "bytes")
    for second in (0.1, 0.6, 0.7, 2.0):
        now[0] = 100 + second
        told(int(second * 100), 400)
    assert [event.payload["done"] for event in heard] == [60, 200]
    assert heard[-1].payload["rate"] == pytest.approx(100)
    assert heard[-1].payload["eta"] == pytest.approx(2)
