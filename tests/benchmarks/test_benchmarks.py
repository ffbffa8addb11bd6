"""The benchmarks run in their smallest size and say what they promise to; how fast anything was is never asked."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kimi, measure

ROOT = Path(__file__).parents[2]


def bench(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    file = folder / "figures.json"
    command = [sys.executable, ROOT / "benchmarks" / "run.py", "--size", "small", "--json", file, "--work", folder]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["figures.json"], "temporary checkpoints are left behind"
    return json.loads(file.read_text()), done.stdout


def figures(report: dict[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Rows and ratios by name, both of one shape."""
    assert report["schema"] == 1
    assert report["size"] == "small"
    assert {"processor", "cores", "load", "python", "libraries"} <= report["machine"].keys()
    found = report["benchmarks"][name]
    assert found.keys() == {"rows", "ratios", "notes", "not_run", "seconds"}
    for row in found["rows"]:
        seconds = row["seconds"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        assert seconds["rounds"] >= 1
        assert row["gb_per_s"] is None or row["gb_per_s"] > 0
    for ratio in found["ratios"]:
        assert ratio["min"] <= ratio["value"] <= ratio["max"]
        assert math.isfinite(ratio["value"])
        assert ratio["better"] in ("higher", "lower")
    names = [entry["name"] for entry in found["ratios"]]
    assert len(set(names)) == len(names)
    rows, ratios = ({entry["name"]: entry for entry in found[key]} for key in ("rows", "ratios"))
    assert "everything" not in found["not_run"], found["not_run"]
    return rows, ratios, " ".join(found["not_run"])


@pytest.mark.slow
@pytest.mark.engine
def test_quantize_stands_beside_the_copy_and_every_peer(tmp_path: Path) -> None:
    report, printed = bench(tmp_path, "--only", "quantize")
    rows, ratios, not_run = figures(report, "quantize")
    for title in ("NVFP4 max", "MXFP4 even"):
        assert f"cpu {title}: native / copy" in ratios
        assert f"cpu {title}: native / copy, bytes moved" in ratios
        for peer in ("reference (numpy)", "modelopt", "compressed-tensors", "torchao"):
            name = f"cpu {title}: {peer}"
            assert (name in rows and f"cpu {title}: native / {peer}" in ratios) or name in not_run
        assert rows[f"cpu {title}: reference (numpy)"]["bytes_as_native"] is True
    assert "native / modelopt" in printed or "modelopt" in not_run


@pytest.mark.slow
def test_job_stands_beside_cp(tmp_path: Path) -> None:
    rows, ratios, _ = figures(bench(tmp_path, "--only", "job")[0], "job")
    for form in ("nvfp4", "mxfp4"):
        assert f"{form} cold: whole process / cp" in ratios
        assert rows[f"{form} cold: job, whole process"]["peak_mb"] > 0
    assert "nvfp4 warm: a thread per core / one thread" in ratios


def test_validate_shows_growth_and_stands_beside_parsing_and_copying(tmp_path: Path) -> None:
    rows, ratios, not_run = figures(bench(tmp_path, "--only", "validate")[0], "validate")
    whole = [row for name, row in rows.items() if name.endswith("open + header rules")]
    assert len(whole) == 2
    assert all(row["peak_mb"] > 0 and row["tensors_per_s"] > 0 and row["findings"] == 0 for row in whole)
    assert any(name.startswith("growth exponent") for name in ratios)
    for form in ("nvfp4", "mxfp4"):
        assert f"{form}: scale rules / numpy copy, one thread" in ratios
        assert rows[f"{form}: scale rules"]["findings"] == 0
        for what in ("payload rules with numba", "payload rules without numba", "search of plain tensors"):
            assert f"{form}: {what} / numpy copy, one thread" in ratios or "numba is not installed" in not_run
            assert rows[f"{form}: {what}"]["peak_mb"] > 0


def test_the_model_has_the_published_number_of_modules() -> None:
    entries = list(kimi.source(kimi.Sizes()))
    assert sum(kimi.is_quantized(entry.name) for entry in entries) == 69_303
    assert sum(".experts." in entry.name for entry in entries) == 69_120
    stored = list(kimi.quantized(entries, "nvfp4"))
    assert 277_000 < len(stored) < 279_000
    assert 580e9 < sum(entry.size for entry in stored) < 600e9


def test_a_ratio_is_that_of_each_round() -> None:
    ours = measure.Timing(name="ours", rounds=(1.0, 2.0, 4.0))
    other = measure.Timing(name="other", rounds=(10.0, 10.0, 80.0))
    assert measure.faster("x", ours, other) == {"name": "x", "value": 10.0, "min": 5.0, "max": 20.0, "better": "higher"}
    assert measure.longer("x", other, ours)["value"] == 10.0


def test_a_childs_peak_memory_is_its_own() -> None:
    ballast = bytearray(300 << 20)
    child = measure.run_child([sys.executable, "-S", "-c", "bytearray(50 << 20); print('{}')"])
    assert len(ballast) > child.peak > 50 << 20
    assert measure.last_json(child.output) == {}


def test_a_child_that_fails_is_told_from_a_fast_one() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3.*sorry"):
        measure.run_child([sys.executable, "-S", "-c", "import sys; print('sorry'); sys.exit(3)"])


def test_remote_asks_for_each_header_once_and_then_for_nothing(tmp_path: Path) -> None:
    report, printed = bench(tmp_path, "--only", "remote")
    rows, ratios, not_run = figures(report, "remote")
    cold, warm = rows["all header rules, nothing cached"], rows["all header rules, headers cached"]
    shards, documents, metadata = 4, 3, 2
    assert cold["http_requests"] <= shards + documents + metadata
    assert (warm["http_requests"], warm["fetched_mb"]) == (1, 0)
    assert cold["tensors"] == warm["tensors"] == rows["huggingface_hub get_safetensors_metadata"]["tensors"]
    assert "all header rules / the Hub client's headers alone" in ratios
    assert "50 ms before every reply" in printed
    assert not not_run
