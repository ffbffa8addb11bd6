"""The fields of the first page: what is quantized, how, and where it is published.

Choices follow what stands before them, and a ready recipe fills all of it. What is rare is folded away, and opens where
a ready recipe says something there. Every field has a label, and an id that tests and people's links go by.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from publisher.ui import choices, markup, place, ready
from publisher.ui import form as forms
from publisher.ui.form import LABELS, Form

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# A field of paths or patterns is no prose: nothing in it is corrected, and it is set like code.
PLAIN = gr.InputHTMLAttributes(spellcheck=False, autocapitalize="off", autocorrect="off")
_text: Any = functools.partial(gr.Textbox, html_attributes=PLAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The components of the form.

    Args:
        of: field of `Form` to its component.
        start: what the form starts from.
        told: what that follows.
        precision: the folded part of activations and KV cache.
        more: the folded part of other keys.
    """

    of: dict[str, Any]
    start: gr.Dropdown
    told: gr.HTML
    precision: gr.Accordion
    more: gr.Accordion


def build(*, space: bool) -> Fields:
    """Lay out the fields inside the current block, and let choices follow.

    Args:
        space: whether the page is served to strangers, whose work is done on another machine.
    """
    of: dict[str, Any] = {}
    settled = choices.settle("nvfp4", {})
    heading("1", "Source and format")
    start, told = _source(of, settled, space)
    with gr.Accordion("Activations and KV cache", open=False, elem_id="precision") as precision:
        _precision(of, settled)
    with gr.Accordion("Evaluation, card and run", open=False, elem_id="run-options"):
        _run(of)
    with gr.Accordion(forms.MORE, open=False, elem_id="more-recipe") as more:
        _more(of)
    heading("2", "Where it is published")
    _target(of, space)
    found = Fields(of=of, start=start, told=told, precision=precision, more=more)
    _follow(found)
    return found


def heading(number: str, title: str) -> gr.HTML:
    """A numbered heading of the page."""
    step = markup.element("span", markup.text(number), kind="step")
    return gr.HTML(markup.element("h2", step, markup.text(title), kind="heading"))


# --- the parts -----------------------------------------------------------------------------------------------------


def _source(of: dict[str, Any], settled: dict[str, choices.Choice], space: bool) -> tuple[gr.Dropdown, gr.HTML]:
    with gr.Group():
        start = gr.Dropdown(
            ready.choices(),
            value=ready.SCRATCH,
            label="Start from",
            info="Ready recipes follow published checkpoints and fill in the form.",
            elem_id="start-from",
            filterable=False,
        )
        told = gr.HTML(elem_id="ready-told", visible=False)
        of["source"] = _text(
            label=LABELS["source"],
            placeholder="hf://org/name" if space else "hf://org/name or a folder on this machine",
            info="A checkpoint of safetensors. A revision may follow after @.",
            elem_id="source",
            max_length=4096,
        )
        of["base_model"] = _text(
            label="Model on the Hub",
            placeholder="org/name",
            info="For a folder: which model it is, so that the card can name it and its licence.",
            elem_id="base-model",
            max_length=200,
            visible=not space,
        )
        of["number_format"] = gr.Radio(
            [("NVFP4 · 16 values a scale", "nvfp4"), ("MXFP4 · 32 values a scale", "mxfp4")],
            value="nvfp4",
            label=LABELS["format"],
            elem_id="format",
        )
        of["engine"] = _choose(gr.Radio, "engine", settled, info=None if space else _availability())
        with gr.Row(elem_classes="pair"):
            of["layout"] = _choose(gr.Dropdown, "layout", settled, info="How tensors are named.")
            of["mode"] = _choose(gr.Dropdown, "mode", settled, info="How scales are chosen.")
        of["quantize"] = _text(
            forms.QUANTIZE,
            label=LABELS["quantize"],
            lines=2,
            info="Globs over module names, one a line.",
            elem_id="quantize",
        )
        of["keep"] = _text(
            label=LABELS["keep"],
            lines=1,
            placeholder="*.layers.0.*",
            info="Globs that win over those above. What no glob matches is kept as it is.",
            elem_id="keep",
        )
    return start, told


