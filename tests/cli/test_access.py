"""`publisher access` as a user runs it, against a Hub that lets in and keeps out."""

from __future__ import annotations

import csv
import stat
from collections.abc import Callable, Iterator

import pytest

from tests.cli.conftest import Done, Workspace
from tests.hub.loopback import LoopbackHub

PLACE = "hf://org/gated"
Run = Callable[..., Done]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        repo = server.seed_repo("org/gated", {"config.json": b"{}"}, gated="manual")
        for name in ("bob", "eve"):
            server.add_user(f"hf_{name}Token0000000000", name)
            repo.ask(name, Purpose="=HYPERLINK(1)")
        yield server


@pytest.fixture
def access(workspace: Workspace, hub: LoopbackHub) -> Run:
    def run(action: str, *arguments: str, code: int = 0, token: str = hub.token) -> Done:
        done = workspace.publisher("access", action, *arguments, code=code, HF_ENDPOINT=hub.endpoint, HF_TOKEN=token)
        assert token not in done.out + done.err
        return done

    return run


def states(hub: LoopbackHub) -> dict[str, str]:
    return {item["user"]["user"]: item["status"] for item in hub.repos["org/gated"].asked}


def test_requests_are_shown_and_one_is_accepted(access: Run, hub: LoopbackHub) -> None:
    shown = access("list", PLACE)
    assert "bob@example.org" in shown.out
    assert "2 request(s)" in shown.out
    found = access("list", PLACE, "--format", "json").json
    assert [item["user"] for item in found["requests"]] == ["bob", "eve"]
    assert "accepted: bob" in access("accept", PLACE, "bob").out
    assert states(hub) == {"bob": "accepted", "eve": "pending"}
    assert "already" in access("accept", PLACE, "bob").out
    assert access("list", PLACE, "--state", "accepted", "--format", "json").json["requests"][0]["user"] == "bob"


def test_several_are_listed_before_and_decided_with_yes(access: Run, hub: LoopbackHub) -> None:
    refused = access("accept", PLACE, "--all", code=2)
    assert "2 request(s) would be accepted; nothing was changed" in refused.err
    assert "bob" in refused.out
    dry = access("reject", PLACE, "bob", "--dry-run", "--format", "json").json
    assert dry["users"] == ["bob"]
    assert set(states(hub).values()) == {"pending"}
    done = access("reject", PLACE, "--all", "--yes", "--reason", "Not now.", "--format", "json").json
    assert [decision["error"] for decision in done["decisions"]] == [None, None]
    assert set(states(hub).values()) == {"rejected"}
    assert {item["reason"] for item in hub.repos["org/gated"].asked} == {"Not now."}


def test_nothing_is_changed_where_a_name_is_wrong(access: Run, hub: LoopbackHub) -> None:
    assert "mallory did not ask" in access("accept", PLACE, "bob", "mallory", "--yes", code=2).err
    assert set(states(hub).values()) == {"pending"}
    assert "nothing was changed" in access("grant", PLACE, "bob", "eve", code=2).err
    done = access("grant", PLACE, "ghost", code=4)
    assert "ghost" in done.err


def test_an_export_is_private_and_computes_nothing(access: Run, workspace: Workspace) -> None:
    access("export", PLACE, "--output", "requests.csv")
    path = workspace.folder / "requests.csv"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["user"] for row in rows] == ["bob", "eve"]
    assert rows[0]["form: Purpose"] == "'=HYPERLINK(1)"
    assert access("export", PLACE, "--state", "rejected").out.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("accept", PLACE), "Name users, or give --all"),
        (("accept", PLACE, "bob", "--all"), "Name users, or give --all"),
        (("list", PLACE, "bob"), "takes no users"),
        (("accept", PLACE, "bob", "--reason", "x"), "takes no --reason"),
        (("grant", PLACE), "Nobody is named"),
        (("accept", PLACE, "../eve"), "no user of the Hub"),
        (("list", "folder:out/org/gated"), "is a folder"),
        (("list", "org/gated"), "no published place"),
    ],
)
def test_what_makes_no_sense_is_refused(access: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in access(*arguments, code=2).err


def test_a_stranger_learns_nothing(access: Run) -> None:
    done = access("list", PLACE, code=3, token="hf_eveToken0000000000")
    assert "bob" not in done.out + done.err
    assert "hf auth login" in done.err
