"""gpt-oss in MXFP4 and BF16, fused experts, and FP8 beside FP4: from the plan to a result that every rule accepts.

The sources are models of transformers; MXFP4 is made by modelopt's own quantizer and read back by transformers' own
dequantizer, stacks are compared with modelopt's export, FP8 with torch's casts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.statistics import Observed, Statistics, write
from publisher.engines import ENGINES
from publisher.engines.base import write_job
from publisher.formats import mxfp4, nvfp4
from publisher.plan.decide import make_plan
from publisher.plan.recipe import recipe_from_mapping
from publisher.rules import run
from publisher.subjects import Evidence

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
SLICE = Path(__file__).parents[1] / "released/sources/slice"  # the corner of two layers of a real model
LAYERS, EXPERTS, HIDDEN, INNER = 2, 4, 64, 96
STACK = "model.layers.{}.mlp.experts.{}"
PROJECTIONS = ("gate_up_proj", "down_proj")


def quantized(folder: Path, run_program: Run, source: Path, **recipe: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    document = {"name": "x", "source": str(source), **recipe}
    plan = make_plan(recipe_from_mapping(document, folder, "recipe.yaml"), open_checkpoint(source))
    assert plan.problems == ()
    where = {"source_dir": source, "output": folder / "out", "staging": folder / "staging"}
    write_job(ENGINES["native"], folder / "job.json", plan=plan, device="cpu", **where)
    code, _, errors = run_program(folder / "job.json")
    assert code == 0, errors
    stored = sum(tensor.nbytes for tensor in tensors(folder / "out").values())
    assert stored == plan.bytes_after
    return folder / "out"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for shard in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(shard).items()}


def findings(out: Path, source: Path) -> tuple[Any, ...]:
    evidence = Evidence(checkpoint=open_checkpoint(out), source=open_checkpoint(source))
    report = run(evidence, level="full", ignore=("LC",))
    unfinished = [one for one in report.not_run if "not finished" in one.reason]
    assert unfinished == []
    return tuple((one.code, one.message) for one in report.findings if one.severity != "info")


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GptOssForCausalLM in BF16, as transformers saves it."""
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(0)
    config = GptOssConfig(
        num_hidden_layers=LAYERS,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_local_experts=EXPERTS,
        num_experts_per_tok=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=128,
        layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=False,
        architectures=["GptOssForCausalLM"],
    )
    folder = tmp_path_factory.mktemp("gpt-oss")
    model: Any = GptOssForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or "sinks" in name:
                parameter.normal_()
    model.save_pretrained(folder)
    return folder


