"""Declarations as the exporters really write them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.checkpoint.quantconfig import parse_declaration

FP4 = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
MODELOPT = {
    "config_groups": {"group_0": {"input_activations": FP4, "weights": FP4, "targets": ["Linear"]}},
    "ignore": ["lm_head", "model.embed_tokens"],
    "quant_algo": "NVFP4",
    "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
    "producer": {"name": "modelopt", "version": "0.47.0"},
    "quant_method": "modelopt",
}
MODELOPT_FILE = {
    "producer": {"name": "modelopt", "version": "0.47.0"},
    "quantization": {
        "quant_algo": "W4A16_NVFP4",
        "kv_cache_quant_algo": None,
        "group_size": 16,
        "exclude_modules": ["lm_head"],
    },
}
SPEC = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0", "is_dynamic": False}
QUARK = {
    "quant_method": "quark",
    "global_quant_config": {"weight": SPEC, "input_tensors": {**SPEC, "is_dynamic": True}},
    "exclude": ["lm_head"],
}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "nvfp4-pack-quantized",
    "ignore": ["re:.*lm_head"],
    "config_groups": {
        "group_0": {"weights": {"group_size": 16}, "input_activations": {"group_size": 16, "dynamic": "local"}}
    },
}


LAYERS = {
    "model.layers.0.self_attn.o_proj": {"quant_algo": "FP8"},
    "model.layers.0.mlp.experts": {"quant_algo": "NVFP4", "group_size": 16},
    "model.layers.0.mlp.experts.3.up_proj": {"quant_algo": "w4a16_nvfp4"},
    "odd": None,
}
MIXED = {
    "quant_method": "modelopt",
    "quant_algo": "MIXED_PRECISION",
    "quantized_layers": LAYERS,
    "ignore": ["lm_head"],
}
AUTO_ROUND = {"quant_method": "auto-round", "data_type": "mx_fp", "group_size": 32, "act_bits": 4, "act_dynamic": True}


@pytest.mark.parametrize(
    ("raw", "dialect", "form", "sizes", "activations", "kv", "ignore"),
    [
        (MODELOPT, "modelopt", "nvfp4", (16, 16), "static", "fp8", ("lm_head", "model.embed_tokens")),
        (MODELOPT_FILE, "modelopt", "nvfp4", (16,), "none", None, ("lm_head",)),
        (QUARK, "quark", "mxfp4", (32, 32), "dynamic", None, ("lm_head",)),
        (COMPRESSED, "compressed-tensors", "nvfp4", (16, 16), "static", None, ("re:.*lm_head",)),
        (MIXED, "modelopt", "mixed", (16,), None, None, ("lm_head",)),
        (AUTO_ROUND, "auto-round", "mxfp4", (32,), "dynamic", None, ()),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["a"]}, "mxfp4", "mxfp4", (), None, None, ("a",)),
    ],
)
def test_dialects(raw: dict, dialect: str, form: str, sizes: tuple, activations: str, kv: str, ignore: tuple) -> None:
    found = parse_declaration(raw, "config.json")
    assert (found.dialect, found.format, found.group_sizes) == (dialect, form, sizes)
    assert (found.activations, found.kv_cache, found.ignore, found.flaws) == (activations, kv, ignore, ())


def test_an_exclude_list_that_is_none_is_a_flaw() -> None:
    found = parse_declaration({**MODELOPT, "ignore": "lm_head"}, "config.json")
    assert found.ignore == ()
    assert found.flaws == ("`ignore` is a str, not a list",)
    found = parse_declaration({**MODELOPT, "ignore": ["lm_head", 3, ""]}, "config.json")
    assert found.ignore == ("lm_head",)
    assert "2 entries" in found.flaws[0]


def test_a_mixed_declaration_speaks_of_modules_and_what_is_below_them() -> None:
    found = parse_declaration(MIXED, "config.json")
    said = {
        name: (layer.format, layer.activations, layer.group_size) if layer else None
        for name in (*LAYERS, "model.layers.0.mlp.experts.0.up_proj", "model.layers.1.mlp.experts.0.up_proj", "")
        for layer in [found.layer(name)]
    }
    assert said == {
        "model.layers.0.self_attn.o_proj": ("fp8", None, None),
        "model.layers.0.mlp.experts": ("nvfp4", "static", 16),
        "model.layers.0.mlp.experts.3.up_proj": ("nvfp4", "none", None),
        "odd": (None, None, None),
        "model.layers.0.mlp.experts.0.up_proj": ("nvfp4", "static", 16),
        "model.layers.1.mlp.experts.0.up_proj": None,
        "": None,
    }


@pytest.mark.parametrize(
    ("method", "dialect"),
    [("modelopt_fp4", "modelopt"), ("MODELOPT_FP4", "modelopt"), ("compressed_tensors", "compressed-tensors")],
)
def test_a_readers_own_name_counts_as_the_method_it_means(method: str, dialect: str) -> None:
    assert parse_declaration({"quant_method": method}, "config.json").dialect == dialect


@pytest.mark.engine
@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_algo": "NVFP4", "group_size": 16, "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
        {"quant_algo": "W4A16_NVFP4", "group_size": 16, "kv_cache_quant_algo": None, "exclude_modules": ["a*", "b"]},
        {"quant_algo": "NVFP4_SVD", "group_size": 16, "kv_cache_quant_algo": None, "exclude_modules": []},
        {"quant_algo": "MXFP8", "kv_cache_quant_algo": None, "exclude_modules": []},
        {
            "quant_algo": "MIXED_PRECISION",
            "kv_cache_quant_algo": "NVFP4",
            "quantized_layers": {"a.b": {"quant_algo": "NVFP4", "group_size": 16}, "a.c": {"quant_algo": "FP8"}},
        },
    ],
    ids=lambda quantization: quantization["quant_algo"],
)
def test_modelopts_two_files_read_alike(quantization: dict) -> None:
    """modelopt's own converter makes the block of config.json out of hf_quant_config.json."""
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format

    file = {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": quantization}
    block, nested = (parse_declaration(raw, "x") for raw in (convert_hf_quant_config_format(file), file))
    for part in ("dialect", "format", "algo", "activations", "ignore", "layers", "flaws"):
        assert getattr(block, part) == getattr(nested, part), part
    assert (block.kv_cache, block.group_size) == (nested.kv_cache, nested.group_size)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*MODELOPT, *MIXED, *QUARK, *COMPRESSED, "weights"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from([*MODELOPT, *MIXED, *QUARK, *COMPRESSED, "quantization"]), junk),
    st.sampled_from([MODELOPT, MIXED, AUTO_ROUND, QUARK, COMPRESSED, {}]),
)
def test_no_declaration_raises(changes: dict, base: dict) -> None:
    parse_declaration({**base, **changes}, "config.json").layer("a.b")
