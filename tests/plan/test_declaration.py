"""The blocks and lists a result carries, against modelopt's own exporter where it can be run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from publisher import jsonio
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.quantconfig import parse_declaration
from publisher.plan.decide import make_plan
from publisher.plan.declaration import exclude_list, hf_quant_config, implied_head, quantization_config

EXCLUDE = ["lm_head", "model.embed_tokens"]


# --- lists ---------------------------------------------------------------------------------------------------------


def layers(*parts: str, numbers: Any = range(12)) -> list[str]:
    return [f"model.layers.{number}.{part}" for number in numbers for part in parts]


def test_a_subtree_that_is_kept_whole_is_one_entry() -> None:
    quantized = layers("mlp.up_proj")
    kept = layers("self_attn.q_proj", "self_attn.o_proj", numbers=range(2))
    assert exclude_list("modelopt", quantized, kept) == (
        "model.layers.0.self_attn*",
        "model.layers.1.self_attn*",
    )


def test_a_layer_number_never_reaches_other_layers() -> None:
    quantized = layers("mlp.up_proj", numbers=[0, 2, 10, 11])
    kept = layers("mlp.up_proj", "self_attn.o_proj", numbers=[1])
    assert exclude_list("modelopt", quantized, kept) == ("model.layers.1.*",)


def test_a_name_that_begins_another_is_spelled_so_that_vllm_does_not_take_it_as_a_part() -> None:
    quantized = layers("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", numbers=[0])
    assert exclude_list("modelopt", quantized, layers("mlp.gate", numbers=[0])) == ("model.layers.0.mlp*.gate",)
    quantized = layers("mlp.shared_expert_b.up_proj", numbers=[0])
    kept = layers("mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj", numbers=[0])
    assert exclude_list("modelopt", quantized, kept) == ("model.layers.0.mlp.shared_expert.*",)


def test_quark_lists_hold_full_names_until_there_are_many() -> None:
    few = exclude_list("quark", layers("mlp.up_proj"), [*layers("self_attn.o_proj"), "lm_head"])
    assert few == ("lm_head", *layers("self_attn.o_proj"))
    many = exclude_list("quark", layers("mlp.up_proj"), layers("self_attn.o_proj", numbers=range(80)))
    assert many == (r"re:^model\.layers\.\d+\.self_attn\.o_proj$",)
    some = exclude_list(
        "quark", layers("self_attn.o_proj", numbers=[80]), layers("self_attn.o_proj", numbers=range(80))
    )
    assert len(some) == 80  # the class is not kept whole, so each is named


def test_experts_that_are_kept_are_one_entry_a_layer() -> None:
    kept = [f"model.layers.1.mlp.experts.{e}.{p}" for e in range(9) for p in ("up_proj", "down_proj", "gate_proj")]
    quantized = [name.replace("layers.1.", "layers.2.") for name in kept]
    assert exclude_list("modelopt", quantized, kept) == ("model.layers.1.*",)
    assert exclude_list("quark", quantized, kept) == (r"re:^model\.layers\.1\.mlp\.experts(\..*)?$",)


def test_a_wrapped_model_reads_the_same_without_its_wrapper() -> None:
    """ATOM builds `model.layers...` of a checkpoint that says `language_model.model.layers...`."""
    kept = [f"language_model.model.layers.1.mlp.experts.{e}.up_proj" for e in range(3)]
    (entry,) = exclude_list("quark", [name.replace("layers.1.", "layers.2.") for name in kept], kept)
    pattern = re.compile(entry.removeprefix("re:"))
    for prefix in ("", "language_model."):
        assert pattern.search(f"{prefix}model.layers.1.mlp.experts")
        assert not pattern.search(f"{prefix}model.layers.2.mlp.experts")
    assert not pattern.search("vision.model.layers.1.mlp.experts")


def test_the_list_is_in_natural_order() -> None:
    kept = layers("self_attn.o_proj", numbers=range(11))
    numbers = [int(re.findall(r"\d+", entry)[0]) for entry in exclude_list("modelopt", layers("mlp.up_proj"), kept)]
    assert numbers == list(range(11))


@pytest.mark.parametrize(
    ("modules", "head"),
    [
        (["model.embed_tokens", "model.norm"], "lm_head"),
        (["language_model.model.embed_tokens"], "language_model.lm_head"),
        (["transformer.wte"], None),
        (["supermodel.embed_tokens"], None),
    ],
)
def test_the_head_that_has_no_tensor(modules: list[str], head: str | None) -> None:
    assert implied_head(modules) == head


# --- blocks --------------------------------------------------------------------------------------------------------


def calibrated(recipe: Any, **change: Any) -> Any:
    return recipe(engine="modelopt", calibration={"data": "c.txt"}, **change)


def test_modelopt_blocks_are_read_back_as_meant(recipe: Any) -> None:
    for made, activations, algo, kv in (
        (calibrated(recipe), "static", "NVFP4", None),
        (calibrated(recipe, kv_cache="fp8"), "static", "NVFP4", "fp8"),
        (recipe(), "none", "W4A16_NVFP4", None),
        (recipe(kv_cache="fp8-cast"), "none", "W4A16_NVFP4", "fp8"),
    ):
        for block in (quantization_config(made, EXCLUDE), hf_quant_config(made, EXCLUDE)):
            read = parse_declaration(block or {}, "here")
            assert (read.dialect, read.format, read.algo) == ("modelopt", "nvfp4", algo)
            assert (read.kv_cache, read.group_size, list(read.ignore)) == (kv, 16, EXCLUDE)
            assert read.flaws == ()
        assert parse_declaration(quantization_config(made, EXCLUDE), "here").activations == activations


def test_the_file_has_every_key_vllm_insists_on(recipe: Any) -> None:
    """vLLM 0.33 modelopt.py refuses a nested NVFP4 declaration without these three."""
    file = hf_quant_config(recipe(), EXCLUDE)
    assert file is not None
    assert {"group_size", "kv_cache_quant_algo", "exclude_modules"} <= set(file["quantization"])


def test_quark_block_has_what_vllm_and_sglang_crash_without(recipe: Any) -> None:
    """vLLM 0.33 quark/quark.py:270-284, 653-713, 773-779; SGLang 0.5.23 quark/quark.py:623-634, 949-953."""
    block = quantization_config(recipe(format="mxfp4", mode="floor"), EXCLUDE)
    assert block["export"]["kv_cache_group"] == []
    assert block["export"]["weight_format"] == "real_quantized"
    assert block["layer_type_quant_config"] == {}
    assert block["layer_quant_config"] == {}
    assert block["exclude"] == EXCLUDE
    weight, inputs = block["global_quant_config"]["weight"], block["global_quant_config"]["input_tensors"]
    for spec, dynamic in ((weight, False), (inputs, True)):
        assert (spec["dtype"], spec["qscheme"], spec["group_size"]) == ("fp4", "per_group", 32)
        assert (spec["scale_format"], spec["ch_axis"], spec["is_dynamic"]) == ("e8m0", -1, dynamic)
        assert spec["scale_calculation_mode"] == "floor"
    assert block["global_quant_config"]["output_tensors"] is None
    assert block["global_quant_config"]["bias"] is None
    assert hf_quant_config(recipe(format="mxfp4"), EXCLUDE) is None  # TensorRT-LLM would obey it
    weight_only = quantization_config(recipe(format="mxfp4", activations="none"), EXCLUDE)
    assert weight_only["global_quant_config"]["input_tensors"] is None
    assert parse_declaration(block, "here").format == "mxfp4"
    json.dumps(block, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "preset"),
    [
        ({}, "NVFP4A16"),
        ({"statistics": "seen.safetensors"}, "NVFP4"),
        ({"format": "mxfp4"}, "MXFP4"),
        ({"format": "mxfp4", "activations": "none"}, "MXFP4A16"),
    ],
)
def test_compressed_tensors_blocks_are_its_own_presets(recipe: Any, change: dict[str, Any], preset: str) -> None:
    from compressed_tensors.quantization import QuantizationConfig, preset_name_to_scheme

    made = recipe(layout="compressed-tensors", **change)
    block = quantization_config(made, EXCLUDE)
    read: Any = QuantizationConfig.model_validate(json.loads(json.dumps(block)))
    wanted = preset_name_to_scheme(preset, ["Linear"])
    scheme = read.config_groups["group_0"]
    assert scheme.model_dump(mode="json") == {**wanted.model_dump(mode="json"), "format": block["format"]}
    assert (read.ignore, read.quantization_status.value) == (EXCLUDE, "compressed")
    assert jsonio.problems(block, "compressed-tensors") == []
    assert hf_quant_config(made, EXCLUDE) is None
    ours = parse_declaration(block, "here")
    assert (ours.dialect, ours.format, ours.flaws) == ("compressed-tensors", made.format, ())
    told = "static" if made.activations == "calibrated" else made.activations
    assert (ours.activations, ours.kv_cache) == (told, None)


def test_a_wrapped_model_is_named_so_that_sglang_finds_it() -> None:
    """SGLang 0.5.23 builds Kimi's language model without `language_model.` where the layout is compressed-tensors."""
    entries = exclude_list(
        "compressed-tensors", ["language_model.model.layers.0.mlp.up_proj"], ["language_model.lm_head"]
    )
    assert entries == (r"re:^(language_model\.)?lm_head$",)