def in_blocks(source: Path, folder: Path, change: Callable[[str, torch.Tensor], None] | None = None) -> Path:
    """The same in MXFP4 blocks, as the published models are; scales in mode `even`."""
    folder.mkdir(parents=True)
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors(source).items():
        if not name.endswith(PROJECTIONS):
            found[name] = tensor
            continue
        rows = tensor.transpose(1, 2).contiguous()
        made = [mxfp4.quantize(expert.float().numpy()) for expert in rows]
        payload = torch.stack([torch.from_numpy(one.payload) for one in made])
        blocks = rows.shape[2] // 32
        found[f"{name}_blocks"] = payload.reshape(*rows.shape[:2], blocks, 16)
        found[f"{name}_scales"] = torch.stack([torch.from_numpy(one.block_scales) for one in made])
    if change is not None:
        for name, tensor in found.items():
            change(name, tensor)
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def blocks(gpt_oss: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_blocks(gpt_oss, tmp_path_factory.mktemp("blocks") / "source")


def meant(stored: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """What a stack of blocks stands for, (E, out, in), by transformers."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    pieces: list[Any] = [stored[f"{name}_blocks"], stored[f"{name}_scales"]]
    return convert_moe_packed_tensors(*pieces, dtype=torch.float32).transpose(1, 2)


def test_gpt_oss_to_quark_is_a_repack(blocks: Path, tmp_path: Path, run_program: Run) -> None:
    out = quantized(tmp_path, run_program, blocks, format="mxfp4", quantize=["*.experts.*"])
    assert findings(out, blocks) == ()
    before, after = tensors(blocks), tensors(out)
    for layer in range(LAYERS):
        for projection in PROJECTIONS:
            name = STACK.format(layer, projection)
            for expert in range(EXPERTS):
                module = STACK.format(layer, f"{expert}.{projection}")
                assert torch.equal(after.pop(f"{module}.weight"), before[f"{name}_blocks"][expert].flatten(1))
                assert torch.equal(after.pop(f"{module}.weight_scale"), before[f"{name}_scales"][expert])
                assert torch.equal(after.pop(f"{module}.bias"), before[f"{name}_bias"][expert])
    others = {name for name in before if ".experts." not in name}
    assert set(after) == others
    assert all(torch.equal(after[name], before[name]) for name in others)  # sinks, routers and their biases too
    record = json.loads((tmp_path / "out.quantize.json").read_text())
    assert record["taken_over"] == {"copied": 16, "lossless": 0, "recast": 0, "rounded": []}


def test_gpt_oss_to_nvfp4_loses_nothing(blocks: Path, tmp_path: Path, run_program: Run) -> None:
    out = quantized(tmp_path, run_program, blocks, format="nvfp4", quantize=["*.experts.*"])
    assert findings(out, blocks) == ()
    before, after = tensors(blocks), tensors(out)
    for layer in range(LAYERS):
        for projection in PROJECTIONS:
            name = STACK.format(layer, projection)
            assert after[f"{name}_weight_scale_2"].shape == ()
            for expert in range(EXPERTS):
                payload = after[name][expert].T.contiguous().numpy()
                scales = after[f"{name}_weight_scale"].view(torch.uint8)[expert].T.contiguous().numpy()
                got = nvfp4.dequantize(payload, scales, after[f"{name}_weight_scale_2"].numpy())
                assert torch.equal(torch.from_numpy(got), meant(before, name)[expert])
            assert torch.equal(after[f"{name}_bias"], before[f"{name}_bias"])
    record = json.loads((tmp_path / "out.quantize.json").read_text())
    assert record["taken_over"] == {"copied": 0, "lossless": 4, "recast": 4, "rounded": []}
    assert record["weight_error"]["overall"] == 0


def test_blocks_out_of_reach_are_rounded_named_and_counted(gpt_oss: Path, tmp_path: Path, run_program: Run) -> None:
    name = STACK.format(1, "down_proj")

    def far(tensor_name: str, tensor: torch.Tensor) -> None:
        if tensor_name == f"{name}_scales":
            tensor[2, 5, 1] = tensor.max() - 21

    source = in_blocks(gpt_oss, tmp_path / "source", far)
    out = quantized(tmp_path, run_program, source, format="nvfp4", quantize=["*.experts.*"])
    record = json.loads((tmp_path / "out.quantize.json").read_text())
    assert record["taken_over"]["rounded"] == [{"module": name, "blocks": 4 * 64 * 3, "rounded": 1}]
    assert record["taken_over"]["lossless"] == 3
    error = record["weight_error"]["modules"][name]
    before, after = tensors(source), tensors(out)
    values = [
        nvfp4.dequantize(
            after[name][expert].T.contiguous().numpy(),
            after[f"{name}_weight_scale"].view(torch.uint8)[expert].T.contiguous().numpy(),
            after[f"{name}_weight_scale_2"].numpy(),
        )
        for expert in range(EXPERTS)
    ]
    got, wanted = torch.stack([torch.from_numpy(one) for one in values]).double(), meant(before, name).double()
    assert error == pytest.approx(float((got - wanted).norm() / wanted.norm()), rel=1e-6)
    changed = (got != wanted).nonzero()
    assert {(int(e), int(r), int(c) // 32) for e, r, c in changed} == {(2, 5, 1)}


def test_bf16_stacks_are_what_modelopt_exports(gpt_oss: Path, tmp_path: Path, run_program: Run) -> None:
    """Names, dtypes, shapes and bytes of modelopt 0.47's own export of the same model, weight-only."""
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    out = quantized(tmp_path, run_program, gpt_oss, format="nvfp4", quantize=["*.experts.*"])
    assert findings(out, gpt_oss) == ()
    before, after = tensors(gpt_oss), tensors(out)
    for layer in range(LAYERS):
        for projection in PROJECTIONS:
            name = STACK.format(layer, projection)
            rows = before[name].transpose(1, 2).contiguous()  # the exporter quantizes along the input axis too
            scale_2 = rows.abs().amax().float() / (6 * 448)
            assert torch.equal(after[f"{name}_weight_scale_2"], scale_2)
            for expert in range(EXPERTS):
                made, scales, _ = NVFP4QTensor.quantize(
                    rows[expert], 16, weights_scaling_factor_2=scale_2, try_tensorrt=False
                )
                assert torch.equal(after[name][expert], made._quantized_data.T)
                own = after[f"{name}_weight_scale"][expert].view(torch.uint8)
                assert torch.equal(own, scales.view(torch.uint8).T)


@pytest.mark.parametrize("mode", ["mse", "four-over-six"])
def test_a_mode_s_stacks_are_what_its_experts_are_alone(
    mode: str, gpt_oss: Path, tmp_path: Path, run_program: Run
) -> None:
    """Under the global scale of the mode, which of four-over-six is another than that of max."""
    from publisher.formats import fouroversix, sweep

    reference = sweep if mode == "mse" else fouroversix
    out = quantized(tmp_path, run_program, gpt_oss, format="nvfp4", mode=mode, quantize=["*.experts.*"])
    assert findings(out, gpt_oss) == ()
    before, after = tensors(gpt_oss), tensors(out)
    name = STACK.format(1, "down_proj")
    rows = before[name].transpose(1, 2).float().numpy()
    largest = abs(rows).max()
    for expert in range(EXPERTS):
        made = reference.quantize(rows[expert], global_amax=largest)
        assert after[f"{name}_weight_scale_2"].item() == made.global_scale
        assert (made.payload == after[name][expert].numpy().T).all()


def test_a_stack_s_input_scale_is_that_of_its_largest_expert(blocks: Path, tmp_path: Path, run_program: Run) -> None:
    """One scale for all experts, so an expert that no token reached needs no range of its own."""
    seen = {}
    for layer in range(LAYERS):
        for expert in range(EXPERTS):
            for part, amax in (("gate_proj", 2.0 + expert), ("up_proj", 3.0 + expert), ("down_proj", 5.0)):
                tokens = 0 if expert == 1 else 7
                seen[STACK.format(layer, f"{expert}.{part}")] = Observed(amax if tokens else 0.0, tokens)
    write(tmp_path / "s.safetensors", Statistics(modules=seen))
    made = {"format": "nvfp4", "quantize": ["*.experts.*"], "statistics": str(tmp_path / "s.safetensors")}
    out = quantized(tmp_path, run_program, blocks, **made)
    assert findings(out, blocks) == ()
    after = tensors(out)
    for layer in range(LAYERS):
        for projection, amax in (("gate_up_proj", 6.0), ("down_proj", 5.0)):
            scale = after[f"{STACK.format(layer, projection)}_input_scale"]
            assert scale.shape == ()
            assert float(scale) == float(torch.tensor(amax) / 2688)


def test_the_result_does_not_depend_on_the_size_of_its_shards(blocks: Path, tmp_path: Path, run_program: Run) -> None:
    made = {"format": "nvfp4", "quantize": ["*.experts.*"]}
    one = quantized(tmp_path / "one", run_program, blocks, **made)
    many = quantized(tmp_path / "many", run_program, blocks, shard_size=20_000, **made)
    assert len(list(many.glob("*.safetensors"))) > 4
    first, second = tensors(one), tensors(many)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n].view(torch.uint8), second[n].view(torch.uint8)) for n in first if first[n].dim())


