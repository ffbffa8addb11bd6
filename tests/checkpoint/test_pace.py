"""When a Hub asks to wait, and for how long."""

from __future__ import annotations

import time

import pytest

from publisher.checkpoint.pace import Pace, asked_wait
from publisher.errors import HubError, InterruptedRun


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"RateLimit": '"api";r=0;t=55'}, 56),
        (200, {"RateLimit": '"api";r=0;t=55'}, 56),
        (200, {"RateLimit": '"api";r=12;t=55'}, None),
        (429, {"RateLimit": '"api" ; r = 0 ; t = 5', "Retry-After": "99"}, 6),
        (429, {"RateLimit": '"api";r=0;t=' + "9" * 4301}, 1e9),
        (429, {"Retry-After": "120"}, 121),
        (503, {"Retry-After": " 3 "}, 4),
        (200, {"Retry-After": "3"}, None),
        (429, {"Retry-After": "٣"}, None),
        (429, {"Retry-After": "1e400"}, None),
        (429, {"Retry-After": "9" * 4000}, 1e9 + 1),
        (429, {}, None),
    ],
)
def test_what_a_reply_asks(status: int, headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(status, headers) == seconds


def test_one_kind_of_request_does_not_hold_back_the_other() -> None:
    pace = Pace()
    pace.hold("api", 60)
    began = time.monotonic()
    pace.wait("files")
    assert time.monotonic() - began < 1


def test_the_wait_lasts_and_is_told_once() -> None:
    told: list[str] = []
    pace = Pace(told.append)
    for _ in range(16):
        pace.hold("files", 2.05)
    assert len(told) == 1
    assert "2 s" in told[0]
    pace = Pace()
    pace.hold("files", 0.1)
    began = time.monotonic()
    pace.wait("files")
    assert time.monotonic() - began >= 0.09


def test_nobody_waits_for_hours() -> None:
    with pytest.raises(HubError, match="1 h 00 min"):
        Pace().hold("api", 3600)


def test_after_a_stop_nothing_goes_out() -> None:
    pace = Pace()
    pace.stop()
    with pytest.raises(InterruptedRun):
        pace.wait("files")
    with pytest.raises(InterruptedRun):
        pace.sleep(100)
