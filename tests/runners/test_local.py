"""Runs on this machine outlive who started them, are seen as what they are, and can be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.runners import local
from tests.cli.conftest import ROOT, Workspace
from tests.cli.conftest import workspace as workspace  # a fixture

ENV = {"PYTHONPATH": str(ROOT)}


def started(workspace: Workspace) -> int:
    arguments = ["push", workspace.recipe(), "--to", "folder:out", "--yes"]
    return local.start(arguments, workspace.run, cwd=workspace.folder, env=ENV)


def ended(run: Path, seconds: float = 90) -> local.Job:
    deadline = time.monotonic() + seconds
    while (job := local.job(run)).status == "running":
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return job


def test_a_run_goes_on_without_the_process_that_started_it(workspace: Workspace) -> None:
    code = (
        "import sys; from pathlib import Path; from publisher.runners import local\n"
        "local.start(['push', sys.argv[1], '--to', 'folder:out', '--yes'], Path('run'))"
    )
    subprocess.run(
        [sys.executable, "-c", code, workspace.recipe()],
        cwd=workspace.folder,
        env={**os.environ, **ENV},
        check=True,
        timeout=60,
    )
    job = ended(workspace.run)
    assert job.status == "done", job
    assert job.command[0] == "push"
    assert (workspace.tree / "publish.json").exists()


def test_one_directory_runs_once_at_a_time_and_can_be_stopped(workspace: Workspace) -> None:
    started(workspace)
    with pytest.raises(PublisherError, match="already running"):
        started(workspace)
    assert local.cancel(workspace.run)
    job = ended(workspace.run)
    assert job.status == "interrupted"
    assert not local.cancel(workspace.run), "nothing runs there any more"
    started(workspace)
    assert ended(workspace.run).status == "done"


def test_a_killed_run_is_recognised(workspace: Workspace) -> None:
    pid = started(workspace)
    os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while local.job(workspace.run).status == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    job = local.job(workspace.run)
    assert job.status == "killed"
    assert "again" in job.hint


def test_a_command_that_ends_at_once_tells_why(workspace: Workspace) -> None:
    with pytest.raises(PublisherError, match=r"nowhere\.yaml"):
        local.start(["push", "nowhere.yaml"], workspace.run, cwd=workspace.folder, env=ENV)


def test_a_failed_run_keeps_its_message_and_hint(workspace: Workspace) -> None:
    (workspace.folder / "card.toml").write_text("")
    started(workspace)
    job = ended(workspace.run)
    assert job.status == "failed"
    assert "base model" in job.message
    assert "base_model" in job.hint


def test_junk_in_the_folder_of_runs_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk/state.json").write_text("[1")
    (tmp_path / "junk/events.jsonl").write_bytes(b"\xff\xfe\n{}\n")
    assert [job.status for job in local.jobs(tmp_path)] == ["unknown"]
    assert local.jobs(tmp_path / "none") == []
