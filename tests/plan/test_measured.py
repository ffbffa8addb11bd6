"""Statistics that are not those of what is quantized are named by the plan, and those that are pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.statistics import Observed, Statistics, write
from publisher.plan.decide import make_plan
from publisher.plan.measured import misfits
from publisher.plan.model import Plan


@pytest.fixture
def plan(headers: Any, shapes: Any, recipe: Any, tmp_path: Path) -> Plan:
    asked = replace(recipe(quantize=["*.mlp.*"]), activations="calibrated", statistics=tmp_path / "s.safetensors")
    return make_plan(asked, headers(shapes("llama")))


def measured(plan: Plan, *lacking: str, **metadata: str) -> Plan:
    """The plan with a file of what all its modules but some saw."""
    names = [decision.module for decision in plan.quantized if decision.module not in lacking]
    path = plan.recipe.statistics
    assert path is not None
    write(path, Statistics(modules={name: Observed(2.0, 64) for name in names}, metadata={"tokens": "64", **metadata}))
    return plan


def test_what_fits_is_not_told(plan: Plan) -> None:
    assert list(misfits(plan)) == []  # not there: the missing file is named elsewhere
    assert list(misfits(measured(plan))) == []


def test_a_module_that_was_not_measured(plan: Plan) -> None:
    name = plan.quantized[0].module
    ((message, hint, fatal),) = misfits(measured(plan, name))
    assert f"{name} is not in them" in message
    assert hint
    assert fatal


def test_a_file_that_holds_something_else(plan: Plan) -> None:
    path = plan.recipe.statistics
    assert path is not None
    path.write_text("t1 t2 t3 of a calibration text")
    ((message, _, fatal),) = misfits(plan)
    assert str(path) in message
    assert fatal


def test_pruning_by_mean_squares_that_were_not_kept(headers: Any, shapes: Any, recipe: Any, tmp_path: Path) -> None:
    sparsity = {"pattern": "paired-4:8", "choose": "hessian"}
    asked = recipe(quantize=["*.mlp.*"], sparsity=sparsity, statistics=str(tmp_path / "s.safetensors"))
    ((message, hint, fatal),) = misfits(measured(make_plan(asked, headers(shapes("llama")))))
    assert "no mean squares of model.layers.*.mlp.down_proj (2)" in message
    assert "--second-moments" in hint
    assert fatal


def test_another_commit_is_told_and_does_not_stop(plan: Plan) -> None:
    own = replace(measured(plan, source_commit="a" * 40), source_commit="b" * 40)
    ((message, _, fatal),) = misfits(own)
    assert "a" * 40 in message
    assert not fatal
    assert list(misfits(replace(own, source_commit="a" * 40))) == []