@pytest.mark.engine
@pytest.mark.slow
def test_blocks_are_those_modelopt_converts_to(recipe: Any) -> None:
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format

    for made in (calibrated(recipe), calibrated(recipe, kv_cache="fp8"), recipe(), recipe(kv_cache="fp8-cast")):
        assert convert_hf_quant_config_format(hf_quant_config(made, EXCLUDE)) == quantization_config(made, EXCLUDE)


@pytest.mark.engine
@pytest.mark.slow
def test_blocks_and_list_are_those_modelopt_exports(tmp_path: Path, recipe: Any) -> None:
    """A tiny tied Llama through modelopt's own quantizer and exporter, the MLPs only and all of it."""
    import copy

    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        tie_word_embeddings=True,
    )
    from modelopt.torch.quantization.utils import update_quant_cfg_with_kv_cache_quant

    cases = [
        (mtq.NVFP4_DEFAULT_CFG, ["model.layers.*"], "none"),
        (mtq.NVFP4_MLP_ONLY_CFG, ["*.mlp.*_proj"], "none"),
        (mtq.NVFP4_DEFAULT_CFG, ["model.layers.*"], "fp8"),
    ]
    for number, (preset, patterns, kv_cache) in enumerate(cases):
        preset = copy.deepcopy(preset)
        if kv_cache == "fp8":
            preset = update_quant_cfg_with_kv_cache_quant(preset, mtq.FP8_KV_CFG["quant_cfg"])
        source, export = tmp_path / f"source{number}", tmp_path / f"export{number}"
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(source)
        model = LlamaForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
        tokens = torch.arange(32).reshape(2, 16)
        mtq.quantize(model, preset, lambda quantized, ids=tokens: quantized(ids))
        export_hf_checkpoint(model, export_dir=export)
        plan = make_plan(calibrated(recipe, quantize=patterns, kv_cache=kv_cache), open_checkpoint(source))
        assert plan.problems == ()
        theirs = json.loads((export / "config.json").read_text())["quantization_config"]
        file = json.loads((export / "hf_quant_config.json").read_text())
        ours, ours_file = dict(plan.quantization_config), json.loads(json.dumps(plan.hf_quant_config))
        assert {k: v for k, v in theirs.items() if k != "ignore"} == {k: v for k, v in ours.items() if k != "ignore"}
        excluded, ours_excluded = (
            file["quantization"].pop("exclude_modules"),
            ours_file["quantization"].pop("exclude_modules"),
        )
        assert file == ours_file
        assert sorted(excluded) == sorted(ours_excluded)
        stored = sum(ref.size for ref in open_checkpoint(export).tensors.values())
        assert stored == plan.bytes_after


