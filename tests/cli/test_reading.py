"""Reading a repository from the command line: what it says before, while and after, and how it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.tiny import llama, nvfp4
from tests.cli.conftest import ROOT, Workspace
from tests.hub.loopback import LoopbackHub


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def hub(workspace: Workspace) -> Iterator[LoopbackHub]:
    """A Hub with `org/good` and its source `org/source`; the workspace's commands talk to it."""
    with LoopbackHub() as server:
        server.seed_repo("org/good", contents(nvfp4(llama()).write(workspace.folder / "good")))
        server.seed_repo("org/source", contents(workspace.source))
        workspace.env |= {
            "HF_ENDPOINT": server.endpoint, "HF_TOKEN": server.token,
            "FP4_PUBLISHER_CACHE": str(workspace.folder / "cache"),
        }  # fmt: skip
        yield server


def test_requests_and_bytes_are_said_before_and_counted_after(workspace: Workspace, hub: LoopbackHub) -> None:
    done = workspace.publisher("validate", "hf://org/good", "--level", "scales", code=None)
    before, after = done.err.index("requests for"), done.err.index("fetched")
    assert before < after
    assert "of the repository's" in done.err
    report = workspace.publisher("validate", "hf://org/good", "--level", "scales", "--format", "json", code=None).json
    counts = report["summary"]["subjects"]
    sizes = sum(item.size for item in hub.repos["org/good"].files.values())
    assert (counts["requests"], counts["bytes_fetched"], counts["repository_bytes"]) == (0, 0, sizes), "all was kept"


def test_a_second_validation_asks_only_whether_it_may(workspace: Workspace, hub: LoopbackHub) -> None:
    workspace.publisher("validate", "hf://org/good", code=None)
    asked = len(hub.log)
    assert asked > 5
    report = workspace.publisher("validate", "hf://org/good", "--format", "json", code=None).json
    assert [request.path for request in hub.log[asked:]] == ["/api/models/org/good"]
    assert report["summary"]["subjects"]["requests"] == 0


def test_the_source_may_be_remote_too(workspace: Workspace, hub: LoopbackHub) -> None:
    report = workspace.publisher(
        "validate", "hf://org/good", "--source", "hf://org/source", "--select", "LC01", "--format", "json"
    ).json
    assert report["summary"]["rules_run"] == 1
    assert report["summary"]["subjects"]["source_requests"] > 0


def test_a_folder_and_its_repository_are_judged_alike(workspace: Workspace, hub: LoopbackHub) -> None:
    arguments = ("--level", "full", "--format", "json")
    reports = [
        workspace.publisher("validate", place, *arguments, code=None).json for place in ("good", "hf://org/good")
    ]
    here, there = ([(f["code"], f["message"]) for f in report["findings"] if f["code"] != "LC06"] for report in reports)
    assert here == there
    assert reports[0]["summary"]["rules"] == reports[1]["summary"]["rules"]


def test_a_sample_reads_less_and_is_full_by_itself(workspace: Workspace, hub: LoopbackHub) -> None:
    arguments = ("validate", "hf://org/good", "--format", "json")
    sampled = workspace.publisher(*arguments, "--sample", "2", code=None).json["summary"]
    whole = workspace.publisher(*arguments, "--level", "full", code=None, FP4_PUBLISHER_CACHE="").json["summary"]
    assert sampled["rules"] == whole["rules"], "the same rules look"
    assert sampled["subjects"]["bytes_fetched"] < whole["subjects"]["bytes_fetched"]
    assert "--sample" in workspace.publisher("validate", "good", "--sample", "0", code=2).err


def test_a_closed_door_ends_with_three_and_what_to_do(workspace: Workspace, hub: LoopbackHub) -> None:
    hub.seed_repo("other/closed", contents(workspace.folder / "good"), gated="manual")
    done = workspace.publisher("validate", "hf://other/closed", code=3)
    assert "gated" in done.err
    assert "ask for access" in done.err
    assert "no login here" in workspace.publisher("validate", "hf://other/closed", code=3, HF_TOKEN="").err


def test_a_network_that_fails_is_no_finding(workspace: Workspace, hub: LoopbackHub) -> None:
    workspace.publisher("validate", "hf://org/good", code=None)
    hub.fail("GET", r"/resolve/.*safetensors$", times=1000, status=302, headers={"Location": "ftp://x/"})
    done = workspace.publisher("validate", "hf://org/good", "--level", "scales", "--format", "json", code=4)
    assert set(done.json) == {"error"}


def test_an_interrupt_while_the_hub_makes_us_wait_ends_at_once(workspace: Workspace, hub: LoopbackHub) -> None:
    hub.fail("GET", r"00002.*safetensors$", times=1000, status=429, headers={"Retry-After": "300"})
    process = subprocess.Popen(
        [sys.executable, "-m", "publisher", "validate", "hf://org/good"],
        cwd=workspace.folder, env={**os.environ, "PYTHONPATH": str(ROOT), **workspace.env},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(200):
        if hub.requests("GET", "00002.*safetensors$"):
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 6, err
    assert "waiting 5 min 01 s" in err
    assert "Run the same command again" in err
    answered = {(request.path, request.range) for request in hub.log if request.status == 206}
    asked = len(hub.log)
    hub.faults.clear()
    workspace.publisher("validate", "hf://org/good", code=None)
    assert answered
    assert not answered & {(request.path, request.range) for request in hub.log[asked:]}, "it goes on where it was"
