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
from tests.hub.loopback import LoopbackHub


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
        ({"more": "also: ["}, "More of the recipe is not the YAML"),
    ],
)
def test_what_is_wrong_is_a_box_with_a_sentence(form: Form, change: dict[str, str], said: str) -> None:
    box = last(replace(form, **change))  # type: ignore[arg-type]
    assert isinstance(box, str)
    assert 'role="alert"' in box
    assert said in box
    assert "Traceback" not in box


def test_what_no_browser_sends_is_a_sentence_too() -> None:
    *_, box = new.planning({"source": ["m"], "number_format": {}}, space=True, token=None)
    assert isinstance(box, str)
    assert "The field source holds no str" in box
    *_, box = new.planning({"source": "hf://o/m", "repo": "a/b", "engine": "x"}, space=True, token=None)
    assert "is none of native" in str(box)


def test_a_visitor_of_a_space_cannot_look_at_its_disk(form: Form) -> None:
    box = last(form, space=True)
    assert isinstance(box, str)
    assert "only repositories can be read" in box


WATCH = """
import os, sys
log = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
sys.addaudithook(lambda event, given: event == "open" and os.write(log, f"{given[0]}\\n".encode()))
"""


def test_a_visitor_of_a_space_cannot_make_it_open_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every open of the planning process is watched; one's own machine is the proof that the watch sees it."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH)
    secret = tmp_path / "secret.toml"
    secret.write_text('notes = ["seen"]\n')
    original = tiny.llama()
    original.files |= {"LICENSE": tiny.LICENCE, "README.md": tiny.SOURCE_CARD.encode()}
    folder = original.write(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    form = Form(source="hf://org/model", repo="me/Tiny", card=str(secret), evaluation=str(secret), to="hf")
    form = replace(form, statistics=str(secret), more="evaluation: {prompt: Once}")
    opened = {}
    with LoopbackHub() as hub:
        hub.seed_repo("org/model", files)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"))
        for space in (True, False):
            monkeypatch.setenv("WATCHED", str(tmp_path / f"{space}.log"))
            view = last(form, space=space)
            assert isinstance(view, Planned), view
            assert view.recipe.count(str(secret)) == 3
            opened[space] = (tmp_path / f"{space}.log").read_text()
    assert "recipe.yaml" in opened[True]
    assert str(secret) not in opened[True]
    assert str(secret) in opened[False]


@pytest.mark.parametrize("key", ["card", "statistics", "source", "calibration", "evaluation"])
def test_a_visitor_s_yaml_names_no_file(key: str) -> None:
    value = "{data: /etc/passwd}" if key in ("calibration", "evaluation") else "/etc/passwd"
    box = last(Form(source="hf://org/model", repo="me/Tiny", to="hf", more=f"{key}: {value}"), space=True)
    assert isinstance(box, str)
    assert 'role="alert"' in box
    assert "has the field" in box


def test_what_the_card_still_needs_stands_in_the_way_before_the_start(form: Form) -> None:
    view = last(replace(form, base_model=""))
    assert isinstance(view, Planned)
    assert not view.ready
    assert 'role="alert"' in view.html
    assert "base_model" in view.html
    assert "model.layers.*.mlp.up_proj" in view.html


def test_starting_writes_the_planned_recipe_and_runs_detached(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], Path]] = []
    monkeypatch.setattr(local, "start", lambda arguments, run_dir, **_: started.append((arguments, run_dir)))
    view = last(replace(form, workers=2, device="cpu"))
    assert isinstance(view, Planned)
    assert view.command == "publisher push recipe.yaml --to folder:published --workers 2 --device cpu"
    name = new.start(view)
    run = Path(".publisher/runs") / name
    assert (run / "recipe.yaml").read_text() == view.recipe
    assert (run / "card.toml").read_text() == 'base_model = "org/Tiny"\n'
    arguments = ["--to", "folder:published", "--workers", "2", "--device", "cpu", "--yes"]
    assert started == [(["push", str(run / "recipe.yaml"), *arguments], run)]


def test_nothing_is_started_without_a_plan() -> None:
    with pytest.raises(PublisherError, match="no plan to start"):
        new.start(None)
