"""A journal is read by whole lines, keeps no token, and its lock tells whether somebody works there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from publisher import journal
from publisher.errors import PublisherError
from publisher.journal import Event, Journal, RunDirectory


def test_events_come_back_and_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    seen: list[Event] = []
    log = Journal(tmp_path / "events.jsonl", seen.append)
    log.emit("plan", "start", message="reading")
    events, offset = journal.read(tmp_path / "events.jsonl")
    assert [(e.stage, e.kind, e.payload["message"]) for e in events] == [("plan", "start", "reading")]
    log.emit("plan", "done")
    events, _ = journal.read(tmp_path / "events.jsonl", offset)
    assert [e.kind for e in events] == ["done"]
    assert [e.kind for e in seen] == ["start", "done"]


def test_a_line_cut_by_a_kill_is_not_an_event_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Journal(path).emit("push", "start")
    with path.open("ab") as file:
        file.write(b'{"time": 1, "stage": "push", "ki')
    events, offset = journal.read(path)
    assert len(events) == 1
    with path.open("ab") as file:
        file.write(b'nd": "done", "payload": {}}\nnot an event\n')
    events, _ = journal.read(path, offset)
    assert [e.kind for e in events] == ["done"]


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "abcdefghijklmnopqrstuvwxyz012345",
        "Bearer eyJhbGciOi.J9abc-def_ghi",
        "hf_oauth_eyJhbGciOiJFZERTQSJ9.x-y_z",
    ],
)
def test_no_token_reaches_the_log(tmp_path: Path, secret: str) -> None:
    Journal(tmp_path / "events.jsonl").emit("push", "error", message=f"401 for {secret} at /api", extra={"h": secret})
    text = (tmp_path / "events.jsonl").read_text()
    assert secret.split()[-1] not in text
    assert "***" in text


def test_a_missing_journal_holds_nothing(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "events.jsonl") == ([], 0)


def test_two_processes_cannot_work_in_one_directory(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    assert not directory.busy
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom pathlib import Path\nfrom publisher.journal import RunDirectory\n"
            "d = RunDirectory(Path(sys.argv[1])); d.lock(); print('locked', flush=True); time.sleep(60)",
            str(tmp_path / "run"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        assert directory.busy
        with pytest.raises(PublisherError, match="Another publisher"):
            directory.lock()
    finally:
        child.kill()
        child.wait()
    assert not directory.busy, "a killed process holds no lock"
    directory.lock()
    directory.unlock()


def test_stamps_survive_the_process(tmp_path: Path) -> None:
    RunDirectory(tmp_path).set_stamp("quantize", "abc")
    RunDirectory(tmp_path).set_stamp("card", "def")
    assert RunDirectory(tmp_path).stamp("quantize") == "abc"
    assert RunDirectory(tmp_path).stamp("push") is None