# --- fused experts of BF16 -----------------------------------------------------------------------------------------


def fuse(source: Path, folder: Path, *, turned: bool) -> Path:
    """A model with the experts of a layer in one tensor each, straight or turned, as Qwen and Llama 4 publish them."""
    folder.mkdir(parents=True)
    stored, found = tensors(source), {}
    for layer in range(LAYERS):
        parts = {
            part: torch.stack([stored.pop(f"{STACK.format(layer, f'{n}.{part}')}.weight") for n in range(EXPERTS)])
            for part in ("gate_proj", "up_proj", "down_proj")
        }
        both, down = torch.cat([parts["gate_proj"], parts["up_proj"]], dim=1), parts["down_proj"]
        found[STACK.format(layer, "gate_up_proj")] = both.transpose(1, 2).contiguous() if turned else both
        found[STACK.format(layer, "down_proj")] = down.transpose(1, 2).contiguous() if turned else down
    save_file({**stored, **found}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(1)
    config = Qwen3MoeConfig(
        num_hidden_layers=LAYERS,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        moe_intermediate_size=INNER,
        num_experts=EXPERTS,
        num_experts_per_tok=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=128,
        tie_word_embeddings=False,
        architectures=["Qwen3MoeForCausalLM"],
    )
    folder = tmp_path_factory.mktemp("qwen")
    model: Any = Qwen3MoeForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("form", "layout"), [("nvfp4", "modelopt"), ("mxfp4", "compressed-tensors")])
