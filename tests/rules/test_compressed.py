"""Our schema of a compressed-tensors block against the classes it stands for: both say yes or no to the same blocks."""

from __future__ import annotations

import copy
import functools
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher import jsonio

pytestmark = pytest.mark.engine
RELEASED = Path(__file__).parent.parent / "released"
FP4 = {
    "num_bits": 4,
    "type": "float",
    "symmetric": True,
    "strategy": "tensor_group",
    "group_size": 16,
    "dynamic": False,
    "scale_dtype": "torch.float8_e4m3fn",
    "zp_dtype": "torch.float8_e4m3fn",
}
# Values of the right JSON type and of wrong ones; not those that pydantic converts, such as "4" for 4.
VALUES: dict[str, list[Any]] = {
    "num_bits": [2, 4, 6, 8, 16, None, "x"],
    "type": ["int", "float", "FLOAT", "mx", None],
    "symmetric": [True, False, None],
    "group_size": [None, -2, -1, 0, 16, 32, "y"],
    "strategy": [None, "tensor", "channel", "group", "block", "token", "tensor_group", "attn_head", "Group", "x"],
    "block_structure": [None, [128, 128], [0, 1], [1], "2x4", "ax", 3],
    "dynamic": [True, False, "local", "LOCAL", "x", None],
    "actorder": [None, False, True, "weight", "static", "group", "dynamic", "x"],
    "scale_dtype": [None, "torch.uint8", "float8_e4m3fn", "torch.foo", 3],
    "zp_dtype": [None, "torch.float8_e4m3fn", "torch.int8", "bad"],
    "observer": [None, "mse", 3],
    "observer_kwargs": [{}, {"a": 1}, None, []],
    "unknown": [1],
}


@functools.cache
def _model() -> Any:
    from compressed_tensors.quantization import QuantizationConfig

    return QuantizationConfig


def library_reads(block: dict[str, Any]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _model().model_validate(copy.deepcopy(block))
        except (ValueError, TypeError, NotImplementedError, KeyError):
            return False
    return True


def schema_reads(block: dict[str, Any]) -> bool:
    return not jsonio.problems(block, "compressed-tensors")


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any] | None:
    if draw(st.integers(0, 19)) == 0:
        return None
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3))
    made = {key: value for key, value in FP4.items() if draw(st.integers(0, 9))}
    return made | {key: draw(st.sampled_from(VALUES[key])) for key in keys}


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    group: dict[str, Any] = {"targets": ["Linear"], "weights": draw(arguments())}
    if draw(st.booleans()):
        group["input_activations"] = draw(arguments())
    parts = {
        "output_activations": [None, FP4, {**FP4, "actorder": "weight"}],
        "format": [None, "nvfp4-pack-quantized", "mixed-precision", "other"],
        "targets": [[], ["re:.*"], "Linear", [3], None],
        "name": [1],
    }
    for key in draw(st.lists(st.sampled_from(sorted(parts)), max_size=1)):
        group[key] = draw(st.sampled_from(parts[key]))
    name = draw(st.sampled_from(["group_0", "NVFP4", "mxfp4a16"]))
    tops: dict[str, list[Any]] = {
        "format": ["nvfp4-pack-quantized", None],
        "ignore": [None, [], ["a"], [3], "a"],
        "quantization_status": ["compressed", "x", None],
        "kv_cache_scheme": [None, {"num_bits": 8, "type": "float"}, {"bits": 8}],
        "global_compression_ratio": [None, 1.5],
        "config_groups": [{"NVFP4": ["Linear"]}, {"other": ["Linear"]}, {}, None, []],
        "provider": ["auto-round"],
    }
    changed = draw(st.lists(st.sampled_from(sorted(tops)), max_size=2))
    return {"config_groups": {name: group}} | {key: draw(st.sampled_from(tops[key])) for key in changed}


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(blocks())
def test_schema_and_library_agree(block: dict[str, Any]) -> None:
    assert schema_reads(block) == library_reads(block)


def test_every_field_of_the_library_is_in_the_schema() -> None:
    from compressed_tensors.config import CompressionFormat
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    schema = jsonio.data("schemas/compressed-tensors.schema.json")["$defs"]
    assert set(schema["args"]["properties"]) == set(QuantizationArgs.model_fields)
    assert set(schema["scheme"]["properties"]) == set(QuantizationScheme.model_fields)
    formats = {form.value for form in CompressionFormat} - {"mixed-precision"}
    assert set(schema["scheme"]["properties"]["format"]["enum"]) == {None, *formats}


@pytest.mark.parametrize("preset", ["NVFP4", "NVFP4A16", "MXFP4", "MXFP4A16"])
def test_the_librarys_fp4_presets_are_what_the_group_schemas_ask_for(preset: str) -> None:
    from compressed_tensors.quantization import preset_name_to_scheme

    group = json.loads(preset_name_to_scheme(preset, ["Linear"]).model_dump_json())
    assert schema_reads({"config_groups": {"group_0": group}})
    assert jsonio.problems(group, f"compressed-{preset[:5].lower()}") == []
    assert jsonio.problems(group, f"compressed-{'mxfp4' if preset.startswith('NV') else 'nvfp4'}")


def test_every_preset_may_stand_as_a_list_of_targets() -> None:
    from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES

    for name in (*PRESET_SCHEMES, *map(str.lower, PRESET_SCHEMES)):
        block = {"config_groups": {name: ["Linear"]}}
        assert schema_reads(block) == library_reads(block) is True, name


@pytest.mark.parametrize("config", sorted(RELEASED.rglob("config.json")), ids=lambda p: p.parent.name)
def test_blocks_llm_compressor_wrote_pass_both(config: Path) -> None:
    block = json.loads(config.read_text()).get("quantization_config", {})
    if block.get("quant_method") == "compressed-tensors":
        assert schema_reads(block)
        assert library_reads(block)
