"""compressed-tensors' layout against that library, transformers that loads through it, and llm-compressor's exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.statistics import Observed, Statistics, read, write
from publisher.engines import ENGINES
from publisher.engines.base import write_job
from publisher.native import dequantized
from publisher.plan.decide import make_plan
from publisher.plan.recipe import recipe_from_mapping
from publisher.rules import run
from publisher.subjects import Evidence

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
RELEASED = Path(__file__).parents[1] / "released"
SLICE = RELEASED / "sources/slice"  # the corner of two layers of a real model
CPU = torch.device("cpu")


def quantized(folder: Path, run_program: Run, source: Path = SLICE, **recipe: Any) -> Path:
    document = {"name": "x", "source": str(source), "layout": "compressed-tensors", "quantize": ["*"], **recipe}
    plan = make_plan(recipe_from_mapping(document, folder, "recipe.yaml"), open_checkpoint(source))
    assert plan.problems == ()
    where = {"source_dir": source, "output": folder / "out", "staging": folder / "staging"}
    write_job(ENGINES["native"], folder / "job.json", plan=plan, device="cpu", **where)
    code, _, errors = run_program(folder / "job.json")
    assert code == 0, errors
    return folder / "out"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for shard in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(shard).items()}


@pytest.fixture(scope="module", params=["nvfp4", "mxfp4"])
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_transformers_loads_it_and_computes_with_the_same_weights(form: str, tmp_path: Path, run_program: Run) -> None:
    """Weight-only: transformers decompresses through compressed-tensors; not one bit of a logit may differ."""
    from transformers import AutoModelForCausalLM

    out = quantized(tmp_path, run_program, format=form, activations="none")
    theirs: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    ours = dequantized.load_model(out, dtype=torch.bfloat16, device=CPU)
    tokens = torch.arange(3, 67)[None]
    with torch.no_grad():
        assert torch.equal(theirs(tokens).logits, ours(tokens).logits)
    assert not (out / "hf_quant_config.json").exists()


def test_every_rule_is_satisfied(form: str, tmp_path: Path, run_program: Run) -> None:
    out = quantized(tmp_path, run_program, format=form)
    evidence = Evidence(checkpoint=open_checkpoint(out), source=open_checkpoint(SLICE))
    assert run(evidence, level="full", ignore=("LC",)).findings == ()


def test_the_library_packs_the_same_bytes_under_the_same_scales(form: str, tmp_path: Path, run_program: Run) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams

    stored, source = weights(quantized(tmp_path, run_program, format=form)), weights(SLICE)
    scheme: Any = preset_name_to_scheme(form.upper() + "A16", ["Linear"])
    library: Any = BaseCompressor.load_from_registry(f"{form}-pack-quantized")
    modules = [name.removesuffix(".weight_packed") for name in stored if name.endswith(".weight_packed")]
    assert len(modules) == 14
    for module in modules:
        weight = source[f"{module}.weight"].float()
        blocks = weight.view(len(weight), -1, scheme.weights.group_size)
        scalar = stored.get(f"{module}.weight_global_scale")
        scale, _ = calculate_qparams(blocks.amin(-1), blocks.amax(-1), scheme.weights, global_scale=scalar)
        given = {"weight": weight, "weight_scale": scale}
        made = library.compress(given if scalar is None else given | {"weight_global_scale": scalar}, scheme)
        assert made["weight_packed"].equal(stored[f"{module}.weight_packed"])
        mine = stored[f"{module}.weight_scale"].view(torch.uint8)
        assert made["weight_scale"].view(torch.uint8).equal(mine)


def test_a_global_scale_is_2688_over_the_largest_weight_of_its_group(tmp_path: Path, run_program: Run) -> None:
    stored, source = weights(quantized(tmp_path, run_program, format="nvfp4")), weights(SLICE)
    for members in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")):
        names = [f"model.layers.1.{member}" for member in members]
        largest = max(source[f"{name}.weight"].float().abs().max() for name in names)
        for name in names:
            scale = stored[f"{name}.weight_global_scale"]
            assert (scale.dtype, scale.shape) == (torch.float32, (1,))
            torch.testing.assert_close(scale[0], 2688 / largest, rtol=2**-22, atol=0)


def measured(folder: Path, source: Path, unreached: str = "-") -> Path:
    """Statistics of every linear layer: another range for each, none for modules with this word in their name."""
    names = [name for name in open_checkpoint(source).modules if "_proj" in name]
    observed = {
        name: Observed(0.0, 0) if unreached in name else Observed(1.0 + index / 8, 64)
        for index, name in enumerate(names)
    }
    write(folder / "statistics.safetensors", Statistics(modules=observed))
    return folder / "statistics.safetensors"


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_statistics_become_input_scales_in_the_layouts_own_direction(
    layout: str, tmp_path: Path, run_program: Run
) -> None:
    seen = read(measured(tmp_path, SLICE)).modules
    out = quantized(tmp_path, run_program, format="nvfp4", layout=layout, statistics="statistics.safetensors")
    stored = weights(out)
    for members in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.down_proj",)):
        names = [f"model.layers.0.{member}" for member in members]
        amax = max(seen[name].amax for name in names)
        for name in names:
            if layout == "modelopt":
                torch.testing.assert_close(stored[f"{name}.input_scale"], torch.tensor(amax / 2688))
            else:
                torch.testing.assert_close(stored[f"{name}.input_global_scale"], torch.tensor([2688 / amax]))
    evidence = Evidence(checkpoint=open_checkpoint(out), source=open_checkpoint(SLICE))
    assert run(evidence, level="full", ignore=("LC",)).findings == ()
    record = json.loads((tmp_path / "out.quantize.json").read_text())
    down = "model.layers.1.mlp.down_proj"
    assert record["activation_statistics"][down] == {"input_amax": seen[down].amax, "tokens": 64}
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    assert config["config_groups"]["group_0"]["input_activations"]["dynamic"] in (False, "local")
    if layout == "compressed-tensors":
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
        with torch.no_grad():
            assert model(torch.arange(3, 30)[None]).logits.isfinite().all()


def test_experts_no_token_reached_take_their_layers_range_and_are_named(tmp_path: Path, run_program: Run) -> None:
    source = RELEASED / "sources/kimi"
    measured(tmp_path, source, "experts.3.")
    out = quantized(tmp_path, run_program, source, format="nvfp4", statistics="statistics.safetensors")
    lost = "model.layers.1.mlp.experts.3.down_proj"
    record = json.loads((tmp_path / "out.quantize.json").read_text())["activation_statistics"]
    others = [
        r["input_amax"] for name, r in record.items() if name.startswith(lost[:29]) and name.endswith("down_proj")
    ]
    assert record[lost]["input_amax"] == max(others)
    assert "substituted" in record[lost]
    assert weights(out)[f"{lost}.input_global_scale"].item() == pytest.approx(2688 / max(others))


def test_other_numbers_in_the_same_place_are_another_job(tmp_path: Path, run_program: Run) -> None:
    measured(tmp_path, SLICE)
    quantized(tmp_path, run_program, format="nvfp4", statistics="statistics.safetensors")
    first = json.loads((tmp_path / "job.json").read_text())["plan_digest"]
    (tmp_path / "out").rename(tmp_path / "first")
    measured(tmp_path, SLICE, "q_proj")  # a module that was not reached and is no expert
    with pytest.raises(AssertionError):
        quantized(tmp_path, run_program, format="nvfp4", statistics="statistics.safetensors")
    assert json.loads((tmp_path / "job.json").read_text())["plan_digest"] != first


@pytest.mark.parametrize("source", ["slice", "kimi"])
def test_llm_compressor_writes_the_same_mxfp4(source: str, tmp_path: Path, run_program: Run) -> None:
    theirs = weights(RELEASED / f"exports/{source}-model-free-mxfp4")
    keep = ["*mlp.gate", "*lm_head", "*embed_tokens"]
    out = quantized(tmp_path, run_program, RELEASED / f"sources/{source}", format="mxfp4", keep=keep)
    ours = weights(out)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.view(torch.uint8).equal(theirs[name].view(torch.uint8)), name
    groups = [
        next(iter(json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"].values()))
        for folder in (out, RELEASED / f"exports/{source}-model-free-mxfp4")
    ]
    for part in ("weights", "input_activations"):
        told = {key: value for key, value in groups[1][part].items() if value not in (None, {})}
        assert groups[0][part] == told
