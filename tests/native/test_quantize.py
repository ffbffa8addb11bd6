"""The streaming quantizer: fused groups, what is copied, what is refused; every byte against the numpy reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher import formats
from publisher.checkpoint.modules import fused_groups
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.writer import StagedWriter
from publisher.errors import CheckpointError
from publisher.formats import sweep
from publisher.native import quantize
from publisher.native.job import read_job
from publisher.native.quantize import Quantizer
from publisher.native.source import SourceTensors
from publisher.native.units import pending, plan_layout, plan_units

Write = Callable[..., Path]


def moe(experts: int = 3, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """A DeepSeek-like layer in two shards: gate and up of each expert lie in different ones."""
    random = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=random) * torch.rand((), generator=random)).bfloat16()

    first: dict[str, torch.Tensor] = {"model.embed_tokens.weight": matrix(50, 64)}
    second: dict[str, torch.Tensor] = {}
    for name, rows in (("q_a_proj", 32), ("kv_a_proj_with_mqa", 24)):
        first[f"model.layers.0.self_attn.{name}.weight"] = matrix(rows, 64)
    first["model.layers.0.mlp.gate.weight"] = matrix(experts, 64)
    first["model.layers.0.mlp.gate.e_score_correction_bias"] = torch.randn(experts, generator=random)
    for expert in range(experts):
        stem = f"model.layers.0.mlp.experts.{expert}"
        first[f"{stem}.gate_proj.weight"] = matrix(96, 64)
        second[f"{stem}.up_proj.weight"] = matrix(96, 64)
        second[f"{stem}.down_proj.weight"] = matrix(64, 96)
        second[f"{stem}.down_proj.bias"] = torch.randn(64, generator=random).bfloat16()
    second["model.norm.weight"] = torch.ones(64).bfloat16()
    return [first, second]


def linears(shards: list[dict[str, torch.Tensor]], word: str = "proj") -> list[str]:
    return sorted(n.removesuffix(".weight") for s in shards for n in s if word in n and n.endswith(".weight"))


def run(job_path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What was staged, and the notes."""
    job = read_job(job_path)
    source = SourceTensors(job.source)
    units = plan_units(source.refs, job)
    with StagedWriter(job.staging, job.output, plan_layout(units, job), plan_digest=job.plan_digest) as writer:
        tasks = pending(units, job.stored, writer.done)
        Quantizer(job, source, writer, torch.device("cpu"), lambda: None).run(tasks)
        writer.wait()
        staged = {}
        for shard in writer.layout:
            staged |= load_file(writer.files / shard.name)
        return staged, writer.notes


@pytest.mark.parametrize(("read_ahead", "mode"), [(0, "max"), (1 << 30, "max"), (0, "mse")])
def test_nvfp4_shares_one_scale_in_each_fused_group(
    source: Write, job: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_ahead: int, mode: str
) -> None:
    monkeypatch.setattr(quantize, "READ_AHEAD", read_ahead)
    shards = moe()
    names = linears(shards)
    groups = fused_groups(names)
    assert len(groups) == 4  # q_a + kv_a, and gate + up of three experts
    changes = {"groups": groups, "shard_size": 9000, "mode": mode}
    staged, _ = run(job(tmp_path / "r/job.json", source(tmp_path / "s", shards), names, **changes))
    reference = sweep.quantize if mode == "mse" else formats.nvfp4.quantize
    original = shards[0] | shards[1]
    group_of = {member: members for members in groups.values() for member in members}
    for name in names:
        weights = [original[f"{member}.weight"].float().numpy() for member in group_of.get(name, (name,))]
        expected = reference(
            original[f"{name}.weight"].float().numpy(), global_amax=max(float(np.abs(w).max()) for w in weights)
        )
        assert np.array_equal(staged[f"{name}.weight"].numpy(), expected.payload)
        assert np.array_equal(staged[f"{name}.weight_scale"].view(torch.uint8).numpy(), expected.block_scales)
        assert staged[f"{name}.weight_scale"].dtype == torch.float8_e4m3fn
        assert staged[f"{name}.weight_scale_2"].shape == ()
        assert staged[f"{name}.weight_scale_2"].numpy() == expected.global_scale


@pytest.mark.parametrize("mode", ["even", "floor", "ceil"])
def test_mxfp4_matches_the_reference(source: Write, job: Write, tmp_path: Path, mode: Any) -> None:
    shards = moe()
    names = linears(shards)
    staged, _ = run(job(tmp_path / "r/job.json", source(tmp_path / "s", shards), names, format="mxfp4", mode=mode))
    for name in names:
        expected = formats.mxfp4.quantize((shards[0] | shards[1])[f"{name}.weight"].float().numpy(), mode=mode)
        assert np.array_equal(staged[f"{name}.weight"].numpy(), expected.payload)
        assert np.array_equal(staged[f"{name}.weight_scale"].numpy(), expected.block_scales)
        assert f"{name}.weight_scale_2" not in staged


