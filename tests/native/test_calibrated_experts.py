"""From text to input scales of experts in one tensor: calibrate, plan, quantize; every scale against forward hooks.

The hooks are torch's, on the same folder loaded by transformers alone; what an expert multiplies by `down_proj` is
computed by transformers' own activation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import transformers

from publisher.checkpoint.open import open_checkpoint
from publisher.engines import ENGINES
from publisher.engines.base import write_job
from publisher.native.__main__ import StopSignal, run
from publisher.plan.decide import make_plan
from publisher.plan.recipe import recipe_from_mapping
from tests.native.test_calibrate import SOURCES, batches, observed, write_text
from tests.native.test_recode import findings, fuse, in_blocks, tensors

LAYERS, EXPERTS = 2, 4
STEP = torch.tensor(448.0 * 6.0)
Largest = dict[tuple[str, int, str], torch.Tensor]  # layer of experts, expert, projection
Gated = Callable[[Any, torch.Tensor, int], torch.Tensor]


def gpt_oss(folder: Path) -> Path:
    torch.manual_seed(1)
    config = transformers.GptOssConfig(
        hidden_size=64, num_hidden_layers=LAYERS, num_attention_heads=2, num_key_value_heads=1, vocab_size=256,
        head_dim=16, num_local_experts=EXPERTS, num_experts_per_tok=2, intermediate_size=96, sliding_window=16,
    )  # fmt: skip
    return write(transformers.GptOssForCausalLM(config), folder)


def qwen(folder: Path) -> Path:
    torch.manual_seed(1)
    config = transformers.Qwen3MoeConfig(
        hidden_size=64, num_hidden_layers=LAYERS, num_attention_heads=2, num_key_value_heads=1, vocab_size=256,
        head_dim=16, num_experts=EXPERTS, num_experts_per_tok=2, moe_intermediate_size=96, intermediate_size=96,
    )  # fmt: skip
    return write(transformers.Qwen3MoeForCausalLM(config), folder)


def write(model: Any, folder: Path) -> Path:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def calibrated(source: Path, folder: Path, text: Path, quantize: list[str]) -> dict[str, torch.Tensor]:
    """The tensors of the result of `publisher calibrate` and a recipe that names its statistics."""
    transformers.AutoTokenizer.from_pretrained(SOURCES / "slice").save_pretrained(source)
    observed(source, folder, data=text)
    statistics = str(folder / "statistics.safetensors")
    recipe = {"name": "x", "source": str(source), "format": "nvfp4", "quantize": quantize, "statistics": statistics}
    plan = make_plan(recipe_from_mapping(recipe, folder, "recipe.yaml"), open_checkpoint(source))
    assert plan.problems == ()
    where = {"source_dir": source, "output": folder / "out", "staging": folder / "staging"}
    write_job(ENGINES["native"], folder / "job.json", plan=plan, device="cpu", **where)
    run(folder / "job.json", cast(StopSignal, SimpleNamespace(check=lambda: None)))
    assert findings(folder / "out", source) == ()
    return tensors(folder / "out")


def hooked(source: Path, text: Path, gated: Gated, **more: Any) -> tuple[Largest, dict[str, torch.Tensor]]:
    """The largest input of each projection of every expert that a token reached, and of each linear layer."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(source, experts_implementation="eager", **more)
    assert model.dtype is torch.bfloat16
    experts: Largest = {}
    layers: dict[str, torch.Tensor] = {}

    def note(found: dict[Any, torch.Tensor], key: Any, value: torch.Tensor) -> None:
        found[key] = max(found.get(key, torch.zeros(())), value.abs().max().float())

    def of_experts(name: str, module: Any, inputs: Any, named: Any) -> None:
        hidden, chosen = (*inputs, *named.values())[:2]
        rows = hidden.reshape(-1, hidden.shape[-1])
        for expert in chosen.unique().tolist():
            own = rows[(chosen == expert).any(-1)]
            note(experts, (name, expert, "gate_up_proj"), own)
            note(experts, (name, expert, "down_proj"), gated(module, own, expert))

    for name, module in model.named_modules():
        if name.endswith(".experts"):
            module.register_forward_pre_hook(
                lambda module, inputs, named, name=name: of_experts(name, module, inputs, named), with_kwargs=True
            )
        elif isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs, name=name: note(layers, name, inputs[0]))
    with torch.inference_mode():
        for ids in batches(source, text):
            model(ids)
    return experts, layers


def of_gpt_oss(module: Any, rows: torch.Tensor, expert: int) -> torch.Tensor:
    return cast(torch.Tensor, module._apply_gate(rows @ module.gate_up_proj[expert] + module.gate_up_proj_bias[expert]))


def of_qwen(module: Any, rows: torch.Tensor, expert: int) -> torch.Tensor:
    gate, up = torch.nn.functional.linear(rows, module.gate_up_proj[expert]).chunk(2, dim=-1)
    return cast(torch.Tensor, module.act_fn(gate) * up)


@pytest.mark.parametrize("form", ["mxfp4", "bf16"])
def test_stacks_of_gpt_oss(form: str, tmp_path: Path) -> None:
    """One scale for all experts of a layer's projection, of MXFP4 as it is published and of BF16."""
    source, text = gpt_oss(tmp_path / "bf16"), write_text(tmp_path, 3)
    more: dict[str, Any] = {}
    if form == "mxfp4":
        source = in_blocks(source, tmp_path / "mxfp4")
        more = {"quantization_config": transformers.Mxfp4Config(dequantize=True)}
    after = calibrated(source, tmp_path, text, ["*.experts.*", "*.self_attn.*_proj"])
    experts, layers = hooked(source, text, of_gpt_oss, **more)
    scales = {name for name in after if name.endswith("input_scale")}
    for layer in range(LAYERS):
        stack = f"model.layers.{layer}.mlp.experts"
        for projection in ("gate_up_proj", "down_proj"):
            own = [amax for (name, _, part), amax in experts.items() if (name, part) == (stack, projection)]
            assert torch.equal(after[f"{stack}.{projection}_input_scale"], max(own) / STEP), (stack, projection)
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            name = f"model.layers.{layer}.self_attn.{projection}"
            assert torch.equal(after[f"{name}.input_scale"], layers[name] / STEP), name
    assert len(scales) == LAYERS * 6


def test_experts_that_are_told_apart(tmp_path: Path) -> None:
    """Plain stacks as loaders' names for single experts: each has the range of the tokens it saw, gate and up one."""
    alone, text = qwen(tmp_path / "alone"), write_text(tmp_path, 1)
    source = fuse(alone, tmp_path / "fused", turned=False)
    after = calibrated(source, tmp_path, text, ["*.experts.*"])
    experts, _ = hooked(source, text, of_qwen)
    for layer in range(LAYERS):
        stack = f"model.layers.{layer}.mlp.experts"
        for expert in range(EXPERTS):
            for parts, projection in ((("gate_proj", "up_proj"), "gate_up_proj"), (("down_proj",), "down_proj")):
                reached = [amax for (name, _, part), amax in experts.items() if (name, part) == (stack, projection)]
                amax = experts.get((stack, expert, projection), max(reached))
                for part in parts:
                    assert torch.equal(after[f"{stack}.{expert}.{part}.input_scale"], amax / STEP), (expert, part)
    assert sum(name.endswith("input_scale") for name in after) == LAYERS * EXPERTS * 3
