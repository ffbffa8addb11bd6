"""The first page: choose a source, a format and a target; see the plan, the recipe and the command; start.

Planning runs `publisher plan` and starting runs `publisher push` detached. What is started is the recipe that was
planned and shown, never what the form says by then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.journal import RunDirectory
from publisher.plan.model import Recipe
from publisher.runners import local
from publisher.ui import form as forms
from publisher.ui import markup, place
from publisher.ui.commands import Answer, ask
from publisher.ui.form import Form
from publisher.ui.planview import plan_html, read_plan

SPACE_LIMIT = 300.0  # seconds a visitor's plan may take
EMPTY = (
    "No plan yet. Fill in the form and choose “Make plan”: it reads headers only, downloads no weights, and says for "
    "every module what will happen and why."
)


@dataclass(frozen=True, slots=True)
class NewPage:
    """What other parts of the app connect to."""

    start: gr.Button
    planned: gr.State
    message: gr.HTML


def build(*, space: bool) -> NewPage:
    """Lay out the page inside the current block.

    Args:
        space: whether it is served to strangers, who can plan but not start.
    """
    fields: dict[str, Any] = {}
    with gr.Row(equal_height=False, elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            _source_fields(fields, space)
            _target_fields(fields, space)
            plan = gr.Button("Make plan", variant="primary", size="lg", elem_id="make-plan")
        with gr.Column(scale=7, min_width=320, elem_id="plan-column"):
            gr.HTML(_heading("3", "Plan"))
            shown = gr.HTML(_empty(), elem_id="plan", elem_classes="panel")
            with gr.Column(visible=False) as outcome:
                command = gr.Code(
                    label="The same from a terminal",
                    language="shell",
                    interactive=False,
                    lines=1,
                    wrap_lines=True,
                    show_line_numbers=False,
                    buttons=["copy"],
                    elem_id="command",
                )
                with gr.Accordion("Recipe", open=False):
                    recipe = gr.Code(
                        show_label=False,
                        language="yaml",
                        interactive=False,
                        buttons=["copy", "download"],
                        elem_id="recipe",
                    )
                if space:
                    gr.HTML(markup.notice("info", "Quantizing needs a node", hint=place.NODE), elem_id="node")
            start = gr.Button(
                "Start", variant="primary", size="lg", interactive=False, elem_id="start", visible=not space
            )
            message = gr.HTML(elem_id="start-message")
    planned = gr.State(None)
    outputs = [shown, command, recipe, outcome, start, planned, message]

    def make_plan(values: dict[Any, Any], token: gr.OAuthToken | None = None) -> Iterator[tuple[Any, ...]]:
        filled = Form.of({name: values[component] for name, component in fields.items()})
        login = token.token if token is not None and space else None
        for view in planning(filled, space=space, token=login):
            if isinstance(view, Planned):
                yield _show(view)
            else:
                yield view, gr.skip(), gr.skip(), gr.Column(visible=False), gr.Button(interactive=False), None, ""

    plan.click(
        make_plan,
        set(fields.values()),
        outputs,
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=4,
    )
    gr.on(
        [component.change for component in fields.values()],
        lambda: (gr.Button(interactive=False), None, _stale()),
        None,
        [start, planned, message],
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="always_last",
    )
    fields["number_format"].change(
        lambda value: gr.Radio(value="native", interactive=False) if value == "mxfp4" else gr.Radio(interactive=True),
        fields["number_format"],
        fields["engine"],
        show_progress="hidden",
        api_visibility="private",
    )
    fields["to"].change(
        lambda value: gr.Textbox(visible=value == forms.FOLDER),
        fields["to"],
        fields["folder"],
        show_progress="hidden",
        api_visibility="private",
    )
    return NewPage(start=start, planned=planned, message=message)


# --- the form ------------------------------------------------------------------------------------------------------


def _source_fields(fields: dict[str, Any], space: bool) -> None:
    gr.HTML(_heading("1", "Source and format"))
    with gr.Group():
        fields["source"] = gr.Textbox(
            label="Source",
            placeholder="hf://org/name" if space else "hf://org/name or a folder on this machine",
            info="An unquantized checkpoint of safetensors. A revision may follow after @.",
            elem_id="source",
            max_length=4096,
        )
        fields["base_model"] = gr.Textbox(
            label="Model on the Hub",
            placeholder="org/name",
            info="For a folder: which model it is, so that the card can name it and its licence.",
            elem_id="base-model",
            max_length=200,
            visible=not space,
        )
        fields["number_format"] = gr.Radio(
            [("NVFP4 · 16 values a scale", "nvfp4"), ("MXFP4 · 32 values a scale", "mxfp4")],
            value="nvfp4",
            label="Format",
            elem_id="format",
        )
        fields["engine"] = gr.Radio(
            [("native · streams, any size", "native"), ("modelopt · calibrates activations", "modelopt")],
            value="native",
            label="Engine",
            info=None if space else _availability(),
            elem_id="engine",
        )
        fields["quantize"] = gr.Textbox(
            forms.QUANTIZE, label="Quantize", lines=2, info="Globs over module names, one a line.", elem_id="quantize"
        )
        fields["keep"] = gr.Textbox(
            label="Keep",
            lines=1,
            placeholder="*.layers.0.*",
            info="Globs that win over those above. What no glob matches is kept as it is.",
            elem_id="keep",
        )
    with gr.Accordion("Calibration, evaluation and your part of the card", open=False):
        fields["calibration"] = gr.Textbox(
            label="Calibration text",
            placeholder="calibration.jsonl",
            info="Text or JSONL for the modelopt engine. Without one the result is weight-only.",
            elem_id="calibration",
        )
        fields["samples"] = gr.Number(forms.SAMPLES, label="Samples", minimum=1, precision=0, elem_id="samples")
        fields["evaluation"] = gr.Textbox(
            label="Evaluation text", info="Its weight-only perplexity is measured for the card.", elem_id="evaluation"
        )
        fields["card"] = gr.Textbox(
            label="card.toml", info="What only a person can say on the model card.", elem_id="card-toml"
        )


def _target_fields(fields: dict[str, Any], space: bool) -> None:
    gr.HTML(_heading("2", "Where it is published"))
    with gr.Group():
        fields["repo"] = gr.Textbox(label="Repository", placeholder="org/name-NVFP4", elem_id="repo", max_length=200)
        fields["gate"] = gr.Radio(
            [("a person approves", "manual"), ("approved at once", "auto"), ("no gate", "off")],
            value="manual",
            label="Gate",
            info="What visitors must do before they can download.",
            elem_id="gate",
        )
        fields["to"] = gr.Radio(
            [("Folder", forms.FOLDER), ("Hugging Face Hub", forms.HUB)],
            value=forms.HUB if space else forms.FOLDER,
            label="Target",
            elem_id="to",
        )
        fields["folder"] = gr.Textbox("published", label="Folder to publish to", elem_id="folder", visible=not space)
        fields["private"] = gr.Checkbox(False, label="Keep the repository private", elem_id="private")


def _availability() -> str:
    told = [
        f"{name} is ready" if not lacking else f"{name} lacks {lacking} (pip install 'fp4-publisher[{name}]')"
        for name, lacking in place.engines().items()
    ]
    return "On this machine: " + "; ".join(told) + "."


def _heading(number: str, title: str) -> str:
    return markup.element(
        "h2", markup.element("span", markup.text(number), kind="step"), markup.text(title), kind="heading"
    )


def _empty() -> str:
    return markup.element("p", markup.text(EMPTY), kind="empty")


def _stale() -> str:
    return markup.element(
        "p", markup.text("The form was changed: make the plan to see what it means now."), kind="note"
    )


# --- planning ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan as it is shown, and what starting it needs.

    Args:
        html: the plan.
        command: the equivalent command line.
        recipe: the recipe file.
        card: the card.toml beside it, empty where it needs none.
        run_dir: where it will run.
        target: the value of `--to`.
        ready: whether it can be started here.
    """

    html: str
    command: str
    recipe: str
    card: str
    run_dir: str
    target: str
    ready: bool


