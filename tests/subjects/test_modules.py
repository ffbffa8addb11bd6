"""What counts as an FP4 module: broken sets do, FP8 and int4 layers do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import Modules
from tests.builders.tiny import Tensor, Tiny, bf16, f32, llama, mxfp4, nvfp4

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
