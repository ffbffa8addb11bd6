"""The numbers of a checkpoint, counted again here from the tensors the builders wrote."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from publisher.checkpoint.census import spans, stored_as, take
from publisher.checkpoint.header import ShardHeader, TensorRef
from publisher.checkpoint.modules import module_table
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from tests.builders.tiny import Tensor, Tiny, compressed, kimi, llama, mixture, mxfp4, nvfp4


def logical(tiny: Tiny) -> int:
    """What the unquantized source holds, which quantizing does not change."""
    return sum(math.prod(tensor.shape) for tensor in tiny.tensors.values())


@pytest.mark.parametrize("make", [nvfp4, mxfp4, lambda s: compressed(s, "nvfp4"), lambda s: compressed(s, "mxfp4")])
@pytest.mark.parametrize("source", [llama, mixture, kimi])
def test_quantizing_changes_bytes_but_not_parameters(tmp_path: Path, source, make) -> None:
    before = source()
    after = make(before)
    census = take(open_checkpoint(after.write(tmp_path / "q")))
    assert census.total.parameters == logical(before)
    assert census.total.bytes == sum(len(tensor.data) for tensor in after.tensors.values())
    assert census.total.count == len(after.tensors)
    assert {"nvfp4", "mxfp4"} & set(census.forms)
    packed = sum(t.count for form, t in census.forms.items() if form in ("nvfp4", "mxfp4"))
    assert packed == sum(name.endswith(".weight_scale") for name in after.tensors)
    assert sum(t.count for t in census.dtypes.values()) == len(after.tensors)


def test_classes_tell_layers_and_what_each_holds(tmp_path: Path) -> None:
    census = take(open_checkpoint(nvfp4(mixture()).write(tmp_path / "q")))
    classes = {item.pattern: item for item in census.classes}
    experts = classes["model.layers.*.mlp.experts.*.up_proj"]
    assert experts.cells == {1: {"nvfp4": 4}, 2: {"nvfp4": 4}}
    assert experts.role == "expert"
    assert classes["lm_head"].cells == {None: {"bf16": 1}}
    assert not classes["model.norm"].matrix
    row = next(item for item in census.to_json()["classes"] if item["pattern"] == experts.pattern)
    assert (row["layers"], row["modules"], row["forms"]) == ("1–2", 8, {"nvfp4": 8})


def test_what_cannot_be_known_is_not_guessed() -> None:
    def form(**tensors: str) -> str:
        refs = [TensorRef(f"m.{suffix}", dtype, (4, 4), "s", 0, 16) for suffix, dtype in tensors.items()]
        return stored_as(module_table(refs)["m"])

    assert form(weight="U8") == "u8"
    assert form(weight="U8", weight_scale="BF16") == "u8"
    assert form(weight="U8", weight_scale="F8_E4M3") == "nvfp4"
    assert form(weight="U8", weight_scale="U8") == "mxfp4"
    assert form(weight_packed="I32", weight_scale="BF16") == "int4"
    assert form(weight="F8_E4M3", weight_scale_inv="F32") == "fp8"
    assert form(weight="F8_E4M3", weight_scale="U8") == "mxfp8"
    assert form(gate_up_proj_blocks="U8", gate_up_proj_scales="U8") == "mxfp4"
    assert form(qweight="I32", scales="F16", qzeros="I32") == "int4"
    assert form(gate_up_proj="BF16", down_proj="BF16") == "bf16"


def test_an_empty_checkpoint_has_no_bits_per_parameter(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    census = take(open_checkpoint(tmp_path))
    assert census.bits_per_parameter is None
    assert census.to_json()["tensors"] == 0


def test_the_largest_tensors_come_first(tmp_path: Path) -> None:
    tiny = llama()
    tiny.tensors["big.weight"] = Tensor("BF16", (512, 64), bytes(512 * 64 * 2))
    assert take(open_checkpoint(tiny.write(tmp_path / "x"))).largest[0].name == "big.weight"


def test_spans() -> None:
    assert spans([]) == ""
    assert spans([0, 1, 2, 5, 7, 8]) == "0–2, 5, 7–8"


def test_time_grows_with_the_number_of_tensors(tmp_path: Path) -> None:
    def seconds(experts: int) -> float:
        refs = [
            TensorRef(f"model.layers.{i % 60}.mlp.experts.{i // 60}.up_proj.{s}", "U8", (4, 4), "s", 0, 16)
            for i in range(experts)
            for s in ("weight", "weight_scale")
        ]
        tensors = {ref.name: ref for ref in refs}
        shards = {"s": ShardHeader(shard="s", file_size=16, tensors=tuple(refs))}
        (tmp_path / "config.json").write_text("{}")
        empty = open_checkpoint(tmp_path)
        opened = Checkpoint(
            files=empty.files, shards=shards, index=None, config={}, hf_quant_config=None, document_flaws={},
            declarations=(), tensors=tensors, modules=module_table(refs),
        )  # fmt: skip
        began = time.perf_counter()
        assert take(opened).forms["mxfp4"].count == experts
        return time.perf_counter() - began

    seconds(1000)
    small, large = seconds(5_000), seconds(40_000)
    assert large < small * 8 * 3, f"{small:.3f} s for 10,000 tensors, {large:.3f} s for 80,000"
