"""The form becomes the recipe and the command a person would have written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from publisher import jsonio
from publisher.cli import push
from publisher.errors import PublisherError
from publisher.plan.recipe import load_recipe, recipe_from_mapping
from publisher.ui import form as forms
from publisher.ui.form import Form

FILLED = Form(source="./model", repo="me/Model-NVFP4")


def test_the_shortest_form_is_a_weight_only_recipe_with_the_defaults(tmp_path: Path) -> None:
    made = forms.recipe(FILLED, tmp_path)
    assert made.source == str(tmp_path / "model")
    assert (made.format, made.layout, made.engine, made.activations) == ("nvfp4", "modelopt", "native", "none")
    assert made.quantize == ("*.mlp.*_proj",)
    assert made.keep == ()
    assert made.target is not None
    assert (made.target.repo, made.target.gate, made.target.private) == ("me/Model-NVFP4", "manual", False)


def test_a_full_form_says_everything_it_was_told(tmp_path: Path) -> None:
    form = replace(
        FILLED,
        engine="modelopt",
        quantize="*.mlp.up_proj, *.mlp.gate_proj\n*.mlp.up_proj",
        keep="*.layers.0.*",
        calibration="text.jsonl",
        samples=64.0,
        evaluation="eval.txt",
        card="mine.toml",
        gate="off",
        private=True,
    )
    document = yaml.safe_load(forms.recipe_text(form, forms.recipe(form, tmp_path)))
    assert document["quantize"] == ["*.mlp.up_proj", "*.mlp.gate_proj"]
    assert document["keep"] == ["*.layers.0.*"]
    assert document["activations"] == "calibrated"
    assert document["calibration"]["data"] == str(tmp_path / "text.jsonl")
    assert document["calibration"]["samples"] == 64
    assert document["evaluation"]["data"] == str(tmp_path / "eval.txt")
    assert document["card"] == str(tmp_path / "mine.toml")
    assert document["target"] == {"repo": "me/Model-NVFP4", "gate": "off", "private": True}


def test_the_written_recipe_reads_back_as_the_same_recipe_wherever_it_lies(tmp_path: Path) -> None:
    made = forms.recipe(FILLED, tmp_path)
    file = tmp_path / "elsewhere" / "recipe.yaml"
    file.parent.mkdir()
    file.write_text(forms.recipe_text(FILLED, made))
    assert load_recipe(file) == made


def test_modelopt_without_a_calibration_text_is_weight_only(tmp_path: Path) -> None:
    assert forms.recipe(replace(FILLED, engine="modelopt"), tmp_path).activations == "none"


def test_the_model_a_folder_holds_goes_into_a_card_toml_beside_the_recipe(tmp_path: Path) -> None:
    form = replace(FILLED, base_model="org/Model")
    assert forms.card_text(form) == 'base_model = "org/Model"\n'
    assert yaml.safe_load(forms.recipe_text(form, forms.recipe(form, tmp_path)))["card"] == "card.toml"


@pytest.mark.parametrize("name", ['a/b"\nx = 1', "no-slash", "hf://org/name", "ö/ö"])
def test_a_model_name_that_is_none_never_reaches_the_card_toml(name: str) -> None:
    with pytest.raises(PublisherError, match="no Hub model"):
        forms.card_text(replace(FILLED, base_model=name))


def test_what_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="a source and a repository name and a folder to publish to"):
        forms.recipe(Form(source=" ", repo="", folder=""), tmp_path)


def test_what_does_not_go_together_is_said_by_the_recipe_s_own_reader(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="no serving engine loads"):
        forms.recipe(replace(FILLED, engine="modelopt", number_format="mxfp4"), tmp_path)


@pytest.mark.parametrize("source", ["/etc", "./model", "~/model", "file:///etc", "hf://../../etc", "hf://a"])
def test_on_a_space_only_repositories_are_sources(source: str, tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="only repositories can be read"):
        forms.recipe(replace(FILLED, source=source), tmp_path, space=True)


def test_on_a_space_paths_stay_as_typed_because_they_are_the_node_s(tmp_path: Path) -> None:
    form = replace(FILLED, source="hf://org/m@main", engine="modelopt", calibration="text.jsonl", to="hf")
    text = forms.recipe_text(form, forms.recipe(form, tmp_path, space=True), space=True)
    assert yaml.safe_load(text)["calibration"]["data"] == "text.jsonl"
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (FILLED, "model-nvfp4"),
        (Form(source="hf://org/Some Model@main"), "main-nvfp4"),
        (Form(source="hf://org/..", repo="a/--"), "model"),
    ],
)
def test_the_run_is_named_after_the_repository(form: Form, name: str) -> None:
    assert forms.run_name(form) == name


def test_the_command_is_quoted_for_a_shell() -> None:
    form = replace(FILLED, folder="my folder; rm -rf x")
    command = forms.shell(["push", "recipe.yaml", *forms.push_arguments(form)])
    assert command == "publisher push recipe.yaml --to 'folder:my folder; rm -rf x'"
    assert forms.push_arguments(replace(FILLED, to="hf")) == ["--to", "hf"]


def test_how_the_work_is_shared_out_is_said_by_options_the_command_knows() -> None:
    shared = replace(FILLED, workers=4.0, device="cuda:1")
    arguments = forms.push_arguments(shared)
    assert arguments == ["--to", "folder:published", "--workers", "4", "--device", "cuda:1"]
    known = {name for option in push.command.params for name in option.opts}
    assert {part for part in arguments if part.startswith("--")} <= known
    assert "--workers" not in forms.push_arguments(replace(shared, engine="modelopt"))  # it has one process


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cuda:1 --yes"}, "Device: 'cuda:1 --yes' is none"),
        ({"workers": 65.0}, "65 is not between 1 and 64"),
        ({"workers": -1.0}, "-1 is not between"),
        ({"workers": 1.5}, "no whole number"),
        ({"workers": float("inf")}, "no whole number"),
        ({"keep": "\ud800"}, "half a character"),
        ({"shard_size": "big"}, "shard_size"),
        ({"name": "../x"}, "name"),
    ],
)
def test_a_field_that_means_nothing_is_refused_by_name(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(PublisherError) as caught:
        forms.recipe(replace(FILLED, **change), tmp_path)
    assert said in caught.value.message


def test_a_space_writes_no_home_of_its_machine_out() -> None:
    form = replace(FILLED, folder="~root/x")
    assert forms.push_arguments(form, space=True) == ["--to", "folder:~root/x"]
    assert forms.push_arguments(replace(FILLED, folder="~nobody-here/x")) == ["--to", "folder:~nobody-here/x"]


# --- everything else a recipe can say ------------------------------------------------------------------------------


def test_statistics_are_the_native_engine_s_and_a_calibration_text_modelopt_s(tmp_path: Path) -> None:
    both = replace(FILLED, statistics="seen.safetensors", calibration="text.txt", kv_cache="fp8-cast")
    native = forms.recipe(both, tmp_path)
    assert (native.statistics, native.calibration) == (tmp_path / "seen.safetensors", None)
    assert (native.activations, native.kv_cache) == ("calibrated", "fp8-cast")
    modelopt = forms.recipe(replace(both, engine="modelopt"), tmp_path)
    assert modelopt.statistics is None
    assert modelopt.calibration is not None
    assert modelopt.activations == "calibrated"


def test_what_has_no_field_is_said_in_yaml(tmp_path: Path) -> None:
    more = """
    # a comment
    also: [{format: fp8, quantize: ["*.self_attn.*_proj"]}]
    sparsity: {pattern: "paired-4:8", modules: ["*.up_proj"]}
    evaluation: {windows: 4, prompt: Once}
    """
    form = replace(FILLED, layout="compressed-tensors", mode="mse", shard_size="1GB", evaluation="e.txt", more=more)
    made = forms.recipe(form, tmp_path)
    assert (made.layout, made.mode, made.shard_size) == ("compressed-tensors", "mse", 10**9)
    assert [(one.format, one.quantize) for one in made.also] == [("fp8", ("*.self_attn.*_proj",))]
    assert made.sparsity is not None
    assert made.sparsity.modules == ("*.up_proj",)
    assert made.evaluation is not None
    assert (made.evaluation.data, made.evaluation.windows, made.evaluation.prompt) == (tmp_path / "e.txt", 4, "Once")
    again = forms.recipe(replace(FILLED, engine="modelopt", calibration="c", more="calibration: {seed: 3}"), tmp_path)
    assert again.calibration is not None
    assert (again.calibration.seed, again.calibration.samples) == (3, forms.SAMPLES)


TAKEN = {
    "name": "x",
    "source": "/etc",
    "format": "mxfp4",
    "engine": "native",
    "layout": "quark",
    "mode": "max",
    "activations": "none",
    "kv_cache": "none",
    "quantize": ["*"],
    "keep": ["*"],
    "statistics": "/etc/passwd",
    "calibration": {"data": "/etc/passwd", "samples": 1},
    "evaluation": {"data": "/etc/passwd"},
    "target": {"repo": "a/b", "gate": "off", "private": True},
    "card": "/etc/passwd",
    "shard_size": 5000,
}


@pytest.mark.parametrize("key", TAKEN)
def test_a_key_that_has_a_field_is_refused_by_name(key: str) -> None:
    with pytest.raises(PublisherError) as caught:
        forms.more(jsonio.dump_yaml({key: TAKEN[key]}))
    for label in (known for known in forms.LABELS if known.partition(".")[0] == key):
        assert f"`{label}` has the field “{forms.LABELS[label]}”" in caught.value.message


def test_every_path_of_a_recipe_has_a_field() -> None:
    schema = jsonio.data("schemas/recipe.schema.json")["properties"]
    inner = {f"{key}.{name}": one for key, held in schema.items() for name, one in held.get("properties", {}).items()}
    paths = {key for key, held in {**schema, **inner}.items() if held.get("$ref") == "#/$defs/line"}
    assert paths == {"source", "statistics", "calibration.data", "evaluation.data", "card"}
    assert paths <= set(forms.LABELS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour: blue", "unknown key 'colour'; known keys are activations"),
        ("also: [{format: fp4, quantize: ['*']}]", "'fp4' is none of fp8"),
        ("sparsity: 2:4", "sparsity"),
        ("calibration: {seed: 1}", "'data' is a required property"),
        ("evaluation: all of it", "evaluation"),
        ("- also", "More of the recipe is a list"),
        ("also", "More of the recipe is a str"),
        ("2026-13-01", "month"),
        ("a: 1\na: 2", "occurs twice at line 2"),
        ("a: &x 1\nb: *x", "aliases are not read at line 2"),
        ("sparsity: !!python/object/apply:os.system [ls]", "tag"),
        ("{<<: {target: {repo: a/b}}}", "`target.repo` has the field"),
        ("<<: [1]", "merging"),
        ("[" * 60_000, "recursion"),
        ("{a: " * 300 + "1" + "}" * 300, "unknown key 'a'"),
        ("sparsity: " + "{a: " * 3000 + "1" + "}" * 3000, "More of the recipe cannot be read"),
        ("a: " + "1" * 5000, "More of the recipe"),
        ("evaluation: {windows: 0x" + "f" * 5000 + "}", "thousands of digits"),
        ("a: " + "1:" * 500 + "1.5", "too large"),
        ("? [a]\n: b", "unhashable"),
        ("1: 2", "unknown key '1'"),
        ("a: [1", "More of the recipe is not the YAML this program reads"),
        ("---\na: 1\n---\nb: 2", "another document"),
        ("\x00", "special characters"),
        ("\ud800", "half a character"),
        ('keys: "\\ud800"', "half a character"),
        ("#" * 70_000, "70,000 characters are more than the 65,536"),
    ],
)
def test_yaml_of_a_stranger_ends_in_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(PublisherError) as caught:
        forms.recipe(replace(FILLED, more=text), tmp_path)
    assert said in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 1500


def test_yaml_of_comments_alone_says_nothing(tmp_path: Path) -> None:
    assert forms.recipe(replace(FILLED, more="# nothing\n"), tmp_path) == forms.recipe(FILLED, tmp_path)


def test_the_recipe_that_a_space_plans_names_none_of_the_typed_paths(tmp_path: Path) -> None:
    form = replace(
        FILLED,
        source="hf://org/m",
        statistics="/secret/statistics",
        evaluation="/secret/evaluation",
        card="/secret/card",
        to="hf",
    )
    made = forms.recipe(form, tmp_path, space=True)
    planned, shown = forms.planned_text(form, made, space=True), forms.recipe_text(form, made, space=True)
    assert "secret" not in planned
    assert shown.count("/secret/") == 3
    assert recipe_from_mapping(yaml.safe_load(planned), tmp_path, "it").activations == "calibrated"
    text = forms.planned_text(replace(form, engine="modelopt", calibration="/secret/text"), made, space=True)
    assert "secret" not in text


def test_fields_that_were_never_touched_have_their_defaults() -> None:
    assert Form.of({"source": None, "repo": "a/b", "keep": None, "samples": None}) == Form(source="", repo="a/b")


@pytest.mark.parametrize(
    "change", [{"source": ["x"]}, {"workers": "2"}, {"private": "yes"}, {"layout": {}}, {"more": 1}]
)
def test_a_value_of_another_kind_is_refused_by_its_field(change: dict[str, Any]) -> None:
    with pytest.raises(PublisherError, match=f"The field {next(iter(change))} holds no"):
        Form.of({"source": "m", "repo": "a/b", **change})
