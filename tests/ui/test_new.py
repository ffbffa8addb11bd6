"""Planning tells what stands in the way; starting writes the recipe that was shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from publisher.errors import PublisherError
from publisher.runners import local
from publisher.ui import new
from publisher.ui.form import Form
from publisher.ui.new import Planned
from tests.builders import tiny


@pytest.fixture
def form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Form:
    monkeypatch.chdir(tmp_path)
    tiny.llama().write(tmp_path / "model")
    return Form(source="model", base_model="org/Tiny", number_format="mxfp4", repo="me/Tiny-MXFP4")


def last(form: Form, *, space: bool = False) -> str | Planned:
    *_, end = new.planning(form, space=space, token=None)
    return end


def test_a_plan_is_shown_with_the_command_and_the_recipe(form: Form) -> None:
    view = last(form)
    assert isinstance(view, Planned)
    assert view.ready
    assert view.command == "publisher push recipe.yaml --to folder:published"
    assert yaml.safe_load(view.recipe)["card"] == "card.toml"
    assert view.run_dir.startswith(".publisher/runs/tiny-mxfp4-")
    assert "model.layers.*.mlp.up_proj" in view.html


def test_a_plan_that_cannot_work_says_so_and_is_not_started(form: Form) -> None:
    tiny.mxfp4(tiny.llama()).write(Path("done"))
    view = last(replace(form, source="done"))
    assert isinstance(view, Planned)
    assert not view.ready
    assert "This plan cannot work" in view.html
    with pytest.raises(PublisherError, match="no plan to start"):
        new.start(view)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "nowhere"}, "nowhere"),
        ({"source": ""}, "lacks a source"),
        ({"quantize": "re:x"}, "regex"),
        ({"repo": "no slash"}, "repo"),
        ({"base_model": "x"}, "no Hub model"),
    ],
)
def test_what_is_wrong_is_a_box_with_a_sentence(form: Form, change: dict[str, str], said: str) -> None:
    box = last(replace(form, **change))  # type: ignore[arg-type]
    assert isinstance(box, str)
    assert 'role="alert"' in box
    assert said in box
    assert "Traceback" not in box


def test_a_visitor_of_a_space_cannot_look_at_its_disk(form: Form) -> None:
    box = last(form, space=True)
    assert isinstance(box, str)
    assert "only repositories can be read" in box


def test_starting_writes_the_planned_recipe_and_runs_detached(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], Path]] = []
    monkeypatch.setattr(local, "start", lambda arguments, run_dir, **_: started.append((arguments, run_dir)))
    view = last(form)
    assert isinstance(view, Planned)
    name = new.start(view)
    run = Path(".publisher/runs") / name
    assert (run / "recipe.yaml").read_text() == view.recipe
    assert (run / "card.toml").read_text() == 'base_model = "org/Tiny"\n'
    assert started == [(["push", str(run / "recipe.yaml"), "--to", "folder:published", "--yes"], run)]


def test_nothing_is_started_without_a_plan() -> None:
    with pytest.raises(PublisherError, match="no plan to start"):
        new.start(None)
