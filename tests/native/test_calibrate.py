"""What calibration observes against modelopt's own calibrators, on the same models and the same text."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open

from publisher import jsonio
from publisher.checkpoint import statistics
from publisher.checkpoint.statistics import Observed, Statistics, input_scale, input_scales
from publisher.errors import CheckpointError, PublisherError
from publisher.formats import LAYOUTS
from publisher.native import calibrate
from publisher.native.calibrate import Job
from tests.builders.sources import fp8, int4
from tests.builders.tiny import Tensor, Tiny

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests/released/sources"
EXPERT = re.compile(r"(.*\.experts)\.\d+\.(.*)")
LENGTH = 64


def write_text(folder: Path, lines: int = 8) -> Path:
    source = random.Random(0)
    texts = [" ".join(f"t{source.randrange(3, 256)}" for _ in range(source.randrange(20, 90))) for _ in range(lines)]
    path = folder / "text.txt"
    path.write_text("\n".join(texts))
    return path


def observed(source: Path, folder: Path, **changes: Any) -> Statistics:
    job = Job(
        source=source,
        data=changes.pop("data", None) or write_text(folder),
        output=folder / "statistics.safetensors",
        sequence_length=LENGTH,
        device="cpu",
        **changes,
    )
    calibrate.run(job)
    return statistics.read(job.output)


def batches(source: Path, text: Path) -> list[torch.Tensor]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    lines = text.read_text().splitlines()
    return [tokenizer(line, return_tensors="pt", truncation=True, max_length=LENGTH)["input_ids"] for line in lines]


def calibrated(source: Path, text: Path) -> Any:
    import modelopt.torch.quantization as mtq

    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype="auto")

    def forward(quantized: Any) -> None:
        for ids in batches(source, text):
            quantized(ids)

    return mtq.quantize(model, mtq.NVFP4_DEFAULT_CFG, forward)


# --- against modelopt ----------------------------------------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize(("name", "linears"), [("slice", 14), ("kimi", 24)])
def test_every_linear_has_modelopts_own_range(name: str, linears: int, tmp_path: Path) -> None:
    source, text = SOURCES / name, write_text(tmp_path)
    found = observed(source, tmp_path, data=text).modules
    count = 0
    for module, layer in calibrated(source, text).named_modules():
        quantizer = getattr(layer, "input_quantizer", None)
        if quantizer is not None and quantizer.is_enabled and quantizer.amax is not None:
            assert found[module].amax == quantizer.amax.float().item(), module
            count += 1
        for part, stack in (("gate_up_proj", "up_proj"), ("down_proj", "down_proj")):
            shared = getattr(layer, f"{part}_input_quantizer", None)
            if shared is not None:
                own = [one for key, one in found.items() if re.fullmatch(rf"{module}\.\d+\.{stack}", key)]
                assert len(own) == 8
                assert max(one.amax for one in own) == shared.amax.float().item(), module
    assert count == linears


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("name", ["slice", "kimi"])
def test_what_modelopt_exports_is_what_the_scales_are_made_of(name: str, tmp_path: Path) -> None:
    from modelopt.torch.export import export_hf_checkpoint
    from safetensors.torch import load_file

    source, text = SOURCES / name, write_text(tmp_path)
    found = observed(source, tmp_path, data=text)
    export_hf_checkpoint(calibrated(source, text), export_dir=tmp_path / "export")
    exported: dict[str, float] = {}
    for shard in (tmp_path / "export").glob("*.safetensors"):
        tensors = load_file(shard).items()
        exported |= {k.removesuffix(".input_scale"): v.item() for k, v in tensors if k.endswith(".input_scale")}
    layout = LAYOUTS["modelopt", "nvfp4"]
    own = input_scales(found, list(exported), {}, layout)
    layers: dict[tuple[str, ...], float] = {}  # modelopt gives all experts of a layer the largest
    for module, scale in own.items():
        match = EXPERT.fullmatch(module)
        key = match.groups() if match else (module,)
        layers[key] = max(layers.get(key, 0.0), float(scale))
    assert len(exported) >= 14
    for module, scale in exported.items():
        match = EXPERT.fullmatch(module)
        assert scale == layers[match.groups() if match else (module,)], module


# --- experts -------------------------------------------------------------------------------------------------------


def tiny(kind: str) -> Any:
    torch.manual_seed(1)
    shape = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "vocab_size": 256, "head_dim": 16,
    }  # fmt: skip
    experts = {"num_local_experts": 16, "num_experts_per_tok": 2}
    if kind == "gpt_oss":
        config: Any = transformers.GptOssConfig(**shape, **experts, intermediate_size=48, sliding_window=16)
        return transformers.GptOssForCausalLM(config)
    if kind == "mixtral":
        return transformers.MixtralForCausalLM(transformers.MixtralConfig(**shape, **experts, intermediate_size=48))
    if kind == "llama4":
        config = transformers.Llama4TextConfig(
            **shape,
            num_local_experts=16,
            num_experts_per_tok=1,
            intermediate_size=48,
            intermediate_size_mlp=64,
            pad_token_id=0,
        )
        return transformers.Llama4ForCausalLM(config)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**shape, intermediate_size=48, tie_word_embeddings=True)
    )


def save(kind: str, folder: Path) -> Path:
    model = tiny(kind)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(SOURCES / "slice")
    tokenizer.save_pretrained(folder)
    return folder


def test_each_expert_of_gpt_oss_has_what_was_routed_to_it(tmp_path: Path) -> None:
    source, text = save("gpt_oss", tmp_path / "source"), write_text(tmp_path, 1)
    found = observed(source, tmp_path, data=text).modules
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(source, experts_implementation="eager")
    experts = model.model.layers[1].mlp.experts
    seen: list[Any] = []
    experts.register_forward_pre_hook(
        lambda _, inputs, named: seen.append((*inputs, *named.values())), with_kwargs=True
    )
    with torch.inference_mode():
        for ids in batches(source, text):
            model(ids)
        hidden, chosen = seen[0][:2]
        hidden = hidden.reshape(-1, 32)
        for expert in range(16):
            rows = hidden[(chosen == expert).any(-1)]
            up = found[f"model.layers.1.mlp.experts.{expert}.up_proj"]
            down = found[f"model.layers.1.mlp.experts.{expert}.down_proj"]
            assert up.tokens == down.tokens == len(rows)
            if len(rows):
                assert up.amax == rows.abs().max().item()
                inner = experts._apply_gate(rows @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert])
                assert down.amax == inner.abs().max().float().item()
            else:
                assert up.amax == 0


def test_mean_squares_are_those_of_what_each_expert_saw(tmp_path: Path) -> None:
    source, text = save("gpt_oss", tmp_path / "source"), write_text(tmp_path, 1)
    found = observed(source, tmp_path, data=text, second_moments=True)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(source, experts_implementation="eager")
    seen: dict[str, Any] = {}
    parts = {"model.layers.1.mlp.experts": model.model.layers[1].mlp.experts}
    parts["model.layers.0.self_attn.o_proj"] = model.model.layers[0].self_attn.o_proj
    for name, part in parts.items():
        part.register_forward_pre_hook(
            lambda _, inputs, named, name=name: seen.update({name: (*inputs, *named.values())}), with_kwargs=True
        )
    with torch.inference_mode():
        (ids,) = batches(source, text)
        model(ids)
    attention = seen["model.layers.0.self_attn.o_proj"][0].reshape(ids.numel(), -1).double()
    mine = found.mean_squares.get("model.layers.0.self_attn.o_proj")
    np.testing.assert_allclose(mine, attention.square().mean(0).numpy(), rtol=1e-6)
    hidden, chosen = seen["model.layers.1.mlp.experts"][:2]
    for expert in range(16):
        rows = hidden.reshape(-1, 32)[(chosen == expert).any(-1)].double()
        row = found.mean_squares.get(f"model.layers.1.mlp.experts.{expert}.up_proj")
        assert (row is None) == (not len(rows))
        if len(rows):
            np.testing.assert_allclose(row, rows.square().mean(0).numpy(), rtol=1e-6)


def test_mean_squares_are_taken_only_when_asked_for_and_read_by_the_library(tmp_path: Path) -> None:
    source = SOURCES / "kimi"
    plain = observed(source, tmp_path)
    assert all(plain.mean_squares.length(name) is None for name in plain.modules)
    found = observed(source, tmp_path, second_moments=True)
    assert found.modules == plain.modules
    with safe_open(tmp_path / "statistics.safetensors", "np") as file:
        rows = {name: file.get_tensor(name) for name in file.keys() if name.endswith("square")}  # noqa: SIM118
    reached = {name for name, one in found.modules.items() if one.tokens}
    assert {name.removesuffix(".input_mean_square") for name in rows} == reached
    for name, row in rows.items():
        assert (row.dtype, row.ndim) == (np.float32, 1)
        assert np.array_equal(row, found.mean_squares.get(name.removesuffix(".input_mean_square")))
        assert row.max() <= found.modules[name.removesuffix(".input_mean_square")].amax ** 2 * 1.0001


def test_experts_that_are_stored_one_by_one_keep_their_names(tmp_path: Path) -> None:
    source = save("mixtral", tmp_path / "source")
    names = statistics_names(source)
    found = observed(source, tmp_path)
    experts = {name for name in found.modules if ".experts." in name}
    assert experts == {name for name in names if ".experts." in name}
    assert len(experts) == 2 * 16 * 3
    layer = [found.modules[name] for name in sorted(experts) if "layers.0." in name and name.endswith("w2")]
    tokens = found.modules["model.layers.0.self_attn.q_proj"].tokens
    assert sum(one.tokens for one in layer) == 2 * tokens, "two experts a token"


def test_experts_multiplied_all_at_once_count_their_own_tokens(tmp_path: Path) -> None:
    source = save("llama4", tmp_path / "source")
    found = observed(source, tmp_path).modules
    layer = [found[name] for name in found if "layers.0." in name and ".experts." in name and name.endswith("up_proj")]
    tokens = next(one.tokens for name, one in found.items() if name.endswith("layers.0.self_attn.q_proj"))
    assert len(layer) == 16
    assert sum(one.tokens for one in layer) == tokens, "one expert a token"
    assert len({one.amax for one in layer}) > 2


def statistics_names(source: Path) -> set[str]:
    found: set[str] = set()
    for shard in source.glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            found |= {name.removesuffix(".weight") for name in file.keys()}  # noqa: SIM118 - no mapping
    return found


def test_a_head_that_is_the_embedding_has_no_statistics(tmp_path: Path) -> None:
    found = observed(save("tied", tmp_path / "source"), tmp_path).modules
    assert "lm_head" not in found
    assert "model.layers.1.mlp.down_proj" in found


# --- sources as they are published ---------------------------------------------------------------------------------


def test_kimis_wrapper_is_observed_under_its_published_names(tmp_path: Path) -> None:
    """Text and vision in one checkpoint: what only images reach is listed as unreached."""
    from safetensors.torch import load_file, save_file

    text: Any = transformers.AutoConfig.from_pretrained(SOURCES / "kimi")
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config: Any = transformers.Kimi_K25Config(text_config=text.to_dict(), vision_config=vision, image_token_id=250)
    model: Any = transformers.Kimi_K25ForConditionalGeneration(config)
    source = tmp_path / "source"
    model.to(torch.bfloat16).save_pretrained(source)
    transformers.AutoTokenizer.from_pretrained(SOURCES / "kimi").save_pretrained(source)
    stored = load_file(source / "model.safetensors")  # saved as `language_model.model.blocks`, published as `layers`
    published = {
        name.replace("language_model.model.blocks", "language_model.model.layers"): stored[name] for name in stored
    }
    save_file(published, source / "model.safetensors", metadata={"format": "pt"})
    found = observed(source, tmp_path)
    expert = "language_model.model.layers.2.mlp.experts.7.down_proj"
    assert expert in found.modules
    assert found.modules["language_model.model.layers.0.self_attn.q_a_proj"].tokens == int(found.metadata["tokens"])
    assert {name.partition(".")[0] for name in found.unreached if ".experts." not in name} == {
        "vision_tower",
        "mm_projector",
    }
    assert "vision_tower.encoder.blocks.0.wqkv" in found.unreached


@pytest.mark.parametrize("form", [int4, fp8])
def test_an_encoded_source_is_observed_as_what_it_stands_for(form: Any, tmp_path: Path) -> None:
    """INT4 as Kimi K2 is published, FP8 as DeepSeek-V3 is: decoded, the numbers are those of the decoded model."""
    stored, meant = form(deepseek())
    declared = stored.config.pop("text_config", {})
    stored.config |= {key: value for key, value in declared.items() if key == "quantization_config"}
    meant.config.pop("text_config", None)
    contents = []
    for name, tiny in (("stored", stored), ("meant", meant)):
        tiny.write(tmp_path / name)
        transformers.AutoTokenizer.from_pretrained(SOURCES / "kimi").save_pretrained(tmp_path / name)
        contents.append(observed(tmp_path / name, tmp_path).modules)
    assert contents[0] == contents[1]
    assert any(one.tokens for one in contents[0].values())


def deepseek() -> Tiny:
    """The small mixture as the builders hold a checkpoint."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for shard in sorted((SOURCES / "kimi").glob("*.safetensors")):
        for name, value in load_file(shard).items():
            raw = value.contiguous().view(torch.uint8).numpy().tobytes()
            dtype = {torch.bfloat16: "BF16", torch.float32: "F32"}[value.dtype]
            tensors[name] = Tensor(dtype, tuple(value.shape), raw)
    config = json.loads((SOURCES / "kimi/config.json").read_text())
    return Tiny(tensors=dict(sorted(tensors.items())), config={**config, "text_config": {}})


