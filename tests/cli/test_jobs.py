"""`publisher jobs`: runs, their logs, and stopping one."""

from __future__ import annotations

import json
import shutil

from tests.cli.conftest import Workspace


def test_jobs_show_runs_and_their_logs(pushed: Workspace) -> None:
    shutil.copytree(pushed.run, pushed.folder / ".publisher/runs/tiny-1", dirs_exist_ok=True)
    jobs = pushed.publisher("jobs", "--format", "json").json
    assert [(job["name"], job["status"]) for job in jobs] == [("tiny-1", "done")]
    lines = pushed.publisher("jobs", "logs", "tiny-1", "--format", "json").out.strip().splitlines()
    stages = {json.loads(line)["stage"] for line in lines}
    assert {"plan", "quantize", "validate", "card", "manifest", "push"} <= stages
    assert "not running" in pushed.publisher("jobs", "cancel", "tiny-1").out
    pushed.publisher("jobs", "logs", "nothing", code=2)
