"""Dead, NaN and infinite weights, found before they are quantized; torch and ml_dtypes write the numbers."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.plan import scan as scanning
from publisher.plan.decide import make_plan
from publisher.plan.recipe import recipe_from_mapping
from publisher.plan.scan import Flaw, scan, sentences, weights_of
from tests.builders.sources import int4
from tests.builders.tiny import Tensor, Tiny, kimi, llama

TYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def stored(dtype: str, values: np.ndarray) -> Tensor:
    return Tensor(dtype, values.shape, values.astype(TYPES[dtype]).tobytes())


def scanned(tiny: Tiny, folder: Path) -> list[Flaw]:
    checkpoint = open_checkpoint(tiny.write(folder))
    return list(scan(checkpoint, checkpoint.tensors))


@pytest.mark.parametrize("dtype", TYPES)
def test_each_kind_is_counted(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(0, 1, (32, 64)).astype(np.float32)
    values[3, 5], values[7, 7], values[8, 8], values[9, 9] = np.nan, -np.nan, np.inf, -np.inf
    tiny = llama()
    tiny.tensors["lm_head.weight"] = stored(dtype, values)
    tiny.tensors["model.norm.weight"] = stored(dtype, np.full(64, -0.0, np.float32))
    found = {(flaw.tensor, flaw.kind, flaw.count) for flaw in scanned(tiny, tmp_path)}
    assert found == {
        ("lm_head.weight", "nan", 2),
        ("lm_head.weight", "infinite", 2),
        ("model.norm.weight", "zero", 64),
    }


def test_the_largest_and_smallest_numbers_are_numbers(tmp_path: Path) -> None:
    tiny = llama()
    for dtype, kind in TYPES.items():
        edge = np.array([ml_dtypes.finfo(kind).max, -ml_dtypes.finfo(kind).max] if dtype == "BF16" else
                        [np.finfo(kind).max, -np.finfo(kind).max])  # fmt: skip
        tiny.tensors[f"edge.{dtype}.weight"] = Tensor(dtype, (2,), edge.astype(kind).tobytes())
        tiny.tensors[f"tiny.{dtype}.weight"] = Tensor(
            dtype, (2,), np.array([1, 0], f"<u{np.dtype(kind).itemsize}").tobytes()
        )
    assert scanned(tiny, tmp_path) == []


def test_a_tensor_longer_than_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "PIECE", 64)
    tiny = llama()
    values = np.zeros((32, 64), np.float32)
    values[31, 63] = np.nan
    tiny.tensors["lm_head.weight"] = stored("BF16", values)
    seen: list[tuple[int, int]] = []
    checkpoint = open_checkpoint(tiny.write(tmp_path))
    found = list(scan(checkpoint, ["lm_head.weight"], progress=lambda *pair: seen.append(pair)))
    assert [(flaw.kind, flaw.count) for flaw in found] == [("nan", 1)]
    assert seen[-1] == (4096, 4096)
    assert len(seen) == 64


def test_of_encoded_weights_the_scales_are_looked_at(tmp_path: Path) -> None:
    tiny, _ = int4(kimi())
    module = "language_model.model.layers.1.mlp.experts.2.up_proj"
    tiny.tensors[f"{module}.weight_scale"].data = bytes(len(tiny.tensors[f"{module}.weight_scale"].data))
    checkpoint = open_checkpoint(tiny.write(tmp_path))
    document = {"name": "x", "source": "/s", "format": "nvfp4", "quantize": ["*.experts.*"]}
    plan = make_plan(recipe_from_mapping(document, tmp_path, "recipe.yaml"), checkpoint)
    (flaw,) = scan(checkpoint, weights_of(plan, checkpoint))
    assert (flaw.tensor, flaw.kind) == (f"{module}.weight_scale", "zero")


@pytest.mark.parametrize(("name", "dtype"), [("weight_scale", "U8"), ("weight_scale_inv", "F8_E8M0")])
def test_scales_that_are_powers_of_two_have_one_code_that_is_no_number(name: str, dtype: str, tmp_path: Path) -> None:
    tiny = llama()
    tiny.tensors[f"a.{name}"] = Tensor(dtype, (4, 2), bytes([0, 254, 255, 127, 255, 1, 2, 3]))
    tiny.tensors["b.weight"] = Tensor("U8", (4, 2), bytes([255] * 8))
    assert [(flaw.tensor, flaw.kind, flaw.count) for flaw in scanned(tiny, tmp_path)] == [(f"a.{name}", "nan", 2)]


def test_sentences_name_class_tensor_and_remedy() -> None:
    flaws = [Flaw(tensor=f"model.layers.{n}.mlp.up_proj.weight", shard="a", kind="zero", count=4) for n in range(9)]
    text = list(sentences(flaws))
    assert len(text) == 1
    assert text[0].startswith("9 weights to quantize (model.layers.*.mlp.up_proj.weight (9)")
    assert "keep them" in text[0]