def planning(form: Form, *, space: bool, token: str | None) -> Iterator[str | Planned]:
    """Plan a form: yields what to show while waiting, and a `Planned` or an error box last."""
    try:
        made = forms.recipe(form, Path.cwd(), space=space)
        text = forms.recipe_text(form, made, space=space)
        with tempfile.TemporaryDirectory(prefix="publisher-plan-") as folder:
            file = Path(folder) / "recipe.yaml"
            file.write_text(text)
            card = forms.card_text(form)
            if card:
                file.with_name(forms.CARD).write_text(card)
            environment = place.command_environment(token, space=space)
            limit = SPACE_LIMIT if space else None
            for step in ask(["plan", "--format", "json", str(file)], environment, limit=limit):
                if isinstance(step, Answer):
                    yield _planned(form, made, text, card, step, space=space)
                else:
                    yield busy(f"Reading the headers of {form.source.strip()}", step.seconds)
    except PublisherError as error:
        yield markup.notice("error", error.message, hint=error.hint)


def busy(what: str, seconds: float) -> str:
    """What is going on, and since when."""
    spin = markup.element("span", kind="spin", aria_hidden="true")
    return markup.element("p", spin, markup.text(f"{what} … {seconds:.0f} s"), kind="busy", role="status")


def _planned(form: Form, made: Recipe, text: str, card: str, answer: Answer, *, space: bool) -> str | Planned:
    document = answer.document
    if document is None:
        error = answer.error or PublisherError("The plan is empty.")
        hint = error.hint
        if space and answer.exit_code == 3:
            hint = "Sign in above with an account that may read it, after accepting its terms on its page."
        return markup.notice("error", error.message, hint=hint)
    plan = read_plan(document, made)
    machine = [] if space else document.get("machine", [])  # on a Space another machine will do the work
    return Planned(
        html=plan_html(plan, machine),
        command=forms.shell(forms.push_arguments(form.target, "recipe.yaml")),
        recipe=text,
        card=card,
        run_dir=str(document.get("run_dir", "")),
        target=form.target,
        ready=not plan.problems and not any(lack.get("fatal") for lack in machine),
    )


def _show(view: Planned) -> tuple[Any, ...]:
    return (
        view.html,
        view.command,
        view.recipe if not view.card else f"{view.recipe}\n# beside it, in {forms.CARD}:\n# {view.card}",
        gr.Column(visible=True),
        gr.Button(interactive=view.ready),
        view,
        "",
    )


def start(view: Planned | None) -> str:
    """Write the recipe into its run directory and start the push detached; returns the run's name.

    Raises:
        PublisherError: nothing is planned, the run is at work already, or the command ended at once.
    """
    if view is None or not view.ready:
        raise PublisherError("There is no plan to start.", hint="Make the plan first.")
    run_dir = Path(view.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    recipe = run_dir / "recipe.yaml"
    if not RunDirectory(run_dir).busy:
        jsonio.write_atomic(recipe, view.recipe)
        if view.card:
            jsonio.write_atomic(run_dir / forms.CARD, view.card)
    arguments = forms.push_arguments(view.target, str(recipe))
    local.start([*arguments, "--yes"], run_dir, env=place.command_environment(None, space=False))
    return run_dir.name
