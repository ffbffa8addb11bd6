"""Damaged and odd sources: the tensor is named, the decision clear, and nothing of a result is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from publisher.errors import CheckpointError
from publisher.native.job import read_job
from publisher.native.work import prepare

Source = Callable[..., Path]
Job = Callable[..., Path]
Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
NAME = "model.layers.0.mlp.down_proj"
CANNOT = f"{NAME} cannot be decoded: "


def int4(**changes: Any) -> dict[str, torch.Tensor]:
    """A weight of 8 x 64 as compressed-tensors packs it; a change of None takes a tensor away."""
    found = {
        "weight_packed": torch.arange(64, dtype=torch.int32).reshape(8, 8) * 0x01010101,
        "weight_scale": torch.full((8, 2), 0.25).bfloat16(),
        "weight_shape": torch.tensor([8, 64]),
    }
    return named(found, changes)


def fp8(**changes: Any) -> dict[str, torch.Tensor]:
    found = {"weight": torch.ones(8, 64).to(torch.float8_e4m3fn), "weight_scale_inv": torch.full((1, 1), 0.5)}
    return named(found, changes)


def named(found: Mapping[str, torch.Tensor], changes: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    merged = {**found, **changes}
    return {f"{NAME}.{suffix}": tensor for suffix, tensor in merged.items() if tensor is not None}


def declared(**weights: Any) -> dict[str, Any]:
    args = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True, **weights}
    groups = {"group_0": {"targets": ["Linear"], "weights": args}}
    block = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    return {"quantization_config": block}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (int4(weight_scale=None), {}, CANNOT + "INT4 without a matrix of floating-point scales."),
        (
            int4(weight_zero_point=torch.zeros(1, 2, dtype=torch.int32)),
            {},
            CANNOT + "INT4 with weight_zero_point (asymmetric or reordered) is not decoded here.",
        ),
        (
            int4(weight_g_idx=torch.arange(64, dtype=torch.int32)),
            {},
            CANNOT + "INT4 with weight_g_idx (asymmetric or reordered) is not decoded here.",
        ),
        (
            int4(),
            declared(symmetric=False),
            CANNOT + "INT4 that is declared asymmetric and has no weight_zero_point.",
        ),
        (
            int4(),
            declared(actorder="group"),
            CANNOT + "INT4 that is declared reordered (actorder group) and has no weight_g_idx.",
        ),
        (
            int4(weight_shape=torch.tensor([8, 100])),
            {},
            CANNOT + "packed weights of 8 x 8 words that claim to be 8 x 100 INT4.",
        ),
        (
            int4(weight_shape=torch.tensor([16, 64])),
            {},
            CANNOT + "packed weights of 8 x 8 words that claim to be 16 x 64 INT4.",
        ),
        (
            int4(weight_scale=torch.ones(8, 3).bfloat16()),
            {},
            CANNOT + "INT4 of 8 x 64 with scales of shape [8, 3].",
        ),
        (int4(weight=torch.ones(8, 64).bfloat16()), {}, CANNOT + "it is stored twice, packed and unpacked."),
        (fp8(weight_scale_inv=None), {}, CANNOT + "FP8 without scales of a known type."),
        (
            fp8(weight_scale_inv=torch.ones(3, 3)),
            {},
            CANNOT + "FP8 of 8 x 64 with scales of shape [3, 3].",
        ),
        (fp8(weight_scale_inv=torch.ones(1, 1).double()), {}, CANNOT + "FP8 without scales of a known type."),
        (
            {f"{NAME}.weight": torch.ones(8, 64).double()},
            {},
            f"{NAME}.weight is F64, only BF16, F16, F32 can be quantized.",
        ),
        (
            {f"{NAME}.weight": torch.ones(8, 40).bfloat16()},
            {},
            f"{NAME}.weight has the shape [8, 40], not rows of whole blocks of 16.",
        ),
        ({"other.weight": torch.ones(8, 64).bfloat16()}, {}, f"{NAME} has no weight in the source."),
    ],
)
def test_headers_that_cannot_be_right(
    tensors: dict[str, torch.Tensor], config: dict[str, Any], message: str, source: Source, job: Job, tmp_path: Path
) -> None:
    path = job(tmp_path / "job.json", source(tmp_path / "s", [tensors], **config), [NAME])
    with pytest.raises(CheckpointError) as caught:
        prepare(read_job(path))
    assert caught.value.message == message
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["job.json", "s"]


@pytest.mark.parametrize(
    ("tensors", "count"),
    [
        (int4(weight_scale=torch.tensor([[0.25, float("nan")]] + [[0.25, 0.25]] * 7).bfloat16()), 32),
        (int4(weight_scale=torch.tensor([[0.25, float("inf")]] + [[0.25, 0.25]] * 7).bfloat16()), 32),
        (fp8(weight_scale_inv=torch.full((1, 1), float("nan"))), 512),
        (fp8(weight_scale_inv=None, weight_scale=torch.tensor([[float("inf")]] + [[0.5]] * 7).bfloat16()), 64),
        (fp8(weight_scale_inv=None, weight_scale=torch.tensor([[255, 127]] + [[127] * 2] * 7).to(torch.uint8)), 32),
        (fp8(weight=torch.tensor([0x7F] + [0x38] * 511, dtype=torch.uint8).view(torch.float8_e4m3fn).view(8, 64)), 1),
    ],
)
def test_scales_that_are_no_numbers_stop_the_run_and_leave_no_result(
    tensors: dict[str, torch.Tensor], count: int, source: Source, job: Job, run_program: Run, tmp_path: Path
) -> None:
    path = job(tmp_path / "job.json", source(tmp_path / "s", [tensors]), [NAME])
    code, events, _ = run_program(path)
    assert code == 2
    assert events[-1]["payload"]["message"] == (
        f"model-00001-of-00001.safetensors: {NAME}.weight holds {count} NaN or infinite values of 512; it cannot be "
        "quantized."
    )
    assert not (tmp_path / "checkpoint").exists()


def test_a_shard_cut_inside_blocks_is_named_before_anything_is_written(
    source: Source, job: Job, run_program: Run, tmp_path: Path
) -> None:
    stack = "model.layers.0.mlp.experts"
    tensors = {
        f"{stack}.{part}_{kind}": torch.ones(*shape, dtype=torch.uint8)
        for part, rows, groups in (("gate_up_proj", 64, 1), ("down_proj", 32, 1))
        for kind, shape in (("blocks", (2, rows, groups, 16)), ("scales", (2, rows, groups)))
    }
    folder = source(tmp_path / "s", [tensors], model_type="gpt_oss")
    shard = next(folder.glob("*.safetensors"))
    whole = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(whole - 100)
    code, events, _ = run_program(job(tmp_path / "job.json", folder, [f"{stack}.gate_up_proj", f"{stack}.down_proj"]))
    assert code == 2
    message = events[-1]["payload"]["message"]
    assert message.endswith(f"is truncated: its header describes {whole:,} bytes, the file has {whole - 100:,}.")
    assert shard.name in message
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["job.json", "s"]


@pytest.mark.parametrize("form", ["int4", "fp8"])
def test_all_zero_weights_of_quantized_sources_become_zeros_with_finite_scales(
    form: str, source: Source, job: Job, run_program: Run, tmp_path: Path
) -> None:
    zeros: dict[str, Any] = {
        "int4": int4(weight_packed=torch.full((8, 8), -0x77777778, dtype=torch.int32)),  # every nibble 8 stands for 0
        "fp8": fp8(weight=torch.zeros(8, 64).to(torch.float8_e4m3fn)),
    }
    path = job(tmp_path / "job.json", source(tmp_path / "s", [zeros[form]]), [NAME])
    code, events, errors = run_program(path)
    assert code == 0, errors
    assert any("is all zero" in event["payload"].get("message", "") for event in events)
    raw = next((tmp_path / "checkpoint").glob("*.safetensors")).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    begin, end = header[f"{NAME}.weight_scale"]["data_offsets"]
    start = 8 + int.from_bytes(raw[:8], "little")
    scales = np.frombuffer(raw[start + begin : start + end], np.uint8)
    assert set(scales.tolist()) == {0x38}
    payload = header[f"{NAME}.weight"]["data_offsets"]
    assert not any(raw[start + payload[0] : start + payload[1]])