def _precision(of: dict[str, Any], settled: dict[str, choices.Choice]) -> None:
    with gr.Group():
        with gr.Row(elem_classes="pair"):
            of["activations"] = _choose(gr.Dropdown, "activations", settled)
            of["kv_cache"] = _choose(gr.Dropdown, "kv_cache", settled)
        of["statistics"] = _text(
            label=LABELS["statistics"],
            placeholder="statistics.safetensors",
            info="What `publisher calibrate` measured, for engine native. Without it NVFP4 is weight-only.",
            elem_id="statistics",
        )
        of["calibration"] = _text(
            label=LABELS["calibration.data"],
            placeholder="calibration.jsonl",
            info="Text or JSONL that engine modelopt runs through the model. Without one the result is weight-only.",
            elem_id="calibration",
            visible=False,
        )
        of["samples"] = gr.Number(
            forms.SAMPLES, label=LABELS["calibration.samples"], minimum=1, precision=0, elem_id="samples", visible=False
        )


def _run(of: dict[str, Any]) -> None:
    with gr.Group():
        of["evaluation"] = _text(
            label=LABELS["evaluation.data"],
            info="Its weight-only perplexity is measured for the card.",
            elem_id="evaluation",
        )
        of["card"] = _text(
            label=LABELS["card"],
            info="What only a person can say on the model card.",
            elem_id="card-toml",
        )
        of["name"] = _text(
            label=LABELS["name"],
            placeholder="the repository's",
            elem_id="run-name",
            max_length=96,
        )
        with gr.Row(elem_classes="pair"):
            of["device"] = gr.Dropdown(
                ["auto", "all", "cpu", "cuda:0", "cuda:1"],
                value="auto",
                allow_custom_value=True,
                label="Device",
                elem_id="device",
                min_width=110,
            )
            of["workers"] = gr.Number(
                None,
                label="Processes",
                placeholder="chosen",
                minimum=0,
                maximum=forms.MAX_WORKERS,
                precision=0,
                elem_id="workers",
                min_width=110,
            )
            of["shard_size"] = _text(
                label=LABELS["shard_size"],
                placeholder="5GB",
                elem_id="shard-size",
                min_width=110,
            )


def _more(of: dict[str, Any]) -> None:
    of["more"] = _text(
        label="YAML",
        info="Keys of a recipe that have no field above: mixed precision, pruning, the details of texts.",
        placeholder='also: [{format: fp8, quantize: ["*.self_attn.*_proj"]}]\nsparsity: paired-4:8\n'
        "calibration: {sequence_length: 2048, seed: 1}\nevaluation: {windows: 64}",
        lines=5,
        max_lines=20,
        elem_id="more",
        max_length=forms.MAX_MORE,
    )


def _target(of: dict[str, Any], space: bool) -> None:
    with gr.Group():
        of["repo"] = _text(
            label=LABELS["target.repo"],
            placeholder="org/name-NVFP4",
            elem_id="repo",
            max_length=200,
        )
        of["gate"] = gr.Radio(
            [("a person approves", "manual"), ("approved at once", "auto"), ("no gate", "off")],
            value="manual",
            label=LABELS["target.gate"],
            info="What visitors must do before they can download.",
            elem_id="gate",
        )
        of["to"] = gr.Radio(
            [("Folder", forms.FOLDER), ("Hugging Face Hub", forms.HUB)],
            value=forms.HUB if space else forms.FOLDER,
            label="Target",
            elem_id="to",
        )
        of["folder"] = _text("published", label="Folder to publish to", elem_id="folder", visible=not space)
        of["private"] = gr.Checkbox(False, label=LABELS["target.private"], elem_id="private")


def _choose(kind: Any, field: str, settled: dict[str, choices.Choice], *, info: str | None = None) -> Any:
    choice = settled[field]
    short: dict[str, Any] = {"filterable": False} if kind is gr.Dropdown else {}
    return kind(
        list(choice.offered),
        value=choice.value,
        label=LABELS[field],
        info=info,
        elem_id=field.replace("_", "-"),
        **short,
    )


