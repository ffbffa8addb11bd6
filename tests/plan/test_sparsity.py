"""`sparsity` of a recipe: which modules it means, what is said of it, and what is refused with the fix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher import jsonio
from publisher.checkpoint.open import open_checkpoint
from publisher.engines import ENGINES
from publisher.plan import sparsity
from publisher.plan.decide import make_plan
from publisher.plan.model import Plan, Recipe, Sparsity
from publisher.plan.recipe import recipe_from_mapping, recipe_to_yaml
from tests.builders.tiny import mixture
from tests.builders.variants import expert_blocks, gpt_oss

SMALL = {"name": "x", "source": "source", "format": "nvfp4", "quantize": ["*.mlp.*"]}
EXPERTS = {"pattern": "paired-4:8", "modules": ["*.experts.*"]}


def read(change: Mapping[str, Any], base: Path = Path("/base")) -> Recipe:
    return recipe_from_mapping({**SMALL, **change}, base, "recipe.yaml")


def planned(folder: Path, **change: Any) -> Plan:
    return make_plan(read(change, folder), open_checkpoint(mixture().write(folder / "source")))


def test_the_pattern_alone_is_for_all_that_is_quantized(tmp_path: Path) -> None:
    plan = planned(tmp_path, sparsity="paired-4:8")
    assert plan.recipe.sparsity == Sparsity(pattern="paired-4:8", modules=("*",), choose="magnitude")
    names = [decision.module for decision in plan.quantized]
    assert sparsity.pruned(plan.recipe, names) == tuple(names)
    assert plan.problems == ()


def test_modules_are_globs_over_what_is_quantized(tmp_path: Path) -> None:
    plan = planned(tmp_path, sparsity=EXPERTS, keep=["*.layers.1.*"])
    named = ENGINES["native"].job(plan, tmp_path, tmp_path / "out", tmp_path / "staging", "cpu")["sparsity"]
    assert named["modules"] == [d.module for d in plan.quantized if ".experts." in d.module]
    assert 0 < len(named["modules"]) < len(plan.quantized)
    assert named["statement"] == {"pattern": "paired-4:8", "storage": "dense", "modules": ["*.experts.*"]}


def test_without_the_key_nothing_is_pruned_or_said(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    job = ENGINES["native"].job(plan, tmp_path, tmp_path / "out", tmp_path / "staging", "cpu")
    assert job["sparsity"] is None
    assert sparsity.statement(plan.recipe) is None
    assert not any("set to zero" in warning for warning in plan.warnings)


def test_the_cost_is_said_first(tmp_path: Path) -> None:
    plan = planned(tmp_path, sparsity=EXPERTS)
    (said,) = (warning for warning in plan.warnings if "set to zero" in warning)
    assert "24 modules" in said


def test_pruning_makes_another_plan(tmp_path: Path) -> None:
    dense, sparse = planned(tmp_path / "1"), planned(tmp_path / "1", sparsity=EXPERTS)
    assert dense.digest != sparse.digest
    assert dense.bytes_after == sparse.bytes_after


def test_what_gets_fp8_beside_it_is_not_pruned(tmp_path: Path) -> None:
    also = [{"format": "fp8", "quantize": ["*.self_attn.o_proj"]}]
    plan = planned(tmp_path, sparsity="paired-4:8", also=also, layout="compressed-tensors")
    assert plan.mixed
    pruned = sparsity.pruned(plan.recipe, sparsity.prunable(plan.decisions))
    assert pruned
    assert not any("self_attn" in name for name in pruned)
    job = ENGINES["native"].job(plan, tmp_path, tmp_path / "out", tmp_path / "staging", "cpu")
    assert job["sparsity"]["modules"] == job["quantize"]


@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_experts_that_stay_one_tensor_or_keep_their_codes_are_not_pruned(form: str, tmp_path: Path) -> None:
    """gpt-oss: NVFP4 experts stay stacked for its loaders; MXFP4 codes are copied."""
    source = expert_blocks(gpt_oss())
    plan = make_plan(
        read({"sparsity": "paired-4:8", "format": form, "quantize": ["*.mlp.experts*"]}, tmp_path),
        open_checkpoint(source.write(tmp_path / "source")),
    )
    assert any("would be pruned" in problem for problem in plan.problems), plan.problems


def test_a_pattern_that_reaches_nothing_is_a_problem(tmp_path: Path) -> None:
    plan = planned(tmp_path, sparsity={"pattern": "paired-4:8", "modules": ["*.experts.*", "*.self_attn.*"]})
    assert any("'*.self_attn.*'" in problem and "sparsity" in problem for problem in plan.problems)


def test_every_default_is_written_out_and_read_again() -> None:
    recipe = read({"sparsity": "paired-4:8"})
    assert recipe_from_mapping(jsonio.loads_yaml(recipe_to_yaml(recipe), "x"), Path("/"), "x") == recipe


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sparsity": "2:4"}, "sparsity"),
        ({"sparsity": {"modules": ["*"]}}, "pattern"),
        ({"sparsity": {"pattern": "paired-4:8", "choose": "random"}}, "magnitude"),
        ({"sparsity": {"pattern": "paired-4:8", "modules": []}}, "sparsity.modules"),
        ({"sparsity": {"pattern": "paired-4:8", "modules": ["re:x"]}}, "is a regex"),
        ({"sparsity": {"pattern": "paired-4:8", "choose": "hessian"}}, "--second-moments"),
        ({"sparsity": "paired-4:8", "engine": "modelopt", "calibration": {"data": "x"}}, "use native"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_fix(change: dict[str, Any], words: str) -> None:
    with pytest.raises(jsonio.DocumentError) as caught:
        read(change)
    assert words in caught.value.message


def test_statistics_serve_pruning_where_activations_need_none() -> None:
    hessian = {"pattern": "paired-4:8", "choose": "hessian"}
    recipe = read({"sparsity": hessian, "statistics": "s.safetensors", "format": "mxfp4"})
    assert (recipe.activations, recipe.statistics) == ("dynamic", Path("/base/s.safetensors"))
    weight_only = read({"sparsity": hessian, "statistics": "s.safetensors", "activations": "none"})
    assert weight_only.activations == "none"
    with pytest.raises(jsonio.DocumentError, match="`statistics`"):
        read({"sparsity": "paired-4:8", "statistics": "s.safetensors", "format": "mxfp4"})
