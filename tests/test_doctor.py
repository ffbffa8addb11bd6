"""What `doctor` makes of the outputs of the vendors' tools, recorded as the tools print them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from publisher import doctor
from publisher.doctor import Gpu
from publisher.errors import AccessError

NVIDIA_SMI = """\
NVIDIA B200, 10.0, 183359 MiB
NVIDIA B200, 10.0, 183359 MiB
NVIDIA RTX PRO 6000 Blackwell Server Edition, 12.0, 97887 MiB
NVIDIA GB10, 12.1, [N/A]
"""
NVIDIA_SMI_FAILS = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n"
)
ROCMINFO = """\
ROCk module version 6.12.12 is loaded
=====================
HSA System Attributes
=====================
Runtime Version:         1.15
Runtime Ext Version:     1.7

==========
HSA Agents
==========
*******
Agent 1
*******
  Name:                    AMD EPYC 9575F 64-Core Processor
  Uuid:                    CPU-XX
  Marketing Name:          AMD EPYC 9575F 64-Core Processor
  Vendor Name:             CPU
  Device Type:             CPU
  Pool Info:
    Pool 1
      Segment:                 GLOBAL; FLAGS: FINE GRAINED
      Size:                    1584895176(0x5e77a4c8) KB
*******
Agent 2
*******
  Name:                    gfx950
  Uuid:                    GPU-6a1d2c0f0e5b8f11
  Marketing Name:          AMD Instinct MI355X
  Vendor Name:             AMD
  Device Type:             GPU
  Cache Info:
    L1:                      32(0x20) KB
  Pool Info:
    Pool 1
      Segment:                 GLOBAL; FLAGS: COARSE GRAINED
      Size:                    301973504(0x11ffc000) KB
      Allocatable:             TRUE
    Pool 2
      Segment:                 GROUP
      Size:                    160(0xa0) KB
  ISA Info:
    ISA 1
      Name:                    amdgcn-amd-amdhsa--gfx950:sramecc+:xnack-