# --- mixed precision -----------------------------------------------------------------------------------------------

MIXED = {
    **dict.fromkeys(layers("mlp.experts.0.up_proj", "mlp.experts.0.gate_proj", numbers=range(2)), "nvfp4"),
    **dict.fromkeys(layers("self_attn.q_proj", "self_attn.o_proj", numbers=range(2)), "fp8"),
}
ALSO = [{"format": "fp8", "quantize": ["*.self_attn.*"]}]


def mixed(recipe: Any, **change: Any) -> Any:
    return recipe(quantize=["*.experts.*"], also=ALSO, **change)


@pytest.mark.parametrize("cache", ["none", "fp8-cast"])
def test_mixed_blocks_are_those_modelopt_converts_to(cache: str, recipe: Any) -> None:
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
    from modelopt.torch.export.quant_utils import process_layer_quant_config

    made = mixed(recipe, statistics="s.safetensors", kv_cache=cache)
    file = hf_quant_config(made, EXCLUDE, MIXED)
    block = quantization_config(made, EXCLUDE, MIXED)
    assert convert_hf_quant_config_format(file) == block
    formats: dict[str, Any] = {f"{name}.quantization": form for name, form in MIXED.items()}
    formats |= {f"{name}.awq_block_size": 16 for name, form in MIXED.items() if form == "nvfp4"}
    theirs = process_layer_quant_config(formats)
    assert file is not None
    assert theirs["quant_algo"] == file["quantization"]["quant_algo"] == "MIXED_PRECISION"
    assert theirs["quantized_layers"] == file["quantization"]["quantized_layers"]
    for raw, origin in ((file, "hf_quant_config.json"), (block, "config.json: quantization_config")):
        parsed = parse_declaration(raw, origin)
        assert (parsed.format, parsed.flaws) == ("mixed", ())
        own = {name: parsed.layer(name) for name in MIXED}
        assert {name: layer.format for name, layer in own.items() if layer} == MIXED


@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_mixed_groups_reach_each_module_once_by_the_library_s_own_matcher(form: str, recipe: Any) -> None:
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils.match import match_name

    formats = {name: "fp8" if other == "fp8" else form for name, other in MIXED.items()}
    block = quantization_config(mixed(recipe, format=form, layout="compressed-tensors"), EXCLUDE, formats)
    assert jsonio.problems(block, "compressed-tensors") == []
    parsed = QuantizationConfig.model_validate(block)
    wanted = {form: f"{form}-pack-quantized", "fp8": "float-quantized"}
    for name, own in formats.items():
        reached = [g.format for g in parsed.config_groups.values() if any(match_name(name, t) for t in g.targets)]
        assert reached == [wanted[own]]
    fp8 = next(group for group in parsed.config_groups.values() if group.format == "float-quantized")
    preset = preset_name_to_scheme("FP8_DYNAMIC", fp8.targets)
    assert fp8.weights == preset.weights
    assert fp8.input_activations == preset.input_activations


def preset_name_to_scheme(name: str, targets: list[str]) -> Any:
    from compressed_tensors.quantization import preset_name_to_scheme as preset

    return preset(name, targets)
