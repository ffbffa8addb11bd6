"""What the page offers is what the reader of recipes takes: every offered combination, and none that it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from publisher import jsonio
from publisher.jsonio import DocumentError
from publisher.plan.recipe import recipe_from_mapping
from publisher.ui import choices

SCHEMA = jsonio.data("schemas/recipe.schema.json")["properties"]


def values(number_format: str, field: str, **chosen: str) -> list[str]:
    return [value for _, value in choices.settle(number_format, chosen)[field].offered]


@pytest.mark.parametrize("number_format", ["nvfp4", "mxfp4"])
def test_every_layout_and_mode_that_can_be_made_is_offered_and_no_other(number_format: str, tmp_path: Path) -> None:
    document = {"name": "a", "source": "m", "format": number_format, "quantize": ["*"], "activations": "none"}
    for engine, layout, mode in itertools.product(*(SCHEMA[key]["enum"] for key in ("engine", "layout", "mode"))):
        try:
            recipe_from_mapping({**document, "engine": engine, "layout": layout, "mode": mode}, tmp_path, "it")
        except DocumentError:
            made = False
        else:
            made = True
        found = choices.settle(number_format, {"engine": engine, "layout": layout, "mode": mode})
        assert ([found[key].value for key in ("engine", "layout", "mode")] == [engine, layout, mode]) is made


def test_choices_follow_format_engine_and_layout() -> None:
    assert values("nvfp4", "layout") == ["modelopt", "compressed-tensors"]
    assert values("mxfp4", "layout") == ["quark", "compressed-tensors"]
    assert values("nvfp4", "mode") == ["max", "mse", "four-over-six"]
    assert values("nvfp4", "mode", layout="compressed-tensors") == ["max", "mse"]
    assert values("nvfp4", "mode", engine="modelopt") == ["max"]
    assert values("mxfp4", "mode") == ["even", "floor", "ceil"]
    assert values("mxfp4", "engine") == ["native"]
    assert values("nvfp4", "kv_cache") == ["none", "fp8-cast"]
    assert values("nvfp4", "kv_cache", engine="modelopt") == ["none", "fp8", "fp8-cast"]
    assert values("mxfp4", "activations") == ["", "dynamic", "none"]


def test_what_was_chosen_stays_while_it_is_offered_and_else_gives_way_to_the_default() -> None:
    found = choices.settle("mxfp4", {"layout": "compressed-tensors", "mode": "mse", "kv_cache": "fp8-cast"})
    assert found["layout"].value == "compressed-tensors"
    assert (found["mode"].value, found["kv_cache"].value) == ("even", "none")
