"""Every layout's scalars are found under their own names, and smoothing vectors are compared without being kept."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import FusedGroup, Meter, Scalars, Smoothings, reading
from publisher.subjects.scalepass import ScalePass
from tests.builders.tiny import Tensor, Tiny, bf16, compressed, f32, kimi, llama, mixture, mxfp4, nvfp4

UP = "model.layers.0.mlp.up_proj"


def seen(tiny: Tiny, folder: Path, *kinds: type) -> list[Any]:
    return list(ScalePass(checkpoint=open_checkpoint(tiny.write(folder)), kinds=kinds, meter=Meter()).read())


def test_scalars_come_in_file_order_as_float32(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.tensors[f"{UP}.weight_scale_2"] = bf16(np.array(0.0078125))
    found = {scalars.suffix: scalars for scalars in seen(tiny, tmp_path, Scalars)}
    assert set(found) == {"weight_scale_2", "input_scale"}
    globals_ = found["weight_scale_2"]
    assert [ref.name for ref in globals_.refs] == sorted(n for n in tiny.tensors if n.endswith("weight_scale_2"))
    assert globals_.values.dtype == np.float32
    assert globals_.values[[ref.name for ref in globals_.refs].index(f"{UP}.weight_scale_2")] == 0.0078125


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: nvfp4(kimi()), {"weight_scale_2", "input_scale"}),
        (lambda: compressed(llama(), "nvfp4"), {"weight_global_scale", "input_global_scale"}),
        (lambda: mxfp4(llama()), set()),
    ],
    ids=["modelopt", "compressed-tensors", "quark"],
)
@pytest.mark.parametrize(
    "cache", ["k_proj.k_scale", "v_proj.v_scale", "k_proj.output_scale", "k_scale", "q_scale", "k_proj.kv_scale"]
)
def test_every_layouts_scalars_are_found(make: Any, names: set[str], cache: str, tmp_path: Path) -> None:
    tiny = make()
    layer = next(name for name in tiny.tensors if ".self_attn." in name).partition(".self_attn.")[0]
    tiny.tensors[f"{layer}.self_attn.{cache}"] = f32(0.25, (1,))
    found = {scalars.suffix: scalars for scalars in seen(tiny, tmp_path, Scalars)}
    assert set(found) == names | {cache.rpartition(".")[2]}
    assert found[cache.rpartition(".")[2]].values.tolist() == [0.25]


def test_fused_groups_hold_their_members_bits(tmp_path: Path) -> None:
    tiny = nvfp4(mixture())
    groups = {(group.name, group.suffix): group for group in seen(tiny, tmp_path, FusedGroup)}
    expert = groups["model.layers.1.mlp.experts.0.gate_up_proj", "weight_scale_2"]
    assert (expert.kind, expert.role, expert.of_weights) == ("gate_up_proj", "expert", True)
    data = tiny.tensors["model.layers.1.mlp.experts.0.up_proj.weight_scale_2"].data
    assert expert.bits[1] == struct.unpack("<I", data)[0]
    assert {group.kind for group in groups.values()} == {"gate_up_proj", "fused_qkv_a_proj"}
    inputs = groups["model.layers.1.mlp.experts.0.gate_up_proj", "input_scale"]
    assert not inputs.of_weights
    assert len(inputs.refs) == 2


def test_smoothing_vectors_are_told_apart_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SPAN", 64)
    tiny = nvfp4(llama())
    values = np.linspace(0.5, 2, 64).astype(np.float32)
    for name, changed in {"q": values, "k": values.copy(), "v": values * 2, "o": values.copy()}.items():
        tiny.tensors[f"model.layers.0.self_attn.{name}_proj.pre_quant_scale"] = Tensor("F32", (64,), changed.tobytes())
    bad = values.copy()
    bad[[40, 50, 60]] = [np.nan, -1, np.inf]
    tiny.tensors[f"{UP}.pre_quant_scale"] = Tensor("F32", (64,), bad.tobytes())
    (found,) = seen(tiny, tmp_path, Smoothings)
    own = {name.rpartition(".")[2]: vector for name, vector in found.vectors.items()}
    assert own["q_proj"].digest == own["k_proj"].digest != own["v_proj"].digest
    assert (own["q_proj"].low, own["q_proj"].high, own["q_proj"].bad) == (0.5, 2.0, 0)
    assert (own["up_proj"].bad, own["up_proj"].first) == (3, 40)
    assert (own["up_proj"].low, own["up_proj"].high) == (-1.0, np.inf)
