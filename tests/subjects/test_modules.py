"""What counts as an FP4 module: broken sets do, FP8 and int4 layers do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import Modules
from tests.builders.tiny import Tensor, Tiny, bf16, f32, kimi, llama, mxfp4, nvfp4

UP = "model.layers.0.mlp.up_proj"


def modules_of(tiny: Tiny, folder: Path) -> Modules:
    return Modules(open_checkpoint(tiny.write(folder)))


def test_a_module_without_its_scale_still_counts_as_packed(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    del tiny.tensors[f"{UP}.weight_scale"], tiny.tensors[f"{UP}.weight_scale_2"]
    modules = modules_of(tiny, tmp_path / "c")
    assert UP in {module.name for module in modules.packed}
    assert len(modules.packed) == 14


def test_fp8_and_int4_layers_are_not_packed_fp4(tmp_path: Path) -> None:
    tensors = {
        "a.weight": Tensor("F8_E4M3", (16, 16), bytes(256)),
        "a.weight_scale": f32(1.0),
        "b.weight_packed": Tensor("I32", (16, 4), bytes(256)),
        "b.weight_scale": bf16(np.ones((16, 1))),
        "c.weight": bf16(np.ones((4, 4))),
    }
    modules = modules_of(Tiny(tensors=tensors, config={}, shards=1), tmp_path / "c")
    assert modules.packed == ()


@pytest.mark.parametrize(("make", "form"), [(nvfp4, "nvfp4"), (mxfp4, "mxfp4")])
@pytest.mark.parametrize("declared", [True, False])
def test_the_format_is_declared_or_told_by_the_tensors(
    make: Callable[[Tiny], Tiny], form: str, declared: bool, tmp_path: Path
) -> None:
    tiny = make(llama())
    if not declared:
        del tiny.config["quantization_config"]
        tiny.hf_quant_config = None
    modules = modules_of(tiny, tmp_path / "c")
    assert {modules.format_of(module) for module in modules.packed} == {form}


def test_experts_are_found_by_number_and_projection(tmp_path: Path) -> None:
    modules = modules_of(nvfp4(kimi()), tmp_path / "c")
    layers = [f"language_model.model.layers.{n}.mlp.experts" for n in (1, 2)]
    assert list(modules.experts) == layers
    assert list(modules.experts[layers[0]]) == [0, 1, 2, 3]
    assert modules.experts[layers[0]][3].keys() == {"down_proj", "gate_proj", "up_proj"}
    assert modules.expert_count == 4  # below text_config
    assert modules.latent


@pytest.mark.parametrize("name", ["a.experts.x.up_proj", "a.experts.1234567.up_proj", "a.experts.0", "experts.²9.w1"])
def test_odd_expert_names_are_no_experts(name: str, tmp_path: Path) -> None:
    tiny = Tiny(tensors={f"{name}.weight": bf16(np.ones((4, 4)))}, config={}, shards=1)
    assert modules_of(tiny, tmp_path / "c").experts == {}


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (["model.layers.2.mlp.up_proj", "model.layers.1.mlp.up_proj"], {"model.layers.2"}),
        (["mtp.fc", "mtp.layers.0.mlp.up_proj"], {"mtp", "mtp.layers.0"}),
        (["model.mtp.layers.1.eh_proj"], {"model.mtp.layers.1"}),
        (["audio_tower.layers.30.fc1"], set()),
        (["model.layers.x.mlp"], set()),
    ],
)
def test_prediction_layers_are_named_so_or_follow_the_decoder(
    names: list[str], layers: set[str], tmp_path: Path
) -> None:
    tensors = {f"{name}.weight": bf16(np.ones((4, 4))) for name in (*names, "model.embed_tokens")}
    modules = modules_of(Tiny(tensors=tensors, config={"num_hidden_layers": 2}, shards=1), tmp_path / "c")
    assert modules.predicting == layers
    assert modules.predicts(names[0]) == bool(layers)
    assert not modules.predicts("model.layers.1.mlp.up_proj")


@pytest.mark.parametrize("depth", [None, "2", True, -1, 10**40])
def test_a_nonsensical_depth_makes_no_prediction_layer(depth: object, tmp_path: Path) -> None:
    tiny = llama()
    tiny.config["num_hidden_layers"] = depth
    assert modules_of(tiny, tmp_path / "c").predicting == frozenset()


@pytest.mark.parametrize(
    ("make", "entry", "left"),
    [
        (nvfp4, "*.up_proj", {"model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"}),
        (mxfp4, "re:.*1.mlp.up_proj", {"model.layers.1.mlp.up_proj"}),
        (mxfp4, "re:(a+)+$", set()),
    ],
)
def test_what_is_excluded_is_read_as_the_producer_means_it(
    make: Callable[[Tiny], Tiny], entry: str, left: set[str], tmp_path: Path
) -> None:
    tiny = make(llama())
    block = tiny.config["quantization_config"]
    block["exclude" if "exclude" in block else "ignore"] = [entry]
    modules = modules_of(tiny, tmp_path / "c")
    assert modules.excluded([module.name for module in modules.packed]) == left


def test_cache_scales_are_found_whatever_their_module(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    names = ["model.layers.0.self_attn.k_proj.k_scale", "model.layers.0.odd.v_scale"]
    tiny.tensors |= {name: f32(0.1) for name in names}
    modules = modules_of(tiny, tmp_path / "c")
    assert sorted(ref.name for ref in modules.cache_scales) == sorted(names)
    assert not modules.latent
