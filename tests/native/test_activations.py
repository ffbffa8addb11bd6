"""Activations rounded as kernels do: modelopt's and compressed-tensors' own bytes, and transformers running them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.statistics import Observed, Statistics, write
from publisher.engines import ENGINES
from publisher.engines.base import write_job
from publisher.errors import CheckpointError, EngineError, PublisherError
from publisher.native import dequantized
from publisher.native.activations import SimulatedActivations, mxfp4_values, nvfp4_values
from publisher.plan.decide import make_plan
from publisher.plan.recipe import recipe_from_mapping

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
SOURCES = Path(__file__).parents[1] / "released/sources"
CPU = torch.device("cpu")
TOKENS = torch.arange(3, 67)[None]


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    """Ordinary values, ties, zeros of both signs, and some beyond the range."""
    random = torch.Generator().manual_seed(2)
    values = torch.randn(3, 40, 128, generator=random)
    values[0, :8] = torch.tensor([0.0, -0.0, 0.25, -0.75, 1.25, 5.0, -6.0, 3.5]).repeat(8, 16)
    values[1, 0, :32] = 0
    values[2, 3, 5] = 90.0
    return values.to(dtype)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nvfp4_inputs_are_what_modelopt_holds(dtype: torch.dtype) -> None:
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    values, scale = inputs(dtype), torch.tensor(4.0 / 2688)
    rows = values.reshape(-1, 128)
    made, scales, _ = NVFP4QTensor.quantize(rows.clone(), 16, None, scale)
    theirs = made.dequantize(dtype=dtype, scale=scales, double_scale=scale, block_sizes={-1: 16})
    ours = nvfp4_values(values, scale=scale)
    assert (ours.dtype, ours.shape) == (dtype, values.shape)
    assert torch.equal(ours.reshape(-1, 128), theirs)
    assert ours.abs().max() == 4.0, "beyond the range of the stored scale an input saturates"


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["even", "floor", "ceil"])
def test_mxfp4_inputs_are_what_torchao_holds(mode: Any) -> None:
    from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode

    values = inputs()
    kind = ScaleCalculationMode[mode.upper()]
    theirs = MXTensor.to_mx(values.reshape(-1, 128), torch.float4_e2m1fn_x2, 32, kind).dequantize(torch.float32)
    assert torch.equal(mxfp4_values(values, mode=mode).reshape(-1, 128), theirs)


def test_nan_is_refused() -> None:
    values = inputs()
    values[1, 1, 1] = torch.nan
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        nvfp4_values(values, scale=torch.tensor(1.0))


# --- whole models --------------------------------------------------------------------------------------------------


def quantized(folder: Path, run_program: Run, source: Path, form: str, **recipe: Any) -> Path:
    document = {"name": "x", "source": str(source), "format": form, "quantize": ["*"], **recipe}
    if form == "nvfp4" and "activations" not in recipe:
        names = [name for name in open_checkpoint(source).modules if "_proj" in name]
        seen = {name: Observed(2.0 + index / 8, 64) for index, name in enumerate(names)}
        write(folder / "statistics.safetensors", Statistics(modules=seen))
        document["statistics"] = "statistics.safetensors"
    plan = make_plan(recipe_from_mapping(document, folder, "recipe.yaml"), open_checkpoint(source))
    assert plan.problems == ()
    where = {"source_dir": source, "output": folder / "out", "staging": folder / "staging"}
    write_job(ENGINES["native"], folder / "job.json", plan=plan, device="cpu", **where)
    code, _, errors = run_program(folder / "job.json")
    assert code == 0, errors
    return folder / "out"


def logits(folder: Path) -> tuple[Tensor, Tensor]:
    """With exact and with simulated activations; weights as BF16 holds them, all else in float32."""
    model = dequantized.load_model(folder, dtype=torch.bfloat16, device=CPU).float()
    with torch.no_grad():
        with SimulatedActivations(model, folder) as simulated:
            rounded = model(TOKENS).logits
        simulated.require_used()
        return model(TOKENS).logits, rounded


@pytest.mark.slow
@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_transformers_running_compressed_tensors_computes_the_same(form: str, tmp_path: Path, run_program: Run) -> None:
    """That library rounds activations itself when transformers runs it; not one bit of a logit differs."""
    from transformers import AutoModelForCausalLM

    out = quantized(tmp_path, run_program, SOURCES / "slice", form, layout="compressed-tensors")
    exact, ours = logits(out)
    theirs: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    with torch.no_grad():
        theirs(TOKENS)  # decompresses, to BF16
        torch.nn.Module.float(theirs)  # in BF16 the library rounds the scales of activations before it uses them
        assert torch.equal(theirs(TOKENS).logits, ours)
    assert (ours - exact).norm() > 0.02 * exact.norm(), "rounding activations matters"


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_both_directions_of_the_stored_scale_mean_the_same(layout: str, tmp_path: Path, run_program: Run) -> None:
    (tmp_path / "a").mkdir()
    out = quantized(tmp_path / "a", run_program, SOURCES / "slice", "nvfp4", layout=layout)
    exact, rounded = logits(out)
    assert 0.005 < (rounded - exact).norm() / exact.norm() < 0.5


def test_every_expert_is_rounded_under_its_own_scale(tmp_path: Path, run_program: Run) -> None:
    out = quantized(tmp_path, run_program, SOURCES / "kimi", "nvfp4", layout="modelopt")
    model = dequantized.load_model(out, dtype=torch.float32, device=CPU)
    placed = SimulatedActivations(model, out)._rounding
    experts = 2 * 8 * 2  # layers, experts, gate_up and down
    scales = [getattr(rounding, "keywords", {})["scale"] for rounding in placed.values()]
    assert len({float(scale) for scale in scales}) > experts
    assert len(placed) == experts + len([m for m in open_checkpoint(out).modules.values() if m.quantized]) - 2 * 8 * 3


def test_a_weight_only_checkpoint_has_nothing_to_simulate(tmp_path: Path, run_program: Run) -> None:
    out = quantized(tmp_path, run_program, SOURCES / "slice", "nvfp4", activations="none")
    model = dequantized.load_model(out, dtype=torch.float32, device=CPU)
    with pytest.raises(PublisherError, match="weight-only"):
        SimulatedActivations(model, out)


def test_a_layer_without_its_scale_is_named(tmp_path: Path, run_program: Run) -> None:
    from safetensors.torch import load_file, save_file

    out = quantized(tmp_path, run_program, SOURCES / "slice", "nvfp4", layout="modelopt")
    model = dequantized.load_model(out, dtype=torch.float32, device=CPU)
    (index,) = out.glob("*.index.json")
    lost = "model.layers.1.mlp.down_proj.input_scale"
    shard = out / json.loads(index.read_text())["weight_map"][lost]
    tensors = load_file(shard)
    tensors[lost] = torch.tensor(float("nan"))
    save_file(tensors, shard)
    with pytest.raises(CheckpointError, match=r"layers.1.mlp.down_proj.input_scale is nan"):
        SimulatedActivations(model, out)


def test_products_that_do_not_show_are_refused(tmp_path: Path, run_program: Run) -> None:
    out = quantized(tmp_path, run_program, SOURCES / "slice", "nvfp4")
    simulated = SimulatedActivations(dequantized.load_model(out, dtype=torch.float32, device=CPU), out)
    with simulated:
        pass
    with pytest.raises(EngineError, match="14 of 14 packed layers"):
        simulated.require_used()
