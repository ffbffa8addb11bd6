"""A run as its directory tells it, however it went and whoever looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import PublisherError
from publisher.journal import Event, Journal, RunDirectory
from publisher.runners import local
from publisher.runners.local import Job
from publisher.ui import runview
from publisher.ui.runview import Told, Watch


def told(*events: tuple[str, str] | tuple[str, str, dict[str, Any]]) -> Told:
    found = Told()
    found.hear(
        Event(stage=event[0], kind=event[1], payload=event[2] if len(event) > 2 else {}, time=100.0 + position)
        for position, event in enumerate(events)
    )
    return found


def job(status: str, *command: str) -> Job:
    return Job(
        name="run",
        path=Path("run"),
        status=status,
        stage="",
        message="",
        hint="",
        started=1.0,
        ended=2.0,
        command=command,
    )


def states(found: Told, status: str) -> list[str]:
    return [stage.state for stage in runview.stages(found, job(status))]


def test_a_run_in_the_middle() -> None:
    found = told(
        ("plan", "done"), ("quantize", "start"), ("quantize", "progress", {"done": 1, "total": 4, "unit": "bytes"})
    )
    assert states(found, "running") == ["done", "running", *["waiting"] * 5]


def test_what_a_finished_run_never_began_was_not_asked_for() -> None:
    found = told(*((stage, "done") for stage in ("plan", "quantize", "validate", "card", "manifest", "push")))
    stages = runview.stages(found, job("done"))
    assert [stage.state for stage in stages] == ["done", "done", "done", "skipped", "done", "done", "done"]
    assert stages[3].message == "not asked for"


def test_a_killed_run_is_not_shown_running() -> None:
    assert states(told(("plan", "done"), ("quantize", "start")), "killed")[1] == "stopped"


def test_an_error_and_a_cancel_stop_their_stage() -> None:
    assert states(told(("plan", "done"), ("quantize", "error", {"message": "no"})), "failed")[1] == "failed"
    assert states(told(("plan", "cancelled")), "interrupted")[0] == "stopped"


def test_going_on_begins_the_stages_anew() -> None:
    found = told(
        ("plan", "done"),
        ("quantize", "start"),
        ("quantize", "cancelled"),
        ("plan", "done"),
        ("quantize", "skip"),
        ("validate", "start"),
    )
    assert states(found, "running")[:4] == ["done", "skipped", "running", "waiting"]


def test_the_rules_of_the_publication_do_not_reopen_the_validation() -> None:
    found = told(
        ("validate", "start"),
        ("validate", "done", {"message": "29 rules"}),
        ("manifest", "start"),
        ("validate", "progress", {"done": 1, "total": 2, "unit": "bytes"}),
    )
    assert states(found, "running")[2] == "done"
    assert states(found, "running")[5] == "running"


def test_a_step_of_the_push_does_not_end_it() -> None:
    found = told(("push", "start", {"step": "weights"}), ("push", "done", {"step": "weights", "message": "weights"}))
    assert states(found, "running")[6] == "running"
    found = told(("push", "start", {"step": "tag"}), ("push", "skip", {"step": "tag", "message": "tag: left out"}))
    assert states(found, "running")[6] == "running"


@pytest.mark.parametrize(
    ("payload", "text", "share"),
    [
        (
            {"done": 250e6, "total": 1e9, "unit": "bytes", "rate": 50e6, "eta": 75.0, "tensor": "a.weight"},
            "250 MB of 1.00 GB · 50.0 MB/s · 1 min 15 s left · a.weight",
            0.25,
        ),
        ({"done": 3, "total": 4, "unit": "windows", "rate": 1.5}, "3 of 4 windows · 1.5 windows/s", 0.75),
        ({"done": 4, "total": 0, "unit": "bytes"}, "4 B of 0 B", None),
        ({"done": "x", "total": None}, "0 of 0 ", None),
    ],
)
def test_progress_says_what_how_much_how_fast_and_how_long(
    payload: dict[str, Any], text: str, share: float | None
) -> None:
    found = runview.progress(told(("quantize", "progress", payload)))
    assert found is not None
    assert (found.text, found.share) == (text, share)


def test_progress_ends_with_its_stage() -> None:
    assert runview.progress(told(("quantize", "progress", {"done": 1, "total": 2}), ("quantize", "done"))) is None


def test_a_watch_reads_only_what_is_new_and_notices_another_journal(tmp_path: Path) -> None:
    watch, journal = Watch(), Journal(tmp_path / "events.jsonl")
    assert watch.told(tmp_path).events == 0
    journal.emit("plan", "done", message="one")
    assert watch.told(tmp_path).events == 1
    journal.emit("quantize", "start", message="two")
    assert watch.told(tmp_path).events == 2
    (tmp_path / "events.jsonl").unlink()
    journal.emit("plan", "done", message="x")
    assert watch.told(tmp_path).events == 1
    assert "✓ x" in watch.told(tmp_path).lines[-1]


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", None, 3, "link", "none"])
def test_only_runs_of_this_folder_can_be_named(name: object, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(PublisherError, match="no run"):
        runview.find(tmp_path, name)


def test_going_on_is_the_same_command() -> None:
    started = job("killed", "push", "r.yaml", "--to", "folder:x", "--run-dir", "runs/r", "--yes")
    assert runview.resume_arguments(started) == ["push", "r.yaml", "--to", "folder:x", "--yes"]
    assert runview.resume_arguments(job("killed", "quantize", "r.yaml", "--run-dir=x")) == ["quantize", "r.yaml"]
    for command in ((), ("ui",)):
        with pytest.raises(PublisherError, match="not known"):
            runview.resume_arguments(job("killed", *command))


def test_what_a_run_left_is_read_and_half_made_files_are_passed_over(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.checkpoint.mkdir()
    assert runview.left(tmp_path).card == ""
    before = runview.marks(tmp_path)
    (directory.checkpoint / "README.md").write_text("---\nlicense: mit\n---\n# Card\n")
    (directory.checkpoint / "publish.json").write_text("{")
    directory.report.write_text(json.dumps({"findings": []}))
    directory.push.write_text("[")
    found = runview.left(tmp_path)
    assert (found.front, found.card, found.licences, found.push) == ("license: mit", "# Card\n", (), {})
    assert len(found.reports) == 1
    assert runview.marks(tmp_path) != before


def test_a_card_without_front_matter_is_all_card() -> None:
    assert runview.split_card("# x\n---\n") == ("", "# x\n---\n")
    assert runview.split_card("---\nopen") == ("", "---\nopen")


def test_runs_are_listed_with_how_they_ended(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "state.json").write_text('{"status": "done", "started": 1795239312.0, "ended": 1795239313.0}')
    assert [name for _, name in runview.listed(tmp_path)] == ["a"]
    assert runview.listed(tmp_path)[0][0].endswith("done")
    assert runview.elapsed(local.job(tmp_path / "a")) == "1 s"
