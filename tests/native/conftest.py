"""Sources written with the safetensors library itself, job files, and the program run as a user's machine runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.native.zygote import Zygote

ROOT = Path(__file__).parents[2]


def write_source(folder: Path, shards: list[Mapping[str, torch.Tensor]], **config: Any) -> Path:
    folder.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(dict(tensors), folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "rope_theta": 10000.0, **config}, indent=2))
    (folder / "LICENSE").write_bytes(b"licence text\r\n\xff")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_job(path: Path, source: Path, quantize: list[str], /, **changes: Any) -> Path:
    form = changes.get("format", "nvfp4")
    job = {
        "schema": 1,
        "engine": "native",
        "source": str(source),
        "output": str(path.parent / "checkpoint"),
        "staging": str(path.parent / "staging"),
        "format": form,
        "layout": "modelopt" if form == "nvfp4" else "quark",
        "mode": "max" if form == "nvfp4" else "even",
        "activations": "none",
        "kv_cache": "none",
        "quantize": quantize,
        "groups": {},
        "exclude": ["lm_head"],
        "quantization_config": {"quant_method": "modelopt" if form == "nvfp4" else "quark"},
        "hf_quant_config": {"producer": {"name": "modelopt"}} if form == "nvfp4" else None,
        "calibration": None,
        "shard_size": 5_000_000_000,
        "device": "cpu",
        "plan_digest": "d1",
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(job))
    return path


Program = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture
def source() -> Callable[..., Path]:
    return write_source


@pytest.fixture
def job() -> Callable[..., Path]:
    return write_job


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """What programs are forked from."""
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def run_program(zygote: Zygote) -> Program:
    """Runs `python -m publisher.native`; exit code, events, standard error."""

    def run(job: Path, **options: Any) -> tuple[int, list[dict[str, Any]], str]:
        with tempfile.TemporaryFile("w+") as errors:
            with zygote.start([str(job)], stderr=errors.fileno(), **options) as process:
                out = process.stdout.read()
            errors.seek(0)
            return process.wait(), [json.loads(line) for line in out.splitlines()], errors.read()

    return run


@pytest.fixture
def run_python() -> Program:
    """As `run_program`, by an interpreter of its own."""

    def run(job: Path, **options: Any) -> tuple[int, list[dict[str, Any]], str]:
        command = [sys.executable, "-m", "publisher.native", str(job)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    return run