def test_fused_experts_give_the_bytes_of_experts_stored_alone(
    turned: bool, form: str, layout: str, qwen: Path, tmp_path: Path, run_program: Run
) -> None:
    made = {"format": form, "layout": layout, "quantize": ["*.experts.*"]}
    fused = fuse(qwen, tmp_path / "fused", turned=turned)
    first = quantized(tmp_path / "a", run_program, qwen, **made)
    second = quantized(tmp_path / "b", run_program, fused, **made)
    assert findings(second, fused) == ()
    one, other = tensors(first), tensors(second)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert tensor.flatten().view(torch.uint8).equal(other[name].flatten().view(torch.uint8)), name


# --- FP8 beside FP4 ------------------------------------------------------------------------------------------------

ALSO = {"quantize": ["*.experts.*"], "also": [{"format": "fp8", "quantize": ["*.self_attn.*_proj"]}]}


def measured(source: Path, path: Path) -> str:
    names = [name.removesuffix(".weight") for name in tensors(source) if name.endswith("_proj.weight")]
    write(path, Statistics(modules={name: Observed(2.0 + 0.01 * n, 9) for n, name in enumerate(names)}))
    return str(path)


def test_fp8_attention_beside_nvfp4_experts_in_modelopt_layout(qwen: Path, tmp_path: Path, run_program: Run) -> None:
    statistics = measured(qwen, tmp_path / "s.safetensors")
    out = quantized(tmp_path, run_program, qwen, format="nvfp4", statistics=statistics, **ALSO)
    assert findings(out, qwen) == ()
    before, after = tensors(qwen), tensors(out)
    seen = json.loads((out / "hf_quant_config.json").read_text())["quantization"]["quantized_layers"]
    for layer in range(LAYERS):
        base = f"model.layers.{layer}.self_attn"
        for members in (("q_proj", "k_proj", "v_proj"), ("o_proj",)):
            weights = [before[f"{base}.{name}.weight"].float() for name in members]
            scale = torch.stack([weight.abs().amax() for weight in weights]).amax() / 448
            for name, weight in zip(members, weights, strict=True):
                assert after[f"{base}.{name}.weight"].dtype == torch.float8_e4m3fn
                codes = (weight / scale).to(torch.float8_e4m3fn)
                assert torch.equal(after[f"{base}.{name}.weight"].view(torch.uint8), codes.view(torch.uint8))
                assert torch.equal(after[f"{base}.{name}.weight_scale"], scale)
                assert seen[f"{base}.{name}"] == {"quant_algo": "FP8"}
            inputs = {float(after[f"{base}.{name}.input_scale"]) for name in members}
            assert len(inputs) == 1
    assert seen[STACK.format(0, "3.up_proj")] == {"quant_algo": "NVFP4", "group_size": 16}
    assert "model.layers.0.mlp.gate" not in seen


@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_fp8_attention_in_compressed_tensors_layout(form: str, qwen: Path, tmp_path: Path, run_program: Run) -> None:
    from compressed_tensors.quantization import QuantizationConfig

    out = quantized(tmp_path, run_program, qwen, format=form, layout="compressed-tensors", **ALSO)
    assert findings(out, qwen) == ()
    block = json.loads((out / "config.json").read_text())["quantization_config"]
    parsed = QuantizationConfig.model_validate(block)
    assert parsed.format == "mixed-precision"
    assert {group.format for group in parsed.config_groups.values()} == {f"{form}-pack-quantized", "float-quantized"}
    before, after = tensors(qwen), tensors(out)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        module = f"model.layers.1.self_attn.{name}"
        weight = before[f"{module}.weight"].float()
        scale = weight.abs().amax(dim=1, keepdim=True) / 448
        assert torch.equal(after[f"{module}.weight_scale"], scale)
        codes = (weight / scale).to(torch.float8_e4m3fn).view(torch.uint8)
        assert torch.equal(after[f"{module}.weight"].view(torch.uint8), codes)
        assert f"{module}.input_scale" not in after


