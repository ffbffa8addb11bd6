"""Recipes: what is read, what is filled in, and that everything wrong is said at once with the fix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from publisher import jsonio
from publisher.plan.model import Calibration, Evaluation, Recipe, TargetSpec
from publisher.plan.recipe import load_recipe, parse_size, recipe_from_mapping, recipe_to_yaml

SMALL = {"name": "demo", "source": "./source", "format": "nvfp4", "quantize": ["*.mlp.*_proj"]}


def read(change: Mapping[str, Any], base: Path = Path("/base")) -> Recipe:
    return recipe_from_mapping({**SMALL, **change}, base, "recipe.yaml")


def refused(change: Mapping[str, Any]) -> str:
    with pytest.raises(jsonio.DocumentError) as caught:
        read(change)
    return caught.value.message


def test_the_schema_is_a_schema() -> None:
    schema = json.loads((jsonio.DATA / "schemas" / "recipe.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for key, value in schema["properties"].items():
        assert value["description"], key


def test_the_schema_knows_every_field_of_a_recipe_and_no_other() -> None:
    known = set(json.loads((jsonio.DATA / "schemas" / "recipe.schema.json").read_text())["properties"])
    assert known == set(Recipe.__dataclass_fields__)


def test_a_whole_recipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        """
name: smollm2-nvfp4
source: ./source
format: nvfp4
layout: modelopt
engine: modelopt
mode: max
activations: calibrated
kv_cache: fp8
quantize: ["*.mlp.*_proj"]
keep: ["lm_head", "*.mlp.gate"]
calibration: {data: ../calibration.jsonl, samples: 16, sequence_length: 128, seed: 3}
evaluation: {data: eval.txt, windows: 4, length: 256, prompt: "The capital of France is"}
target: {repo: org/name, gate: off, private: true}
card: card.toml
shard_size: 1.5GB
"""
    )
    assert load_recipe(tmp_path / "recipe.yaml") == Recipe(
        name="smollm2-nvfp4",
        source=str(tmp_path / "source"),
        format="nvfp4",
        layout="modelopt",
        engine="modelopt",
        mode="max",
        activations="calibrated",
        kv_cache="fp8",
        quantize=("*.mlp.*_proj",),
        keep=("lm_head", "*.mlp.gate"),
        calibration=Calibration(data=tmp_path.parent / "calibration.jsonl", samples=16, sequence_length=128, seed=3),
        evaluation=Evaluation(data=tmp_path / "eval.txt", windows=4, length=256, prompt="The capital of France is"),
        target=TargetSpec(repo="org/name", gate="off", private=True),
        card=tmp_path / "card.toml",
        shard_size=1_500_000_000,
    )


def test_paths_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps(SMALL))
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path("r.yaml")).source == str(tmp_path / "source")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ("modelopt", "native", "max", "none", "none")),
        (
            {"engine": "modelopt", "calibration": {"data": "c.txt"}},
            ("modelopt", "modelopt", "max", "calibrated", "none"),
        ),
        ({"format": "mxfp4"}, ("quark", "native", "even", "dynamic", "none")),
        ({"format": "mxfp4", "activations": "none", "mode": "ceil"}, ("quark", "native", "ceil", "none", "none")),
        ({"kv_cache": "fp8-cast"}, ("modelopt", "native", "max", "none", "fp8-cast")),
        ({"layout": "compressed-tensors"}, ("compressed-tensors", "native", "max", "none", "none")),
        ({"statistics": "s.safetensors"}, ("modelopt", "native", "max", "calibrated", "none")),
        (
            {"layout": "compressed-tensors", "format": "mxfp4"},
            ("compressed-tensors", "native", "even", "dynamic", "none"),
        ),
    ],
)
def test_defaults_follow_the_format(change: dict[str, Any], expected: tuple[str, ...]) -> None:
    recipe = read(change)
    assert (recipe.layout, recipe.engine, recipe.mode, recipe.activations, recipe.kv_cache) == expected


def test_the_gate_is_manual_unless_said_otherwise() -> None:
    target = read({"target": {"repo": "org/name"}}).target
    assert target == TargetSpec(repo="org/name", gate="manual", private=False)


@pytest.mark.parametrize("source", ["hf://org/name", "hf://org/name@main", "hf://org/name@refs/pr/1"])
def test_a_hub_source_stays_as_it_is(source: str) -> None:
    assert read({"source": source}).source == source


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fromat": "nvfp4"}, ["'fromat'", "known keys are", "format", "quantize"]),
        ({"calibration": {"data": "x", "sampels": 3}}, ["`calibration`", "'sampels'", "sequence_length"]),
        ({"format": "int4"}, ["`format`", "'int4'", "nvfp4, mxfp4"]),
        ({"quantize": []}, ["`quantize`"]),
        ({"quantize": ["a\nb"]}, ["`quantize.0`", "unprintable"]),
        ({"quantize": ["re:.*mlp.*"]}, ["`quantize.0`", "regex", "globs"]),
        ({"keep": ["a", "a"]}, ["`keep`"]),
        ({"source": "https://huggingface.co/org/name"}, ["`source`", "hf://org/name"]),
        ({"source": "hf://name"}, ["`source`", "hf://org/name"]),
        ({"source": "a\x00b"}, ["`source`"]),
        ({"shard_size": "many"}, ["`shard_size`"]),
        ({"shard_size": "0.1kB"}, ["`shard_size`", "1000"]),
        ({"target": {"repo": "no-owner"}}, ["`target.repo`"]),
        ({"target": {"repo": "../../etc/passwd"}}, ["`target.repo`"]),
        ({"name": "../up"}, ["`name`"]),
        ({"format": "mxfp4", "layout": "modelopt"}, ["no serving engine", "use quark"]),
        ({"layout": "quark"}, ["not available in this version", "use modelopt"]),
        ({"layout": "compressed-tensors", "format": "mxfp4", "mode": "max"}, ["no meaning for mxfp4", "or ceil6"]),
        ({"mode": "ceil6"}, ["`mode`", "no meaning for nvfp4", "max"]),
        ({"layout": "compressed-tensors", "engine": "modelopt", "calibration": {"data": "c"}}, ["does not write"]),
        ({"engine": "quark", "format": "mxfp4"}, ["`engine`: quark is not available in this version"]),
        ({"engine": "llm-compressor"}, ["`engine`: llm-compressor is not available in this version"]),
        ({"engine": "modelopt", "format": "mxfp4"}, ["`engine`", "use native"]),
        ({"mode": "even"}, ["`mode`", "use max"]),
        ({"mode": "four-over-six", "format": "mxfp4"}, ["`mode`", "no meaning for mxfp4"]),
        ({"mode": "four-over-six", "layout": "compressed-tensors"}, ["`mode`", "no name for four-over-six", "or mse"]),
        ({"mode": "four-over-six", "engine": "modelopt", "calibration": {"data": "c"}}, ["`mode`", "engine native"]),
        ({"mode": "mse", "engine": "modelopt", "calibration": {"data": "c"}}, ["`mode`", "engine native"]),
        ({"mode": "mse", "format": "mxfp4"}, ["`mode`", "no meaning", "even"]),
        ({"format": "mxfp4", "mode": "ceil6"}, ["`mode`", "even or floor or ceil", "compressed-tensors"]),
        ({"activations": "calibrated"}, ["`activations`", "engine modelopt", "W4A16"]),
        ({"statistics": "s", "activations": "none"}, ["`statistics`", "remove it"]),
        ({"statistics": "s", "format": "mxfp4"}, ["`statistics`", "remove it"]),
        (
            {"statistics": "s", "engine": "modelopt", "calibration": {"data": "c"}},
            ["`statistics`", "only engine native"],
        ),
        ({"activations": "dynamic"}, ["`activations`", "uninitialised"]),
        ({"format": "mxfp4", "activations": "calibrated"}, ["`activations`", "dynamic"]),
        ({"engine": "modelopt"}, ["`calibration`", "data"]),
        ({"engine": "modelopt", "activations": "none", "kv_cache": "fp8"}, ["`calibration`", "kv_cache: fp8"]),
        ({"kv_cache": "fp8"}, ["`kv_cache`", "fp8-cast"]),
        ({"format": "mxfp4", "kv_cache": "fp8-cast"}, ["`kv_cache`", "quark"]),
        ({"layout": "compressed-tensors", "kv_cache": "fp8-cast"}, ["`kv_cache`", "stored scales"]),
        ({"calibration": {"data": "c.txt"}}, ["`calibration`", "remove it"]),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_fix(change: dict[str, Any], words: list[str]) -> None:
    message = refused(change)
    for word in words:
        assert word in message


def test_all_problems_are_named_at_once() -> None:
    message = refused({"activations": "calibrated", "kv_cache": "fp8", "mode": "even", "layout": "quark"})
    for key in ("`activations`", "`kv_cache`", "`mode`", "`layout`"):
        assert key in message
    with pytest.raises(jsonio.DocumentError, match="'format' is a required"):
        recipe_from_mapping({"name": "x"}, Path("/"), "recipe.yaml")


@pytest.mark.parametrize("text", ["", "- a\n", "just words", "name: [", "name: a\nname: b\n"])
def test_what_is_no_recipe_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(jsonio.DocumentError, match=r"recipe\.yaml"):
        load_recipe(path)
    with pytest.raises(jsonio.DocumentError, match="does not exist"):
        load_recipe(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "change",
    [{"name": "demo\n"}, {"source": "./source\n"}, {"target": {"repo": "a/b\n"}}, {"shard_size": "5GB\n"}],
)
def test_a_line_break_at_the_end_is_no_part_of_a_name(change: dict[str, Any]) -> None:
    assert next(iter(change)) in refused(change)


def test_odd_values_are_refused_with_a_short_sentence() -> None:
    assert "thousands of digits" in refused({"format": 16**6000})
    many = refused({f"k{number}": 1 for number in range(5000)})
    assert "4,990 more" in many
    assert len(many) < 1000


def test_a_home_that_nobody_has_is_a_folder_that_does_not_exist() -> None:
    assert read({"source": "~nobody-of-that-name/model"}).source.endswith("~nobody-of-that-name/model")


@pytest.mark.parametrize(
    ("text", "expected"),
    [(5000, 5000), ("5GB", 5 * 10**9), ("1.5 MB", 1_500_000), ("2GiB", 2 << 30), ("7000", 7000), ("3kB", 3000)],
)
def test_sizes(text: int | str, expected: int) -> None:
    assert parse_size(text) == expected


# --- writing -------------------------------------------------------------------------------------------------------

LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=20)


GLOBS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@given(prompt=LINES, part=LINES.filter(lambda t: "/" not in t and not t.startswith(("~", "."))), name=GLOBS)
def test_a_written_recipe_reads_back_equal_anywhere(prompt: str, part: str, name: str) -> None:
    recipe = replace(
        read({"engine": "modelopt", "calibration": {"data": "c"}, "target": {"repo": "org/off", "gate": "off"}}),
        calibration=Calibration(data=Path("/data") / part, seed=7),
        evaluation=Evaluation(data=Path("/no"), prompt=prompt),
        quantize=("*", f"x{name}"),
        keep=("off", "1", "null"),
        name="1e3",
    )
    text = recipe_to_yaml(recipe)
    assert recipe_from_mapping(jsonio.loads_yaml(text, "copy"), Path("/elsewhere"), "copy") == recipe
    assert yaml.safe_load(text)["keep"] == ["off", "1", "null"]


def test_a_written_recipe_is_pleasant_to_read() -> None:
    text = recipe_to_yaml(read({"target": {"repo": "org/name"}}))
    assert "format: nvfp4\n" in text
    assert 'quantize:\n  - "*.mlp.*_proj"\n' in text
    assert "target:\n  repo: org/name\n  gate: manual\n" in text


FP8 = [{"format": "fp8", "quantize": ["*.self_attn.*"]}]


def test_another_format_for_some_modules(recipe: Any) -> None:
    made = recipe(also=FP8, layout="compressed-tensors")
    assert [(one.format, one.quantize) for one in made.also] == [("fp8", ("*.self_attn.*",))]
    again = recipe_from_mapping(made.to_json(), Path("/base"), "again")
    assert again == made
    assert "also" not in recipe().to_json()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"also": FP8}, "engines read FP8 in modelopt layout with stored input scales; name `statistics`"),
        (
            {"also": FP8, "format": "mxfp4"},
            "quark layout holds one format in this version; use compressed-tensors",
        ),
        (
            {"also": FP8, "engine": "modelopt", "activations": "none"},
            "engine modelopt writes one format in this version; use native",
        ),
        ({"also": [{"format": "int8", "quantize": ["*"]}], "layout": "compressed-tensors"}, "also.0.format"),
        ({"also": [{"format": "fp8", "quantize": []}], "layout": "compressed-tensors"}, "also.0.quantize"),
        ({"also": [], "layout": "compressed-tensors"}, "also"),
        (
            {"also": [{"format": "fp8", "quantize": ["re:x"]}], "layout": "compressed-tensors"},
            "`also.0.quantize.0`: 're:x' is a regex",
        ),
    ],
)
def test_another_format_that_nobody_writes_or_reads(change: dict[str, Any], said: str, recipe: Any) -> None:
    with pytest.raises(jsonio.DocumentError) as caught:
        recipe(**change)
    assert said in caught.value.message
