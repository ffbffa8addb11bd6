"""The statistics file against the safetensors library, and scales against the arithmetic of those who read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.quantization.utils.helpers import generate_gparam
from safetensors import safe_open
from safetensors.numpy import save_file

from publisher.checkpoint import statistics
from publisher.checkpoint.statistics import Observed, Statistics, input_ranges, input_scales
from publisher.errors import CheckpointError
from publisher.formats import LAYOUTS

MODELOPT, COMPRESSED = LAYOUTS["modelopt", "nvfp4"], LAYOUTS["compressed-tensors", "nvfp4"]
METADATA = {"source": "a/b", "seed": "0", "samples": "3", "kind": "activation statistics", "schema": "1"}


def experts(*seen: tuple[float, int], projection: str = "down_proj") -> dict[str, Observed]:
    return {f"model.layers.1.mlp.experts.{n}.{projection}": Observed(*one) for n, one in enumerate(seen)}


def of(modules: dict[str, Observed]) -> Statistics:
    return Statistics(modules=modules, metadata=METADATA)


# --- the file ------------------------------------------------------------------------------------------------------


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    statistics.write(path, of({"b": Observed(2.5, 7), "a.é": Observed(0.1, 1 << 40)}))
    with safe_open(path, "np") as file:
        assert file.metadata() == METADATA
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    assert {name: (value.dtype.name, value.shape) for name, value in found.items()} == {
        "a.é.input_amax": ("float32", ()),
        "a.é.tokens": ("int64", ()),
        "b.input_amax": ("float32", ()),
        "b.tokens": ("int64", ()),
    }
    assert found["a.é.tokens"] == 1 << 40
    assert found["a.é.input_amax"] == np.float32(0.1)


def test_what_the_library_writes_is_read_whatever_its_order(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    tensors = {
        "x.input_amax": np.array(3.0, np.float32),
        "x.tokens": np.array(9, np.int64),
        "w.tokens": np.array(0, np.int64),
        "w.input_amax": np.array(0.0, np.float32),
    }
    save_file(tensors, path, metadata=METADATA)
    found = statistics.read(path)
    assert dict(found.modules) == {"x": Observed(3.0, 9), "w": Observed(0.0, 0)}
    assert found.unreached == ("w",)


def test_the_same_statistics_give_the_same_bytes() -> None:
    one = {"a": Observed(1.0, 1), "b": Observed(2.0, 2)}
    assert statistics.encode(of(one)) == statistics.encode(of(dict(reversed(one.items()))))


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        ({"x.input_amax": np.float32(1), "x.tokens": np.int64(1)}, {}, "metadata do not say so"),
        ({"x.input_amax": np.float32(1)}, METADATA, "x has an input_amax or tokens without the other"),
        ({"x.input_amax": np.float64(1), "x.tokens": np.int64(1)}, METADATA, "x.input_amax is F64"),
        ({"x.weight": np.float32(1)}, METADATA, "x.weight is F32"),
        ({"x.input_amax": np.ones(4, np.float32), "x.tokens": np.int64(1)}, METADATA, r"shape \[4\]"),
        ({"x.input_amax": np.float32(np.nan), "x.tokens": np.int64(1)}, METADATA, "largest input nan"),
        ({"x.input_amax": np.float32(-1), "x.tokens": np.int64(1)}, METADATA, "largest input -1"),
        ({"x.input_amax": np.float32(1), "x.tokens": np.int64(-1)}, METADATA, "over -1 tokens"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, tensors: dict[str, Any], metadata: Any, said: str) -> None:
    path = tmp_path / "s.safetensors"
    save_file({name: np.asarray(value) for name, value in tensors.items()}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=said):
        statistics.read(path)


def test_a_cut_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    whole = statistics.encode(of({"a": Observed(1.0, 1)}))
    for data in (whole[:-1], whole[:20], whole + b"\0", b"", b"\0" * 40):
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            statistics.read(path)
    with pytest.raises(CheckpointError, match="No such file"):
        statistics.read(tmp_path / "absent")


def test_a_header_that_claims_a_large_tensor_costs_no_memory(tmp_path: Path) -> None:
    header = {"__metadata__": METADATA, "x.tokens": {"dtype": "I64", "shape": [1 << 40], "data_offsets": [0, 8 << 40]}}
    text = json.dumps(header).encode()
    path = tmp_path / "s.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError):
        statistics.read(path)


# --- scales --------------------------------------------------------------------------------------------------------


def test_compressed_tensors_own_scale_is_written() -> None:
    amaxes = np.exp2(np.random.default_rng(0).uniform(-20, 14, 500)).astype(np.float32)
    modules = {f"m{n}": Observed(float(amax), 1) for n, amax in enumerate(amaxes)}
    found = input_scales(of(modules), list(modules), None, COMPRESSED)
    for n, amax in enumerate(torch.from_numpy(amaxes)):
        assert found[f"m{n}"] == generate_gparam(-amax, torch.zeros(())).item()


def test_modelopts_own_scale_is_written() -> None:
    from modelopt.torch.quantization.nn import TensorQuantizer
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    amaxes = np.exp2(np.random.default_rng(1).uniform(-20, 14, 200)).astype(np.float32)
    for amax in amaxes:
        quantizer = TensorQuantizer()
        quantizer.num_bits, quantizer.block_sizes = (2, 1), {-1: 16, "type": "dynamic", "scale_bits": (4, 3)}
        quantizer.amax = torch.tensor(amax)
        found = input_scales(of({"m": Observed(float(amax), 1)}), ["m"], None, MODELOPT)["m"]
        assert found == NVFP4QTensor.get_activation_scaling_factor(quantizer).item()


def test_members_of_a_fused_group_share_the_largest() -> None:
    modules = {"q": Observed(1.0, 5), "k": Observed(3.0, 5), "v": Observed(2.0, 5), "o": Observed(0.5, 5)}
    groups = {"qkv": ("q", "k", "v")}
    assert dict(input_ranges(of(modules), list("qkvo"), groups).amax) == {"q": 3.0, "k": 3.0, "v": 3.0, "o": 0.5}
    assert dict(input_ranges(of(modules), list("qo"), groups).amax) == {"q": 1.0, "o": 0.5}, "k is not quantized"


def test_an_expert_no_token_reached_takes_its_layers_largest_and_is_named() -> None:
    modules = experts((1.0, 4), (0.0, 0), (7.0, 2)) | experts((9.0, 4), (9.0, 1), projection="up_proj")
    other = {"model.layers.2.mlp.experts.0.down_proj": Observed(50.0, 3)}
    found = input_ranges(of(modules | other), [f"model.layers.1.mlp.experts.{n}.down_proj" for n in range(3)])
    assert list(found.amax.values()) == [1.0, 7.0, 7.0]
    assert {name: (one.amax, one.experts) for name, one in found.substituted.items()} == {
        "model.layers.1.mlp.experts.1.down_proj": (7.0, 2)
    }


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({}, "x is not in them"),
        ({"x": Observed(0.0, 0)}, "no token reached x"),
        ({"x": Observed(0.0, 12)}, "x saw 12 tokens that were all zero"),
        (experts((0.0, 0), (0.0, 0)), "nor another expert of its layer"),
    ],
)
def test_a_module_without_a_range_is_refused_by_name(modules: dict[str, Observed], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        input_ranges(of(modules), list(modules) or ["x"])


def test_all_modules_without_a_range_are_counted() -> None:
    with pytest.raises(CheckpointError, match="and 7 more"):
        input_ranges(of({}), [f"m{n}" for n in range(10)])