# --- data ----------------------------------------------------------------------------------------------------------


def test_the_metadata_say_where_the_numbers_come_from(tmp_path: Path) -> None:
    found = observed(
        SOURCES / "slice", tmp_path, samples=5, seed=3, labels={"source": "a/b", "source_commit": "c0ffee"}
    )
    said = {
        key: found.metadata[key] for key in ("source", "source_commit", "data", "samples", "sequence_length", "seed")
    }
    assert said == {
        "source": "a/b", "source_commit": "c0ffee", "data": "text.txt", "samples": "5", "sequence_length": "64",
        "seed": "3",
    }  # fmt: skip
    assert found.metadata["dtype"] == "bfloat16"
    assert int(found.metadata["tokens"]) == found.modules["lm_head"].tokens


def test_plain_text_goes_through_the_chat_template_when_asked(tmp_path: Path) -> None:
    source, text = SOURCES / "slice", tmp_path / "chat.jsonl"
    text.write_text(json.dumps({"messages": [{"role": "user", "content": "t5 t6 t7"}]}) + "\n")
    chat = observed(source, tmp_path, data=text)
    plain = tmp_path / "plain.txt"
    plain.write_text("t5 t6 t7\n")
    assert observed(source, tmp_path, data=plain, chat_template=True).modules == chat.modules


