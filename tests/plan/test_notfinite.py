"""What is not finite is kept with all that engines load as one layer with it, and the plan made of that works."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.plan.decide import make_plan
from publisher.plan.model import Plan
from publisher.plan.notfinite import kept_whole, not_finite, without
from publisher.plan.recipe import recipe_from_mapping
from tests.builders.sources import fp8, fused, int4
from tests.builders.tiny import Tiny, bf16, kimi, llama, values_of

EXPERT = "language_model.model.layers.1.mlp.experts.2"


def planned(tiny: Tiny, folder: Path, **recipe: object) -> tuple[Plan, Checkpoint]:
    document = {"name": "x", "source": "source", "format": "nvfp4", "quantize": ["*.mlp.*_proj"], **recipe}
    checkpoint = open_checkpoint(tiny.write(folder / "source"))
    return make_plan(recipe_from_mapping(document, folder, "recipe.yaml"), checkpoint), checkpoint


def damaged(tiny: Tiny, name: str, *values: float) -> Tiny:
    changed = values_of(tiny.tensors[name]).copy()
    changed.reshape(-1)[: len(values)] = values
    tiny.tensors[name] = bf16(changed)
    return tiny


def test_a_fused_partner_is_kept_too_and_nothing_else(tmp_path: Path) -> None:
    tiny = damaged(llama(), "model.layers.0.mlp.up_proj.weight", np.nan, -np.inf, np.inf)
    plan, checkpoint = planned(tiny, tmp_path)
    found = not_finite(plan, checkpoint)
    assert found == {"model.layers.0.mlp.up_proj": 3}
    kept = kept_whole(plan, found)
    assert kept == ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj")
    final = make_plan(without(plan.recipe, kept), checkpoint)
    assert final.problems == ()
    assert {d.module for d in plan.quantized} - {d.module for d in final.quantized} == set(kept)
    assert set(kept) <= set(final.exclude)


def test_one_bad_expert_keeps_all_experts_of_its_layer(tmp_path: Path) -> None:
    plan, checkpoint = planned(damaged(kimi(), f"{EXPERT}.down_proj.weight", np.nan), tmp_path)
    kept = kept_whole(plan, not_finite(plan, checkpoint))
    layer = "language_model.model.layers.1.mlp.experts."
    assert set(kept) == {d.module for d in plan.quantized if d.module.startswith(layer)}
    assert len(kept) > 3
    assert make_plan(without(plan.recipe, kept), checkpoint).problems == ()


def test_a_scale_that_is_not_finite_counts_for_its_weight(tmp_path: Path) -> None:
    stored, _ = int4(kimi())
    scale = stored.tensors[f"{EXPERT}.up_proj.weight_scale"]
    values = np.frombuffer(scale.data, ml_dtypes.bfloat16).copy()
    values[0] = np.inf
    scale.data = values.tobytes()
    plan, checkpoint = planned(stored, tmp_path)
    assert not_finite(plan, checkpoint) == {f"{EXPERT}.up_proj": 1}


def test_a_code_that_is_no_number_counts_for_its_weight(tmp_path: Path) -> None:
    stored, _ = fp8(kimi())
    codes = bytearray(stored.tensors[f"{EXPERT}.up_proj.weight"].data)
    codes[5], codes[9], codes[11] = 0x7F, 0xFF, 0x7E
    stored.tensors[f"{EXPERT}.up_proj.weight"].data = bytes(codes)
    plan, checkpoint = planned(stored, tmp_path)
    assert not_finite(plan, checkpoint) == {f"{EXPERT}.up_proj": 2}


def test_experts_in_one_tensor_are_kept_with_their_layer(tmp_path: Path) -> None:
    layer = "language_model.model.layers.1.mlp.experts"
    stacked, _ = fused(kimi())
    plan, checkpoint = planned(damaged(stacked, f"{layer}.down_proj", np.nan), tmp_path, quantize=["*.experts.*"])
    found = not_finite(plan, checkpoint)
    assert found == {layer: 1}
    kept = kept_whole(plan, found)
    assert set(kept) == {d.module for d in plan.quantized if d.module.startswith(f"{layer}.")}
    assert kept
    final = make_plan(without(plan.recipe, kept), checkpoint)
    assert final.problems == ()
    assert not any(d.module.startswith(f"{layer}.") for d in final.quantized)


def test_a_dead_weight_is_finite(tmp_path: Path) -> None:
    tiny = llama()
    tiny.tensors["model.layers.0.mlp.up_proj.weight"].data = bytes(
        len(tiny.tensors["model.layers.0.mlp.up_proj.weight"].data)
    )
    plan, checkpoint = planned(tiny, tmp_path)
    assert not_finite(plan, checkpoint) == {}
