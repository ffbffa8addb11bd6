"""Starting from a ready recipe is `publisher recipes write`, whatever is published and however it was typed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from publisher import jsonio
from publisher.cli import recipes
from publisher.errors import PublisherError
from publisher.plan import library
from publisher.plan.recipe import load_recipe
from publisher.ui import form as forms
from publisher.ui import ready
from publisher.ui.form import Form

NAMES = [name for _, name in ready.choices() if name]
ELSE = """name: other
source: hf://org/Other
format: nvfp4
engine: modelopt
quantize: ["*"]
calibration: {data: text.jsonl, samples: 7, seed: 5}
evaluation: {data: e.txt, prompt: Once}
target: {repo: org/Other-NVFP4, gate: auto}
shard_size: 5000000
"""


def test_all_four_are_offered_after_nothing() -> None:
    assert ready.choices()[0] == ("From scratch", "")
    assert list(library.ready_recipes()) == NAMES
    assert len(NAMES) == 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["", "./Kimi", "hf://me/Kimi@main"])
def test_the_form_makes_the_recipe_that_is_written_out(
    name: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = Form(source=source, repo="me/Kimi", card="card.toml")
    form = replace(ready.fill(name, typed), to="hf")
    arguments = [name, "--repo", "me/Kimi", "--card", "card.toml", "--output", "written.yaml"]
    arguments += ["--source", source] if source else []
    done = CliRunner().invoke(recipes.write, arguments)
    assert done.exit_code == 0, done.output
    written = load_recipe(Path("written.yaml"))
    assert forms.recipe(form, tmp_path) == written
    (tmp_path / "shown.yaml").write_text(forms.recipe_text(form, forms.recipe(form, tmp_path)))
    assert load_recipe(tmp_path / "shown.yaml") == written


@pytest.mark.parametrize("name", NAMES)
def test_a_space_shows_the_same_recipe_for_its_node(name: str, tmp_path: Path) -> None:
    form = ready.fill(name, Form(source="", repo="me/Kimi", to="hf"))
    text = forms.recipe_text(form, forms.recipe(form, Path("/elsewhere"), space=True), space=True)
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml") == forms.recipe(form, tmp_path)


def test_what_was_typed_about_this_publication_stays_and_the_rest_gives_way() -> None:
    typed = Form(source="./mine", repo="me/x", gate="auto", workers=3, keep="*.a", more="also: 1", calibration="c")
    form = ready.fill(NAMES[0], typed)
    assert (form.source, form.repo, form.gate, form.workers) == ("./mine", "me/x", "auto", 3)
    assert "*.a" not in form.keep
    assert (form.more, form.calibration) == ("", "")


def test_from_scratch_is_the_empty_form_again() -> None:
    form = ready.fill("", ready.fill(NAMES[2], Form(source="", repo="me/x")))
    assert form == Form(source="", repo="me/x")


def test_another_ready_recipe_brings_its_own_source() -> None:
    form = ready.fill(NAMES[3], ready.fill(NAMES[0], Form(source="")))
    assert form.source == "hf://moonshotai/Kimi-K2.7-Code"


def test_a_recipe_of_any_shape_is_divided_into_fields_and_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"title": "t", "repository": "org/r", "base_model": "org/Other", "modules": 1, "gigabytes": 1}
    one = library.ReadyRecipe(name="other", text=ELSE, **facts)  # type: ignore[arg-type]
    monkeypatch.setattr(ready, "ready_recipe", lambda _: one)
    form = ready.fill("other", Form(source=""))
    assert jsonio.loads_yaml(form.more, "more") == {"calibration": {"seed": 5}, "evaluation": {"prompt": "Once"}}
    (tmp_path / "r.yaml").write_text(ELSE)
    assert forms.recipe(form, tmp_path) == load_recipe(tmp_path / "r.yaml")


def test_an_unknown_name_is_a_sentence() -> None:
    with pytest.raises(PublisherError, match="There is no ready recipe 'kimi'"):
        ready.fill("kimi", Form(source=""))


def test_what_is_told_is_what_the_recipe_s_comment_says() -> None:
    assert ready.told("") == ""
    told = ready.told("kimi-k2.5-p48-nvfp4")
    assert "ISTA-DASLab/Kimi-K2.5-P48-NVFP4-W4A4-Preview" in told
    assert "The method by which its weights were trained after pruning is not published." in told
    assert "for each expert&#x27;s linear. Of every four pairs of weights two are zero" in told  # no line of the file
    assert "<p>What its card says:</p>" in told
    assert "<p>First: publisher calibrate SOURCE --data TEXT --output statistics.safetensors</p>" in told
    assert "quantize:" not in told