def test_a_seed_gives_the_same_bytes_and_another_seed_other_samples(tmp_path: Path) -> None:
    source, output = SOURCES / "slice", tmp_path / "statistics.safetensors"
    contents = []
    for seed in (1, 1, 2):
        observed(source, tmp_path, samples=3, seed=seed)
        contents.append(output.read_bytes())
    assert contents[0] == contents[1] != contents[2]


# --- resuming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second_moments", [False, True])
def test_a_stopped_calibration_goes_on_and_ends_with_the_same_bytes(
    second_moments: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = SOURCES / "kimi", tmp_path / "statistics.safetensors"
    observed(source, tmp_path, second_moments=second_moments)
    whole = output.read_bytes()
    output.unlink()
    calls = 0
    add = calibrate.Progress.add

    def stop(self: Any, amount: float, **payload: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        add(self, amount, **payload)

    with monkeypatch.context() as patched:
        patched.setattr(calibrate.Progress, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            observed(source, tmp_path, save_every=0.0, second_moments=second_moments)
    assert not output.exists()
    capsys.readouterr()
    observed(source, tmp_path, save_every=0.0, second_moments=second_moments)
    assert "Going on after 7 of 8 samples" in capsys.readouterr().out
    assert output.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, "text.txt"]


def test_a_state_of_another_job_or_a_damaged_one_is_not_gone_on_from(tmp_path: Path) -> None:
    source, output = SOURCES / "slice", tmp_path / "statistics.safetensors"
    observed(source, tmp_path)
    whole = output.read_bytes()
    kept = Statistics(modules={"place.0": Observed(1e9, 5)}, metadata={"digest": "x", "done": "7"})
    for content in (statistics.encode(kept), b"nonsense"):
        (tmp_path / "statistics.safetensors.partial").write_bytes(content)
        observed(source, tmp_path)
        assert output.read_bytes() == whole


def test_a_stop_leaves_no_output_and_says_so(tmp_path: Path) -> None:
    text = write_text(tmp_path, 3000)
    job = {"source": str(SOURCES / "slice"), "data": str(text), "output": str(tmp_path / "s"), "samples": 3000}
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "publisher.native.calibrate", str(tmp_path / "job.json")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["kind"] == "progress":
                break
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        events = [json.loads(line) for line in process.stdout]
    assert process.returncode == 6
    assert events[-1]["kind"] == "cancelled"
    assert not (tmp_path / "s").exists()


# --- refusals ------------------------------------------------------------------------------------------------------


def test_an_overflowing_model_is_refused_by_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(SOURCES / "slice", dtype=torch.bfloat16)
    model.model.layers[1].mlp.up_proj.weight.data[0] = float("nan")
    model.save_pretrained(source)
    transformers.AutoTokenizer.from_pretrained(SOURCES / "slice").save_pretrained(source)
    with pytest.raises(CheckpointError, match=r"NaN or infinite inputs, first model\.layers\.1\.mlp\.down_proj"):
        observed(source, tmp_path)
    assert not (tmp_path / "statistics.safetensors").exists()


def test_matrices_without_a_tensor_in_the_checkpoint_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from publisher.native import naming

    made = naming.origins

    def without(model: Any, names: Any) -> dict[str, list[str]]:
        return {key: value for key, value in made(model, names).items() if "layers.1.mlp.up_proj" not in key}

    monkeypatch.setattr(naming, "origins", without)
    with pytest.raises(CheckpointError, match=r"1 matrices of LlamaForCausalLM .*model\.layers\.1\.mlp\.up_proj"):
        observed(SOURCES / "slice", tmp_path)


def test_a_job_is_checked_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"source": "", "samples": 0, "device": "tpu"}))
    with pytest.raises(jsonio.DocumentError) as caught:
        calibrate.read_job(path)
    for said in ("source", "samples", "device", "output"):
        assert said in str(caught.value)


def test_empty_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(PublisherError, match="no text"):
        observed(SOURCES / "slice", tmp_path, data=tmp_path / "empty.txt")


def test_scales_of_the_file_serve_both_layouts(tmp_path: Path) -> None:
    found = observed(SOURCES / "slice", tmp_path)
    amax = found.modules["lm_head"].amax
    for dialect in ("modelopt", "compressed-tensors"):
        layout = LAYOUTS[dialect, "nvfp4"]
        scale = input_scales(found, ["lm_head"], {}, layout)["lm_head"]
        assert scale == input_scale(np.float32(amax), layout)
