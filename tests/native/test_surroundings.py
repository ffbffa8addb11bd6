"""What is recorded of a run's surroundings: true, and nothing of the machine's owner."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from publisher.native import surroundings as module
from publisher.native.surroundings import commit, driver, surroundings


def test_nothing_tells_who_or_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/somebody/run.py", "/home/somebody/secret project/job.json"])
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    found = surroundings(["fp4-publisher"])
    assert found["command"] == ["run.py", "job.json"]
    assert found["settings"]["OMP_NUM_THREADS"] == "2"
    text = json.dumps(found)
    assert "somebody" not in text
    assert "canary" not in text


def test_the_runtime_is_torchs_own_word() -> None:
    torch = SimpleNamespace(version=SimpleNamespace(cuda="13.0", hip=None))
    found = surroundings((), torch)
    assert found["cuda"] == "13.0"
    assert "hip" not in found


def test_the_driver_is_read_where_the_kernel_tells_it(tmp_path: Path) -> None:
    nvidia = tmp_path / "nvidia"
    nvidia.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC version:")
    amd = tmp_path / "amdgpu"
    amd.write_text("6.14.14\n")
    assert driver([nvidia]) == "NVIDIA 580.95.05"
    assert driver([tmp_path / "absent", amd]) == "amdgpu 6.14.14"
    assert driver([tmp_path / "absent"]) is None


class Installed:
    def __init__(self, record: object) -> None:
        self.record = record

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.record if isinstance(self.record, str) else json.dumps(self.record)


def test_a_commit_is_the_installers_word_or_the_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(record: object) -> None:
        monkeypatch.setattr(module.importlib.metadata, "distribution", lambda _: Installed(record))

    installed({"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}})
    assert commit("x") == "a" * 40
    for wrong in ("[]", "{", {"vcs_info": {"commit_id": "main"}}, {"url": "file:///nowhere", "dir_info": {}}):
        installed(wrong)
        assert commit("x") is None
    run = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(tmp_path)]
    subprocess.run([*run, "init", "-q"], check=True)
    subprocess.run([*run, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    head = subprocess.run([*run, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    installed({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    assert commit("x") == head
    subprocess.run([*run, "pack-refs", "--all"], check=True)
    assert commit("x") == head


def test_a_package_that_is_not_there_has_no_commit() -> None:
    assert commit("no-such-distribution-at-all") is None