def test_transformers_loads_what_is_mixed_and_computes_with_it(tmp_path: Path, run_program: Run) -> None:
    from transformers import AutoModelForCausalLM

    made = {"quantize": ["*.mlp.*_proj"], "also": [{"format": "fp8", "quantize": ["*.self_attn.*_proj"]}]}
    out = quantized(tmp_path, run_program, SLICE, format="nvfp4", layout="compressed-tensors", **made)
    assert findings(out, SLICE) == ()
    theirs: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    whole: Any = AutoModelForCausalLM.from_pretrained(SLICE, dtype=torch.bfloat16)
    after = tensors(out)
    scheme = theirs.model.layers[0].self_attn.q_proj.quantization_scheme
    assert scheme.weights.num_bits == 8
    assert theirs.model.layers[0].mlp.up_proj.quantization_scheme.weights.num_bits == 4
    name = "model.layers.0.self_attn.q_proj"
    meant = after[f"{name}.weight"].float() * after[f"{name}.weight_scale"]
    tokens = torch.arange(3, 67)[None]
    with torch.no_grad():
        got, wanted = theirs(tokens).logits.float(), whole(tokens).logits.float()
    loaded = theirs.model.layers[0].self_attn.q_proj.weight.float()
    assert torch.allclose(loaded, meant, rtol=2**-7)
    assert torch.nn.functional.cosine_similarity(got.flatten(), wanted.flatten(), dim=0) > 0.9


# --- bad input -----------------------------------------------------------------------------------------------------


def refused(folder: Path, run_program: Run, source: Path, **recipe: Any) -> str:
    """The message of a run that must fail; nothing of the result may be there."""
    document = {"name": "x", "source": str(source), **recipe}
    plan = make_plan(recipe_from_mapping(document, folder, "recipe.yaml"), open_checkpoint(source))
    assert plan.problems == ()
    where = {"source_dir": source, "output": folder / "out", "staging": folder / "staging"}
    write_job(ENGINES["native"], folder / "job.json", plan=plan, device="cpu", **where)
    code, events, _ = run_program(folder / "job.json")
    assert code == 2
    assert not (folder / "out").exists()
    message: str = events[-1]["payload"]["message"]
    return message


def test_a_nan_scale_of_blocks_is_named(gpt_oss: Path, tmp_path: Path, run_program: Run) -> None:
    name = STACK.format(0, "gate_up_proj")

    def nan(tensor_name: str, tensor: torch.Tensor) -> None:
        if tensor_name == f"{name}_scales":
            tensor[3, 7, 1] = 255

    source = in_blocks(gpt_oss, tmp_path / "source", nan)
    assert refused(tmp_path, run_program, source, format="nvfp4", quantize=["*.experts.*"]) == (
        f"model.safetensors: {STACK.format(0, '3.gate_up_proj')}: 1 of 384 block scales are NaN (255); it cannot be "
        "quantized."
    )


@pytest.mark.parametrize(("value", "form"), [(float("nan"), "nvfp4"), (float("inf"), "nvfp4")])
def test_a_weight_of_a_stack_that_is_not_finite_is_named(
    value: float, form: str, gpt_oss: Path, tmp_path: Path, run_program: Run
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    stored = tensors(gpt_oss)
    stored[STACK.format(1, "down_proj")][2, 4, 5] = value
    save_file(stored, source / "model.safetensors", metadata={"format": "pt"})
    (source / "config.json").write_bytes((gpt_oss / "config.json").read_bytes())
    assert refused(tmp_path, run_program, source, format=form, quantize=["*.experts.*"]) == (
        f"model.safetensors: {STACK.format(1, '2.down_proj')} holds 1 NaN or infinite values of 6,144; it cannot be "
        "quantized."
    )


def test_all_zero_experts_and_layers_have_finite_scales(qwen: Path, tmp_path: Path, run_program: Run) -> None:
    source = tmp_path / "source"
    source.mkdir()
    stored = tensors(qwen)
    dead = "model.layers.0.self_attn.o_proj"
    stored[f"{dead}.weight"].zero_()
    stored[f"{STACK.format(0, '1.down_proj')}.weight"].zero_()
    save_file(stored, source / "model.safetensors", metadata={"format": "pt"})
    (source / "config.json").write_bytes((qwen / "config.json").read_bytes())
    out = quantized(tmp_path, run_program, source, format="nvfp4", layout="compressed-tensors", **ALSO)
    after = tensors(out)
    assert torch.isfinite(after[f"{dead}.weight_scale"]).all()
    assert not after[f"{dead}.weight"].view(torch.uint8).any()
