"""Every field of the form is on the page once, with a label, and follows what stands before it."""

from __future__ import annotations

from dataclasses import fields as fields_of

import gradio as gr
import pytest

from publisher.plan import library
from publisher.ui import choices, fields, ready
from publisher.ui.form import LABELS, Form


@pytest.fixture(params=[False, True], ids=["own machine", "space"])
def page(request: pytest.FixtureRequest) -> fields.Fields:
    with gr.Blocks():
        return fields.build(space=request.param)


def test_every_field_of_the_form_is_there_with_its_default_a_label_and_an_id(page: fields.Fields) -> None:
    assert set(page.of) == {one.name for one in fields_of(Form)}
    assert Form.of({"source": "", **{name: one.value for name, one in page.of.items() if one.value}}).mode == "max"
    labels = [one.label for one in page.of.values()]
    assert all(labels)
    assert len({one.elem_id for one in page.of.values()}) == len(page.of)
    assert set(LABELS.values()) <= set(labels)  # a refusal names a field that can be found


def test_fields_of_one_engine_are_shown_with_it_alone() -> None:
    def shown(engine: str) -> list[bool]:
        return [update["visible"] for update in fields.followed("nvfp4", [engine, "", "", "", ""])[-4:]]

    assert list(fields.ENGINE_FIELDS) == ["statistics", "workers", "calibration", "samples"]
    assert shown("native") == [True, True, False, False]
    assert shown("modelopt") == [False, False, True, True]


def test_a_format_takes_away_what_it_does_not_have() -> None:
    engine, layout, mode, *_ = fields.followed("mxfp4", ["modelopt", "modelopt", "mse", "calibrated", "fp8"])
    assert [one.value for one in (engine, layout, mode)] == ["native", "quark", "even"]
    assert [value for _, value in engine.choices] == ["native"]


def test_what_no_browser_sends_becomes_what_is_offered() -> None:
    engine, layout, *_ = fields.followed([], [{}, ["x"], 1, None, "x"])  # type: ignore[arg-type,list-item]
    assert (engine.value, layout.value) == ("native", "modelopt")


@pytest.mark.parametrize("name", [name for _, name in ready.choices()])
def test_a_ready_recipe_fills_every_field_with_what_can_be_chosen(name: str) -> None:
    updates = fields.filled(name, Form(source="", repo="me/x"))
    assert set(updates) == {one.name for one in fields_of(Form)}
    for field in choices.FOLLOWING:
        assert updates[field].value in [value for _, value in updates[field].choices]
    assert updates["repo"]["value"] == "me/x"
    assert updates["statistics"]["visible"] is True
    if name:
        assert updates["layout"].value == library.ready_recipe(name).document["layout"]


def test_a_plan_asked_for_before_the_page_followed_is_of_what_it_is_about_to_show() -> None:
    values = {"number_format": "mxfp4", "engine": "modelopt", "layout": "modelopt", "mode": "mse", "repo": "a/b"}
    found = fields.settled({**values, "activations": "", "kv_cache": "none"})
    assert [found[key] for key in ("engine", "layout", "mode", "repo")] == ["native", "quark", "even", "a/b"]
