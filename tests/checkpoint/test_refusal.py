"""What a refusal says: what is missing, and what to do; the same whichever way it was learnt."""

from __future__ import annotations

import pytest

from publisher.checkpoint.refusal import from_reply, gated
from publisher.errors import AccessError, CheckpointError, HubError, PublisherError


@pytest.mark.parametrize(
    ("status", "headers", "login", "kind", "says"),
    [
        (403, {"X-Error-Code": "GatedRepo"}, True, AccessError, "is gated and this login has no access"),
        (401, {"X-Error-Code": "GatedRepo"}, False, AccessError, "there is no login here"),
        (404, {"X-Error-Code": "RepoNotFound"}, True, AccessError, "no repository org/model, or it is private"),
        (401, {}, False, AccessError, "no repository org/model, or it is private"),
        (401, {}, True, AccessError, "does not know this token"),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, True, AccessError, "this token"),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, True, AccessError, "has disabled"),
        (403, {"X-Error-Message": "Forbidden:\nyour token"}, True, AccessError, "403: Forbidden: your token"),
        (404, {"X-Error-Code": "RevisionNotFound"}, True, CheckpointError, "no revision v9"),
        (404, {"X-Error-Code": "EntryNotFound"}, True, HubError, "does not have"),
        (404, {}, True, AccessError, "no repository"),
        (400, {"X-Error-Message": "x" * 10_000}, True, HubError, "400"),
        (418, {}, True, HubError, "418"),
    ],
)
def test_each_refusal(status: int, headers: dict, login: bool, kind: type[PublisherError], says: str) -> None:
    error = from_reply("org/model", "v9", status, headers, "", login=login)
    assert type(error) is kind
    assert says in error.message
    assert error.hint
    assert len(str(error)) < 1000


def test_a_gate_says_whose_step_is_next() -> None:
    assert "log in here" in gated("org/model", login=False).hint
    assert "ask for access" in gated("org/model", login=True).hint
    assert "until it is granted" in gated("org/model").hint
