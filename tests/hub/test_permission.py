"""What the Hub says before anything is sent: roles, scopes, plans, metadata."""

from __future__ import annotations

import json
from typing import Any

import pytest

from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.target import Publication
from tests.hub.loopback import LoopbackHub
from tests.hub.places import REPO

WRITE = ["repo.content.read", "repo.write"]


def target(hub: LoopbackHub) -> HuggingFaceTarget:
    return HuggingFaceTarget(REPO, endpoint=hub.endpoint, token=hub.token, sleep=lambda seconds: None)


def who(hub: LoopbackHub, **more: Any) -> None:
    """What the Hub says of the token from now on."""
    base = {"name": "ada", "orgs": [{"name": "org", "roleInOrg": "write"}]}
    hub.fail("GET", "whoami", times=99, status=200, body=json.dumps(base | more).encode())


def scoped(*scopes: tuple[str, str, list[str]], everywhere: tuple[str, ...] = ()) -> dict[str, Any]:
    entries = [{"entity": {"type": kind, "name": name}, "permissions": rights} for kind, name, rights in scopes]
    token = {"role": "fineGrained", "fineGrained": {"global": list(everywhere), "scoped": entries}}
    return {"auth": {"accessToken": token}}


@pytest.mark.parametrize(
    ("token", "may"),
    [
        (scoped(("org", "org", WRITE)), True),
        (scoped(("model", REPO, WRITE)), True),
        (scoped(("org", "Org", WRITE)), True),
        (scoped(everywhere=("repo.write",)), True),
        (scoped(("user", "ada", WRITE)), False),
        (scoped(("org", "org", ["repo.content.read", "discussion.write"])), False),
        (scoped(("model", "org/another", WRITE)), False),
        (scoped(), False),
        ({"auth": {"accessToken": {"role": "fineGrained"}}}, True),  # a Hub that does not tell is asked otherwise
        ({"auth": {"accessToken": {"role": "write"}}}, True),
        ({"auth": {"accessToken": {"role": "read"}}}, False),
        ({"auth": None}, True),
        (
            {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": [7, None, {"entity": []}]}}}},
            False,
        ),
    ],
)
def test_the_scopes_of_a_token_decide(hub: LoopbackHub, token: dict[str, Any], may: bool) -> None:
    who(hub, **token)
    if may:
        target(hub).require_access()
        return
    with pytest.raises(AccessError) as caught:
        target(hub).require_access()
    assert caught.value.hint
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("account", "room"),
    [
        ({"orgs": [{"name": "org", "roleInOrg": "write", "canPay": False}]}, 100_000_000_000),
        ({"orgs": [{"name": "org", "roleInOrg": "write", "canPay": True}]}, None),
        ({"orgs": [{"name": "org", "roleInOrg": "write", "canPay": False, "isEnterprise": True}]}, None),
        ({"orgs": [{"name": "org", "roleInOrg": "write"}]}, None),
        ({"orgs": []}, None),
        ({"orgs": "none"}, None),
    ],
)
def test_private_room_is_known_only_where_the_plan_is_told(
    hub: LoopbackHub, account: dict[str, Any], room: int | None
) -> None:
    who(hub, **account)
    assert target(hub).private_room() == room


def test_private_room_of_a_hub_that_fails_is_unknown(hub: LoopbackHub) -> None:
    hub.fail("GET", "whoami", times=99, status=500)
    assert target(hub).private_room() is None


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"errors": "bad"}', b'{"errors": [1, {"message": "bad licence"}]}'])
def test_refused_metadata_is_told_whatever_the_reply_looks_like(
    hub: LoopbackHub, tiny: Publication, body: bytes
) -> None:
    hub.fail("POST", "validate-yaml", status=400, body=body)
    found = target(hub).preflight(tiny)
    assert ["refuses the metadata" in problem.message for problem in found] == [True]
    assert type(found[0]) is PublisherError


def test_a_page_in_place_of_the_verdict_is_a_failure_of_the_hub(hub: LoopbackHub, tiny: Publication) -> None:
    hub.fail("POST", "validate-yaml", times=99, status=503, body=b"<html>maintenance</html>")
    found = target(hub).preflight(tiny)
    assert [isinstance(problem, HubError) for problem in found] == [True]
