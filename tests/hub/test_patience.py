"""How long is waited and how often is tried again."""

from __future__ import annotations

import pytest

from publisher.hub.patience import LONGEST, Patience, asked_to_wait
from publisher.hub.target import OvertakenError, TransientHubError


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "999999"}, LONGEST),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, 50.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
        ({"RateLimit": '"api";r=0;t=55'}, 56.0),
        ({"RateLimit": '"api";r=3;t=55'}, None),
        ({"RateLimit": '"api";r=9;t=55, "resolvers"; r=0; t=20'}, 21.0),
        ({"RateLimit": '"api";r=0;t=55', "Retry-After": "7"}, 56.0),
        ({"RateLimit": '"api";r=0;t=999999999'}, LONGEST),
        ({"RateLimit": "nonsense"}, None),
    ],
)
def test_what_a_reply_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_to_wait(headers, now=lambda: 10.0) == seconds


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_waits_double_and_are_spread_by_a_quarter(chance: float) -> None:
    waits: list[float] = []
    patience = Patience(sleep=waits.append, attempts=5, first=2.0, chance=lambda: chance)
    with pytest.raises(TransientHubError):
        patience.repeat(lambda: _fail(TransientHubError("busy")))
    assert waits == [base * (1 + 0.25 * chance) for base in (2.0, 4.0, 8.0, 16.0)]


def test_a_server_that_asks_for_more_is_given_more_and_never_less() -> None:
    waits: list[float] = []
    patience = Patience(sleep=waits.append, attempts=2, chance=lambda: 1.0)
    with pytest.raises(TransientHubError):
        patience.repeat(lambda: _fail(TransientHubError("busy", wait=30.0)))
    assert waits == [30.25]


def test_every_failure_that_is_waited_out_is_heard() -> None:
    heard: list[tuple[str, int]] = []
    left = [TransientHubError("one"), TransientHubError("two")]

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    patience = Patience(sleep=lambda seconds: None)
    assert patience.repeat(call, lambda error, number: heard.append((error.message, number))) == "done"
    assert heard == [("one", 1), ("two", 2)]


def test_an_overtaken_commit_is_looked_at_before_it_is_tried_again() -> None:
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise OvertakenError("moved")

    with pytest.raises(OvertakenError):
        Patience(sleep=lambda seconds: None).repeat(call)
    assert calls == [1]


def _fail(error: Exception) -> None:
    raise error