def test_everything_else_is_copied_byte_for_byte_and_nothing_is_invented(
    source: Write, job: Write, tmp_path: Path
) -> None:
    shards = moe()
    names = linears(shards, "up_proj")
    staged, _ = run(job(tmp_path / "r/job.json", source(tmp_path / "s", shards), names))
    original = shards[0] | shards[1]
    kept = {name for name in original if name.removesuffix(".weight") not in names}
    assert set(staged) == kept | {f"{n}.{s}" for n in names for s in ("weight", "weight_scale", "weight_scale_2")}
    assert "lm_head.weight" not in staged  # tied in this source
    for name in kept:
        assert staged[name].dtype == original[name].dtype
        assert torch.equal(staged[name], original[name])


def test_a_payload_lies_beside_its_scales(source: Write, job: Write, tmp_path: Path) -> None:
    shards = moe()
    path = job(tmp_path / "r/job.json", source(tmp_path / "s", shards), linears(shards), shard_size=7000)
    run(path)
    staged = open_checkpoint(tmp_path / "r/staging/files")
    assert len(staged.shards) > 4
    for module in staged.modules.values():
        if module.quantized:
            assert len({module.tensors[s].shard for s in ("weight", "weight_scale", "weight_scale_2")}) == 1


def test_where_shards_end_in_the_source_does_not_matter_to_the_values(
    source: Write, job: Write, tmp_path: Path
) -> None:
    first, second = moe()
    names = linears([first, second])
    groups = fused_groups(names)
    one, _ = run(job(tmp_path / "a/job.json", source(tmp_path / "s1", [first, second]), names, groups=groups))
    two, _ = run(job(tmp_path / "b/job.json", source(tmp_path / "s2", [first | second]), names, groups=groups))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name].view(torch.uint8), two[name].view(torch.uint8)) for name in one if one[name].ndim)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(torch.bfloat16, float("nan")), (torch.float16, float("inf")), (torch.float32, float("-inf"))],
)
def test_weights_that_are_not_finite_are_refused_and_counted(
    source: Write, job: Write, tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    weight = torch.ones(4, 64, dtype=dtype)
    weight[1, :3] = value
    path = job(tmp_path / "r/job.json", source(tmp_path / "s", [{"a.weight": weight}]), ["a"])
    with pytest.raises(CheckpointError, match=r"a\.weight holds 3 NaN or infinite values of 256"):
        run(path)
    assert not (tmp_path / "r/checkpoint").exists()


def test_an_all_zero_tensor_has_finite_scales_and_a_warning(
    source: Write, job: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = job(tmp_path / "r/job.json", source(tmp_path / "s", [{"dead.weight": torch.zeros(4, 64)}]), ["dead"])
    staged, _ = run(path)
    assert staged["dead.weight"].count_nonzero() == 0
    assert (staged["dead.weight_scale"].float() == 1).all()
    assert 0 < float(staged["dead.weight_scale_2"]) < 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert next(e["payload"]["message"] for e in events if e["kind"] == "warning").startswith("dead.weight is all zero")


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ({"b.weight": torch.ones(4, 64)}, "a has no weight"),
        ({"a.weight": torch.ones(4, 24)}, r"\[4, 24\], not rows of whole blocks of 16"),
        ({"a.weight": torch.ones(64)}, r"\[64\]"),
        ({"a.weight": torch.ones(2, 4, 64)}, r"\[2, 4, 64\]"),
        ({"a.weight": torch.ones(0, 64)}, r"\[0, 64\]"),
        ({"a.weight": torch.ones(4, 64, dtype=torch.uint8)}, "is U8"),
        ({"a.weight": torch.ones(4, 64), "a.weight_scale": torch.ones(4)}, "a.weight_scale"),
    ],
)
def test_what_cannot_be_quantized_is_refused_before_work(
    source: Write, job: Write, tmp_path: Path, tensors: dict[str, torch.Tensor], word: str
) -> None:
    with pytest.raises(CheckpointError, match=word):
        run(job(tmp_path / "r/job.json", source(tmp_path / "s", [tensors]), ["a"]))
    assert not (tmp_path / "r/staging").exists()


def test_errors_are_those_of_the_stored_bytes(source: Write, job: Write, tmp_path: Path) -> None:
    shards = moe()
    names = linears(shards)
    staged, notes = run(job(tmp_path / "r/job.json", source(tmp_path / "s", shards), names, groups=fused_groups(names)))
    report = quantize.weight_errors(notes)
    squares = []
    for name in names:
        exact = (shards[0] | shards[1])[f"{name}.weight"].double().numpy()
        stored = formats.nvfp4.dequantize(
            staged[f"{name}.weight"].numpy(),
            staged[f"{name}.weight_scale"].view(torch.uint8).numpy(),
            staged[f"{name}.weight_scale_2"].numpy(),
        )
        squares.append((np.sum((stored - exact) ** 2), np.sum(exact**2)))
        assert report["modules"][name] == pytest.approx(np.sqrt(squares[-1][0] / squares[-1][1]), rel=1e-4)
    total = np.sum(squares, axis=0)
    assert report["overall"] == pytest.approx(np.sqrt(total[0] / total[1]), rel=1e-4)
    assert report["worst"][0]["relative_rmse"] == max(report["modules"].values())


def test_a_single_file_without_index_is_a_source(job: Write, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    save_file({"a.weight": torch.ones(4, 64).bfloat16()}, tmp_path / "s/model.safetensors")
    staged, _ = run(job(tmp_path / "r/job.json", tmp_path / "s", ["a"]))
    assert set(staged) == {"a.weight", "a.weight_scale", "a.weight_scale_2"}
