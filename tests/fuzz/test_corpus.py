"""Everything a fuzzer was started with or has found goes through its target again, in bounded time and memory."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, header, quantization_config

HERE = Path(__file__).parent / "corpus"
INPUTS = sorted(path.relative_to(HERE).as_posix() for path in HERE.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", INPUTS)
def test_a_known_input_gets_a_verdict(name: str) -> None:
    data = (HERE / name).read_bytes()
    tracemalloc.start()
    began = time.process_time()
    TARGETS[name.partition("/")[0]](data)
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert seconds < 10


def test_every_target_has_a_corpus() -> None:
    assert {name.partition("/")[0] for name in INPUTS} == set(TARGETS)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "F8_E4M3", "F4", "?"]) | VALUES,
        "shape": st.lists(st.integers(-2, 2**64), max_size=4) | VALUES,
        "data_offsets": st.lists(st.integers(-8, 2**64), max_size=3) | VALUES,
    }
)
KEYS = st.sampled_from(
    ["quant_method", "quant_algo", "ignore", "exclude", "config_groups", "kv_cache_scheme", "group_size", "export",
     "global_quant_config", "layer_quant_config", "quantized_layers", "quantization", "format", "producer", "targets"]
)  # fmt: skip
METHODS = st.sampled_from(["modelopt", "quark", "compressed-tensors", "mxfp4", "auto-round", "fp8"])


@settings(max_examples=150)
@given(st.dictionaries(st.text(max_size=20), ENTRY | VALUES, max_size=5), st.integers(0, 200))
def test_any_header_gets_a_verdict(entries: dict[str, object], data: int) -> None:
    text = json.dumps(entries).encode()
    header(struct.pack("<Q", len(text)) + text + bytes(data))


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_get_a_verdict(data: bytes) -> None:
    header(data)


@settings(max_examples=200)
@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=4), max_size=6), METHODS)
def test_any_declaration_gets_a_verdict(block: dict[str, object], method: str) -> None:
    quantization_config(json.dumps({"quant_method": method, **block}).encode())
