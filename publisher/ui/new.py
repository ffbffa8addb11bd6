"""The first page: choose a source, a format and a target; see the plan, the recipe and the command; start.

Planning runs `publisher plan` and starting runs `publisher push` detached. What is started is the recipe that was
planned and shown, never what the form says by then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.journal import RunDirectory
from publisher.plan.model import Recipe
from publisher.runners import local
from publisher.ui import fields as fieldset
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
# The button stands at the form's end, the plan at the page's top.
SHOW_PLAN = "() => { document.getElementById('plan-column').scrollIntoView({block: 'start'}); return []; }"


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
    with gr.Row(equal_height=False, elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            fields = fieldset.build(space=space).of
            plan = gr.Button("Make plan", variant="primary", size="lg", elem_id="make-plan")
        with gr.Column(scale=7, min_width=320, elem_id="plan-column"):
            fieldset.heading("3", "Plan")
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
        filled = fieldset.settled({name: values[component] for name, component in fields.items()})
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
        preprocess=False,  # a choice that is just being replaced is for the reader of recipes to judge
        concurrency_limit=4,
    )
    plan.click(None, None, None, js=SHOW_PLAN, api_visibility="private")
    gr.on(
        [component.change for component in fields.values()],
        lambda before: (gr.Button(interactive=False), None, _stale() if before else gr.skip()),
        planned,
        [start, planned, message],
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="always_last",
    )
    return NewPage(start=start, planned=planned, message=message)


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
        arguments: of the push but for the recipe: where to, and how the work is shared out.
        ready: whether it can be started here.
    """

    html: str
    command: str
    recipe: str
    card: str
    run_dir: str
    arguments: tuple[str, ...]
    ready: bool


def planning(filled: Form | Mapping[str, Any], *, space: bool, token: str | None) -> Iterator[str | Planned]:
    """Plan a form, or what a page's fields hold: yields what to show while waiting, a `Planned` or an error last."""
    try:
        form = filled if isinstance(filled, Form) else Form.of(filled)
        made = forms.recipe(form, Path.cwd(), space=space)
        text = forms.recipe_text(form, made, space=space)
        with tempfile.TemporaryDirectory(prefix="publisher-plan-") as folder:
            file = Path(folder) / "recipe.yaml"
            file.write_text(forms.planned_text(form, made, space=space))
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
    arguments = tuple(forms.push_arguments(form, space=space))
    stopped = bool(plan.problems) or any(lack.get("fatal") for lack in machine)
    lacking = None if space or stopped else answer.error  # the card's words; on a Space card.toml is not looked at
    said = markup.notice("error", lacking.message, hint=lacking.hint) if lacking else ""
    return Planned(
        html=said + plan_html(plan, machine),
        command=forms.shell(["push", "recipe.yaml", *arguments]),
        recipe=text,
        card=card,
        run_dir=str(document.get("run_dir", "")),
        arguments=arguments,
        ready=not stopped and not lacking,
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
    arguments = ["push", str(recipe), *view.arguments, "--yes"]
    local.start(arguments, run_dir, env=place.command_environment(None, space=False))
    return run_dir.name