def _availability() -> str:
    told = [
        f"{name} is ready" if not lacking else f"{name} lacks {lacking} (pip install 'fp4-publisher[{name}]')"
        for name, lacking in place.engines().items()
    ]
    return "On this machine: " + "; ".join(told) + "."


# --- what follows what ---------------------------------------------------------------------------------------------

ENGINE_FIELDS = {"statistics": "native", "workers": "native", "calibration": "modelopt", "samples": "modelopt"}


def _follow(found: Fields) -> None:
    of = found.of
    following = [of[field] for field in choices.FOLLOWING]
    engine_fields = [of[field] for field in ENGINE_FIELDS]
    # A radio's `change` would come in the middle of a ready recipe, whose half can be chosen nowhere; a dropdown has no
    # `select` by the keyboard, and its `input` comes twice.
    gr.on(
        [of["number_format"].select, of["engine"].select, of["layout"].change],
        lambda number_format, *chosen: followed(number_format, chosen),
        [of["number_format"], *following],
        [*following, *engine_fields],
        trigger_mode="always_last",
        preprocess=False,  # what is chosen may just have been taken away; `settle` sees to it
        **QUIET,
    )
    of["to"].change(lambda value: gr.Textbox(visible=value == forms.FOLDER), of["to"], of["folder"], **QUIET)

    def begin(values: dict[Any, Any]) -> dict[Any, Any]:
        form = Form.of({field: values[component] for field, component in of.items() if component in values})
        name = values[found.start] or ready.SCRATCH
        return {
            **{of[field]: update for field, update in filled(name, form).items()},
            found.told: gr.HTML(ready.told(name), visible=bool(name)),
            found.precision: gr.Accordion(open=bool(name)),
            found.more: gr.Accordion(open=bool(ready.fill(name, form).more)),
        }

    found.start.change(
        begin,
        {found.start, of["source"], *(of[field] for field in ready.OWN)},
        [*of.values(), found.told, found.precision, found.more],
        **QUIET,
    )


def followed(number_format: str, chosen: Iterable[str]) -> list[Any]:
    """Updates of `choices.FOLLOWING` and of the fields that belong to one engine."""
    found = _settle(number_format, dict(zip(choices.FOLLOWING, chosen, strict=True)))
    updates = [_settled(field, choice) for field, choice in found.items()]
    engine = found["engine"].value
    return [*updates, *(gr.update(visible=owner == engine) for owner in ENGINE_FIELDS.values())]


def settled(values: dict[str, Any]) -> dict[str, Any]:
    """What the fields hold, with choices that a format just took away replaced as they are about to be on the page."""
    found = _settle(values["number_format"], {field: values[field] for field in choices.FOLLOWING})
    return {**values, **{field: choice.value for field, choice in found.items()}}


def _settle(number_format: Any, chosen: dict[str, Any]) -> dict[str, choices.Choice]:
    return choices.settle(number_format if number_format in ("nvfp4", "mxfp4") else "nvfp4", chosen)


def _settled(field: str, choice: choices.Choice) -> Any:
    kind = gr.Radio if field == "engine" else gr.Dropdown
    return kind(choices=list(choice.offered), value=choice.value)


def filled(name: str, form: Form) -> dict[str, Any]:
    """Field to its update when the form starts from a ready recipe, or from scratch.

    Args:
        name: which; empty for none.
        form: what the fields hold.
    """
    whole = ready.fill(name, form)
    settled = choices.settle(whole.number_format, {field: getattr(whole, field) for field in choices.FOLLOWING})
    updates: dict[str, Any] = {field: gr.update(value=getattr(whole, field)) for field in Form.__dataclass_fields__}
    updates |= {field: _settled(field, choice) for field, choice in settled.items()}
    updates["workers"] = gr.update(value=whole.workers or None)
    for field, owner in ENGINE_FIELDS.items():
        updates[field]["visible"] = owner == settled["engine"].value
    return updates
