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


@pytest.mark.parametrize(
    ("raw", "dialect", "form", "sizes", "activations", "kv", "ignore"),
    [
        (MODELOPT, "modelopt", "nvfp4", (16, 16), "static", "fp8", ("lm_head", "model.embed_tokens")),
        (MODELOPT_FILE, "modelopt", "nvfp4", (16,), "none", None, ("lm_head",)),
        (QUARK, "quark", "mxfp4", (32, 32), "dynamic", None, ("lm_head",)),
        (COMPRESSED, "compressed-tensors", "nvfp4", (16, 16), "static", None, ("re:.*lm_head",)),
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


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*MODELOPT, *QUARK, *COMPRESSED, "weights"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from([*MODELOPT, *QUARK, *COMPRESSED, "quantization"]), junk),
    st.sampled_from([MODELOPT, QUARK, COMPRESSED, {}]),
)
def test_no_declaration_raises(changes: dict, base: dict) -> None:
    parse_declaration({**base, **changes}, "config.json")
