"""The form becomes the recipe and the command a person would have written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from publisher.errors import PublisherError
from publisher.plan.recipe import load_recipe
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
    command = forms.shell(forms.push_arguments(form.target, "recipe.yaml"))
    assert command == "publisher push recipe.yaml --to 'folder:my folder; rm -rf x'"
    assert (
        forms.shell(forms.push_arguments(replace(FILLED, to="hf").target, "r.yaml")) == "publisher push r.yaml --to hf"
    )


def test_fields_that_were_never_touched_have_their_defaults() -> None:
    assert Form.of({"source": None, "repo": "a/b", "keep": None, "samples": None}) == Form(source="", repo="a/b")
