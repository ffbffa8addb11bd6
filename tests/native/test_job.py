"""A job file is read as docs/job-file.md describes it, or refused with every problem named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import PublisherError
from publisher.native.job import read_job

Write = Callable[..., Path]


def test_a_job_is_read(job: Write, tmp_path: Path) -> None:
    path = job(tmp_path / "job.json", Path("/src"), ["a.up_proj", "a.gate_proj"], groups={"a.x": ["a.up_proj"]})
    read = read_job(path)
    assert read.source == Path("/src")
    assert read.groups == {"a.x": ("a.up_proj",)}
    assert [role.suffix for role in read.stored.roles if role.required] == ["weight", "weight_scale", "weight_scale_2"]


def test_compressed_tensors_is_written_in_its_own_arithmetic(job: Write, tmp_path: Path) -> None:
    for form, suffixes in (("nvfp4", ["packed", "scale", "global_scale"]), ("mxfp4", ["packed", "scale"])):
        change = {"format": form, "layout": "compressed-tensors"}
        read = read_job(job(tmp_path / "job.json", Path("/src"), ["a"], **change))
        assert [r.suffix for r in read.stored.roles if r.required] == [f"weight_{suffix}" for suffix in suffixes]
        assert read.producer == "compressed-tensors"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "modelopt"}, ["modelopt", "native"]),
        ({"mode": "even"}, ["even", "max, mse, four-over-six"]),
        ({"layout": "compressed-tensors", "mode": "four-over-six"}, ["four-over-six", "max, mse"]),
        ({"format": "mxfp4", "layout": "modelopt"}, ["layout 'modelopt'", "quark"]),
        ({"format": "mxfp4", "layout": "quark", "mode": "ceil6"}, ["mode 'ceil6'", "even, floor, ceil"]),
        ({"activations": "calibrated"}, ["calibrated", "statistics"]),
        ({"statistics": "/s"}, ["statistics go together"]),
        ({"format": "mxfp4", "activations": "calibrated", "statistics": "/s"}, ["calibrated", "dynamic"]),
        ({"kv_cache": "fp8"}, ["calibration"]),
        ({"groups": {"g": ["other"]}}, ["other", "not to be quantized"]),
        ({"groups": {"g": ["a"], "h": ["a"]}}, ["a is in the groups g and h"]),
        ({"schema": 2}, ["schema"]),
        ({"quantize": []}, ["quantize"]),
        ({"source": "relative"}, ["source"]),
        ({"shard_size": 0}, ["shard_size"]),
        ({"device": "tpu"}, ["device"]),
        ({"surprise": 1}, ["surprise"]),
        ({"layout": "compressed-tensors", "mode": "even", "kv_cache": "fp8"}, ["even", "kv_cache"]),
    ],
)
def test_what_this_engine_cannot_do_is_named(
    job: Write, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    path = job(tmp_path / "job.json", Path("/src"), ["a"], **changes)
    with pytest.raises(PublisherError) as caught:
        read_job(path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_missing_job_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match=r"none\.json does not exist"):
        read_job(tmp_path / "none.json")
