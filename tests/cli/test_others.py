"""The smaller verbs: quantize, card, verify, rules, jobs, doctor, version."""

from __future__ import annotations

import json
import shutil

import pytest

from publisher import __version__
from tests.cli.conftest import Workspace


def test_quantize_stops_at_the_checkpoint(workspace: Workspace) -> None:
    done = workspace.publisher("quantize", workspace.recipe(), "--run-dir", "run", "--format", "json")
    assert done.json["shards"] == 1
    assert (workspace.checkpoint / "config.json").exists()
    assert not workspace.tree.exists()


def test_card_prints_what_the_files_say(pushed: Workspace) -> None:
    done = pushed.publisher("card", "run/checkpoint", "--source", "source", "--card", "card.toml", "--repo", "demo/x")
    assert done.out.startswith("---\n")
    assert "# x" in done.out
    assert "MXFP4" in done.out


def test_verify_names_the_file_that_differs(pushed: Workspace, workspace: Workspace) -> None:
    shutil.copytree(pushed.folder / "out", workspace.folder / "out")
    (workspace.tree / "LICENSE").write_bytes(b"edited")
    done = workspace.publisher("verify", "folder:out/demo/tiny-fp4", code=1)
    assert "LICENSE" in done.out
    shutil.rmtree(workspace.folder / "out")
    workspace.publisher("verify", "folder:out/demo/tiny-fp4", code=4)
    workspace.publisher("verify", "somewhere", code=2)


def test_rules_are_listed_and_explained(workspace: Workspace) -> None:
    rules = workspace.publisher("rules", "--format", "json").json
    assert {"CN01", "SV01", "LC06"} <= {rule["code"] for rule in rules}
    assert "nan-block-scale" in workspace.publisher("rules").out
    done = workspace.publisher("rules", "explain", "sv01")
    assert "Why: " in done.out
    assert "Fix: " in done.out
    assert "no rule 'ZZ99'" in workspace.publisher("rules", "explain", "ZZ99", code=2).err


def test_jobs_show_runs_and_their_logs(pushed: Workspace) -> None:
    shutil.copytree(pushed.run, pushed.folder / ".publisher/runs/tiny-1", dirs_exist_ok=True)
    jobs = pushed.publisher("jobs", "--format", "json").json
    assert [(job["name"], job["status"]) for job in jobs] == [("tiny-1", "done")]
    lines = pushed.publisher("jobs", "logs", "tiny-1", "--format", "json").out.strip().splitlines()
    stages = {json.loads(line)["stage"] for line in lines}
    assert {"plan", "quantize", "validate", "card", "manifest", "push"} <= stages
    assert "not running" in pushed.publisher("jobs", "cancel", "tiny-1").out
    pushed.publisher("jobs", "logs", "nothing", code=2)


def test_doctor_names_engines_and_what_is_missing(workspace: Workspace) -> None:
    checks = workspace.publisher("doctor", "--format", "json").json
    names = {check["name"] for check in checks}
    assert "engine native" in names
    assert any("GPU" in name for name in names)


@pytest.mark.parametrize("form", ["human", "json", "quiet"])
def test_version(workspace: Workspace, form: str) -> None:
    assert __version__ in workspace.publisher("version", "--format", form).out