*** Done ***
"""
AMD_SMI = """\
[
  {
    "gpu": 0,
    "asic": {"market_name": "AMD Instinct MI300X", "vendor_id": "0x1002", "target_graphics_version": "gfx942"},
    "vram": {"type": "HBM", "vendor": "N/A", "size": {"value": 196592, "unit": "MB"}}
  }
]
"""


def tools(**outputs: str) -> doctor.Runner:
    """A runner that knows some tools; anything else is missing."""

    def run(command: Sequence[str]) -> str | None:
        return outputs.get(command[0].replace("-", "_"))

    return run


def test_nvidia_smi() -> None:
    assert doctor.gpus(tools(nvidia_smi=NVIDIA_SMI)) == [
        Gpu("NVIDIA B200", "sm_100", 183359 * 2**20),
        Gpu("NVIDIA B200", "sm_100", 183359 * 2**20),
        Gpu("NVIDIA RTX PRO 6000 Blackwell Server Edition", "sm_120", 97887 * 2**20),
        Gpu("NVIDIA GB10", "sm_121", None),
    ]


def test_rocminfo() -> None:
    assert doctor.gpus(tools(rocminfo=ROCMINFO)) == [Gpu("AMD Instinct MI355X", "gfx950", 301973504 * 1024)]


def test_amd_smi() -> None:
    assert doctor.gpus(tools(amd_smi=AMD_SMI)) == [Gpu("AMD Instinct MI300X", "gfx942", 196592 * 2**20)]
    assert doctor.parse_amd_smi('{"gpu_data": ' + AMD_SMI + "}") == doctor.parse_amd_smi(AMD_SMI)


def test_torch_is_asked_where_no_tool_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())

    def run(command: Sequence[str]) -> str | None:
        return 'a warning\nGPUS [["NVIDIA H200", "sm_90", 150000000000]]\n' if command[0] == sys.executable else None

    assert doctor.gpus(run) == [Gpu("NVIDIA H200", "sm_90", 150_000_000_000)]


@pytest.mark.parametrize("text", ["", NVIDIA_SMI_FAILS, "No devices were found\n", "\x00\xff", "name, 9.x, MiB\n"])
def test_what_is_no_answer_finds_no_gpu(text: str) -> None:
    assert doctor.parse_nvidia_smi(text) == []
    assert doctor.parse_rocminfo(text) == []
    assert doctor.parse_amd_smi(text) == []
    assert doctor.parse_torch(text) == []


@pytest.mark.parametrize("text", ["{}", "[1, null, {}]", '[{"asic": 3}]', '{"gpu_data": 7}', "[" * 100_000])
def test_strange_json_finds_no_gpu(text: str) -> None:
    assert doctor.parse_amd_smi(text) == []


@pytest.mark.parametrize(
    ("arch", "family", "nvfp4", "mxfp4"),
    [
        ("sm_100", "Blackwell data centre", "native", "emulated"),
        ("sm_103", "Blackwell Ultra", "native", "emulated"),
        ("sm_120", "Blackwell workstation", "native", "emulated"),
        ("sm_121", "Blackwell desktop", "native", "emulated"),
        ("sm_90", "Hopper", "weight-only", "emulated"),
        ("sm_89", "Ada", "weight-only", "emulated"),
        ("sm_80", "Ampere", "weight-only", "emulated"),
        ("gfx950", "CDNA 4", "unverified", "native"),
        ("gfx942", "CDNA 3", "unverified", "emulated"),
    ],
)
def test_what_a_chip_means_for_serving(arch: str, family: str, nvfp4: str, mxfp4: str) -> None:
    row = doctor.facts(arch)
    assert row is not None
    assert (row["family"], row["nvfp4"], row["mxfp4"]) == (family, nvfp4, mxfp4)
    text = doctor.meaning(arch)
    assert f"NVFP4 {nvfp4}: " in text
    assert f"MXFP4 {mxfp4}: " in text


def test_a_chip_nobody_knows_is_not_judged() -> None:
    assert doctor.facts("sm_70") is None
    assert "nothing is known" in doctor.meaning("sm_70")


def test_equal_gpus_are_one_line(tmp_path: Path) -> None:
    checks = doctor.examine(place=tmp_path, run=tools(nvidia_smi=NVIDIA_SMI))
    found = [check.detail for check in checks if check.name == "GPU"]
    assert found == [
        "2 × NVIDIA B200 (sm_100, 192 GB)",
        "1 × NVIDIA RTX PRO 6000 Blackwell Server Edition (sm_120, 103 GB)",
        "1 × NVIDIA GB10 (sm_121)",
    ]


def test_without_a_gpu_the_cpu_is_named_and_the_rest_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@hub.example")
    checks = {check.name: check for check in doctor.examine(place=tmp_path, run=tools())}
    assert checks["GPU"].status == "warn"
    assert "CPU" in checks["GPU"].meaning
    assert checks["libraries"].status == "ok"
    assert "huggingface_hub" in checks["libraries"].detail
    assert {"engine native", "engine modelopt"} <= set(checks)
    assert str(tmp_path) in checks["disk"].detail
    assert "CPU cores" in checks["memory"].detail
    assert checks["Hub"].detail == "https://***@hub.example"
    assert "Hub token" not in checks
    assert set(checks["GPU"].to_json()) == {"name", "status", "detail", "meaning"}


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("rich", "click") else "1.0")
    check = next(c for c in doctor.examine(place=tmp_path, run=tools()) if c.name == "libraries")
    assert (check.status, check.detail) == ("missing", "click, rich")


def refused() -> str:
    raise AccessError("The token was refused.", hint="Log in again.")


@pytest.mark.parametrize(
    ("state", "status", "detail"),
    [
        (lambda: None, "warn", "none"),
        (lambda: "stored login of someone", "ok", "stored login of someone"),
        (lambda: True, "ok", "present"),
        (refused, "warn", "The token was refused."),
    ],
)
def test_the_token_is_what_the_caller_says(tmp_path: Path, state: object, status: str, detail: str) -> None:
    checks = doctor.examine(token_state=state, place=tmp_path, run=tools())  # type: ignore[arg-type]
    check = next(c for c in checks if c.name == "Hub token")
    assert (check.status, check.detail) == (status, detail)


def test_a_tool_that_hangs_fails_or_is_missing_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.3)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, body in (("hangs", "exec sleep 30"), ("fails", "echo text; exit 9"), ("works", "echo text")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    assert doctor.run_tool(["hangs"]) is None
    assert doctor.run_tool(["fails"]) is None
    assert doctor.run_tool(["no-such-tool"]) is None
    monkeypatch.setattr(doctor, "SECONDS", 10.0)
    assert doctor.run_tool(["works"]) == "text\n"


def test_looking_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom publisher import doctor\ndoctor.examine(run=lambda command: None)\n"
        "print([m for m in ('torch', 'transformers', 'gradio', 'huggingface_hub') if m in sys.modules])"
    )
    root = Path(doctor.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
