"""`publisher validate`: the contract of its JSON, its exit code, and damage reported by name."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from tests.builders.tiny import llama, nvfp4
from tests.cli.conftest import Workspace
from tests.hub.loopback import LoopbackHub


@pytest.fixture
def good(workspace: Workspace) -> Path:
    return nvfp4(llama()).write(workspace.folder / "good")


def codes(workspace: Workspace, folder: Path, *more: str, code: int) -> set[str]:
    report = workspace.publisher("validate", str(folder), "--format", "json", *more, code=code).json
    return {finding["code"] for finding in report["findings"] if finding["severity"] == "error"}


def test_the_shape_of_the_report(workspace: Workspace, good: Path) -> None:
    report = workspace.publisher("validate", "good", "--source", "source", "--format", "json").json
    assert set(report) >= {"findings", "not_run", "publishable", "summary", "tool"}
    wanted = {"rules_run", "rules_not_run", "errors", "warnings", "bytes_read", "seconds"}
    assert wanted <= set(report["summary"])
    assert report["publishable"] is True
    for entry in report["not_run"]:
        assert set(entry) == {"code", "reason"}


def test_one_flipped_scale_byte(workspace: Workspace, good: Path) -> None:
    shard = next(p for p in sorted(good.glob("*.safetensors")) if b"down_proj.weight_scale" in p.read_bytes())
    data = bytearray(shard.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = next(n for n in header if n.endswith("down_proj.weight_scale"))
    data[8 + length + header[name]["data_offsets"][0]] = 0x7F
    shard.write_bytes(data)
    report = workspace.publisher("validate", "good", "--format", "json", code=1).json
    finding = next(f for f in report["findings"] if f["code"] == "SV01")
    assert finding["severity"] == "error"
    assert name in json.dumps(finding["where"])
    assert "vllm" in finding["engines"]
    assert report["publishable"] is False


def test_a_dropped_shard_a_changed_licence(workspace: Workspace, good: Path) -> None:
    shutil.copytree(good, workspace.folder / "bad")
    (workspace.folder / "bad/model-00002-of-00002.safetensors").unlink()
    assert "CN09" in codes(workspace, workspace.folder / "bad", code=1)
    (good / "LICENSE").write_text("edited")
    assert "LC01" in codes(workspace, good, "--source", "source", code=1)


def test_a_waiver_lets_it_pass_and_is_told(workspace: Workspace, good: Path) -> None:
    (good / "LICENSE").write_text("edited")
    report = workspace.publisher(
        "validate", "good", "--source", "source", "--ignore", "LC01=cleared by counsel",
        "--ignore", "SD01=the same file", "--format", "json",
    ).json  # fmt: skip
    waived = [f for f in report["findings"] if f["code"] == "LC01"]
    assert waived[0]["waived"] == "cleared by counsel"


def test_select_and_level(workspace: Workspace, good: Path) -> None:
    report = workspace.publisher("validate", "good", "--select", "SV", "--level", "headers", "--format", "json").json
    assert report["summary"]["rules_run"] == 0
    reasons = {entry["code"]: entry["reason"] for entry in report["not_run"]}
    assert "scales" in reasons["SV01"]


@pytest.mark.parametrize("level", ["headers", "scales"])
def test_a_sample_of_weights_that_are_not_read_is_refused(workspace: Workspace, level: str) -> None:
    done = workspace.publisher("validate", "anywhere", "--level", level, "--sample", "3", code=2)
    assert f"--level {level} does not read" in done.err


def test_the_human_report_names_rule_place_and_next_step(workspace: Workspace, good: Path) -> None:
    (good / "model-00002-of-00002.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    done = workspace.publisher("validate", "good", code=1)
    assert "CN13" in done.out
    assert "model-00002-of-00002.safetensors" in done.out
    assert "not publishable" in done.out


def test_an_unquantized_checkpoint_is_said_to_be_one(workspace: Workspace) -> None:
    assert "CF02" in codes(workspace, workspace.source, code=1)


@pytest.mark.parametrize(("gated", "found"), [(False, ["warning"]), ("manual", [])])
def test_a_gate_that_exists_only_in_the_card_is_seen_on_the_hub(
    workspace: Workspace, good: Path, gated: str | bool, found: list[str]
) -> None:
    files = {path.name: path.read_bytes() for path in good.iterdir() if path.is_file()}
    with LoopbackHub() as hub:
        hub.seed_repo(f"{hub.user}/tiny-fp4", files, gated=gated)
        report = workspace.publisher(
            "validate", f"hf://{hub.user}/tiny-fp4", "--select", "LC06", "--format", "json",
            HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token,
        ).json  # fmt: skip
    assert [finding["severity"] for finding in report["findings"]] == found
    assert report["summary"]["rules_run"] == 1
