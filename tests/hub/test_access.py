"""Access requests with the real client: lists, decisions that are proven, tables that compute nothing."""

from __future__ import annotations

import csv
import inspect
import io

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError

from publisher.errors import AccessError, HubError
from publisher.hub import access
from publisher.hub.access import AccessRequest
from publisher.hub.huggingface import HuggingFaceTarget
from tests.hub.loopback import LoopbackHub

REPO = "org/tiny-nvfp4"
HIDING = "request_id" in inspect.signature(HfApi.accept_access_request).parameters
hides_names = pytest.mark.skipif(not HIDING, reason="this huggingface_hub knows no request ids")


@pytest.fixture
def target(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> HuggingFaceTarget:
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)  # which the client before 2.0 takes for these calls
    repo = hub.seed_repo(REPO, {"config.json": b"{}", "LICENSE": b"terms"}, gated="manual")
    for name in ("bob", "eve", "zoe"):
        hub.add_user(f"hf_{name}Token0000000000", name)
        repo.ask(name, Affiliation=f"{name}'s lab", Agree=True)
    return HuggingFaceTarget(REPO, endpoint=hub.endpoint, token=hub.token, sleep=lambda seconds: None)


def may_read(hub: LoopbackHub, name: str) -> bool:
    api = HfApi(endpoint=hub.endpoint, token=f"hf_{name}Token0000000000")
    try:
        api.auth_check(REPO)
    except GatedRepoError:
        return False
    return True


def names(target: HuggingFaceTarget, *states: access.State) -> list[str | None]:
    return [item.user for item in access.requests(target, states)]


def test_requests_are_listed_whole_over_pages(hub: LoopbackHub, target: HuggingFaceTarget) -> None:
    hub.page_size = 1
    found = access.requests(target)
    assert [item.label for item in found] == ["bob", "eve", "zoe"]
    assert found[0].email == "bob@example.org"
    assert found[0].form == {"Affiliation": "bob's lab", "Agree": True}
    assert found[0].time.startswith("2026-01-01T00:00:00")


def test_who_is_accepted_gets_in_and_who_is_rejected_out_again(hub: LoopbackHub, target: HuggingFaceTarget) -> None:
    asked, missing = access.find(target, ["bob", "nobody", "bob"])
    assert ([item.label for item in asked], missing) == (["bob"], ["nobody"])
    assert not may_read(hub, "bob")
    (decision,) = access.decide(target, asked, "accepted")
    assert decision.error is None
    assert may_read(hub, "bob")
    assert not may_read(hub, "eve")
    (decision,) = access.decide(target, access.find(target, ["bob"])[0], "rejected", reason="terms broken")
    assert decision.error is None
    assert not may_read(hub, "bob")
    assert hub.repos[REPO].asked[0]["reason"] == "terms broken"


def test_access_can_be_granted_unasked(hub: LoopbackHub, target: HuggingFaceTarget) -> None:
    hub.add_user("hf_amyToken0000000000", "amy")
    decisions = list(access.grant(target, ["amy", "ghost"]))
    assert [(decision.label, decision.error is None) for decision in decisions] == [("amy", True), ("ghost", False)]
    assert may_read(hub, "amy")
    (again,) = access.grant(target, ["amy"])
    assert again.error is None, "who has access already has what was asked for"


@pytest.mark.parametrize("fault", [{"lose_reply": True}, {"status": 503}])
def test_a_decision_whose_answer_was_lost_is_looked_up(
    hub: LoopbackHub, target: HuggingFaceTarget, fault: dict[str, object]
) -> None:
    hub.fail("POST", "/handle$", **fault)  # type: ignore[arg-type]
    (decision,) = access.decide(target, access.find(target, ["eve"])[0], "accepted")
    assert decision.error is None
    assert names(target, "accepted") == ["eve"]


def test_one_failure_does_not_stop_the_others(hub: LoopbackHub, target: HuggingFaceTarget) -> None:
    asked = access.requests(target)
    hub.repos[REPO].asked.pop(0)
    decisions = list(access.decide(target, asked, "accepted"))
    assert [decision.error is None for decision in decisions] == [False, True, True]
    assert names(target, "accepted") == ["eve", "zoe"]


def test_a_stranger_and_an_open_repository_are_refused_in_words(hub: LoopbackHub, target: HuggingFaceTarget) -> None:
    stranger = HuggingFaceTarget(REPO, endpoint=hub.endpoint, token="hf_bobToken0000000000", sleep=lambda seconds: None)
    with pytest.raises(AccessError, match="403"):
        access.requests(stranger)
    hub.repos[REPO].gated = False
    with pytest.raises(HubError, match="not gated"):
        access.requests(target)


def test_a_server_that_answers_something_else_is_an_error(hub: LoopbackHub, target: HuggingFaceTarget) -> None:
    hub.fail("GET", "/pending$", times=9, status=200, body=b'[{"surprise": 1}]')
    with pytest.raises(HubError, match="cannot be read"):
        access.requests(target)
    hub.fail("GET", "/rejected$", times=9, status=200, body=b"<html>proxy</html>")
    with pytest.raises(HubError):
        access.requests(target, ["rejected"])


@hides_names
def test_hidden_names_are_handled_by_the_id_of_the_request(hub: LoopbackHub, target: HuggingFaceTarget) -> None:
    hub.repos[REPO].hide_names = True
    found = access.requests(target)
    assert found[0].user is None
    assert found[0].label == f"{1:024x}"
    (decision,) = access.decide(target, access.find(target, [found[0].label])[0], "accepted")
    assert decision.error is None
    assert may_read(hub, "bob")


# --- tables ----------------------------------------------------------------------------------------------------------

EVIL = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =cmd|' /C calc'!A0", "＝1", '=HYPERLINK("http://x","y")']


@pytest.mark.parametrize("text", EVIL)
def test_no_cell_starts_a_formula(text: str) -> None:
    made = AccessRequest(user="bob", name=text, email=text, form={text: text})
    head, row = csv.reader(io.StringIO(access.table([made]), newline=""))
    for found in (*head, *row):
        assert found.lstrip()[:1] not in ("=", "+", "-", "@", "＝")
        assert found[:1] not in ("\t", "\r")
    assert row[2] == f"'{text}"


def test_a_table_reads_back_what_was_written() -> None:
    made = [
        AccessRequest(user="bob", name='A "quoted", name', form={"Purpose": "one\ntwo", "Agree": True}),
        AccessRequest(user=None, identity="1f", form={"Country": "Österreich;Wien"}),
    ]
    head, first, second = csv.reader(io.StringIO(access.table(made), newline=""))
    assert head == [*access.COLUMNS, "form: Agree", "form: Country", "form: Purpose"]
    assert first == ["bob", "", 'A "quoted", name', "", "pending", "", "True", "", "one\ntwo"]
    assert second == ["", "1f", "", "", "pending", "", "", "Österreich;Wien", ""]


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "a" * 97, "x\n", "x/y"])
def test_only_names_are_sent(name: str) -> None:
    assert access.user_problem(name) is not None
    assert access.user_problem("some-user_1.x") is None


def test_no_token_and_no_form_is_told(
    hub: LoopbackHub,
    target: HuggingFaceTarget,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    list(access.decide(target, access.requests(target), "accepted"))
    told = capsys.readouterr()
    for text in (told.out, told.err, caplog.text):
        assert hub.token not in text
        assert "bob's lab" not in text
    assert [request.json() for request in hub.requests("POST", "/handle$")] == [
        {"user": name, "status": "accepted"} for name in ("bob", "eve", "zoe")
    ]
