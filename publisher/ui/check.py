"""The third page: check any checkpoint, or see the model card its files make; a repository is read by its headers.

Both are verbs of the command line. On a Space a visitor names repositories only, and their own login decides which.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from publisher.errors import PublisherError
from publisher.ui import markup, place, reports
from publisher.ui.commands import Answer, ask
from publisher.ui.new import busy
from publisher.ui.runs import HIDDEN, calm, filters
from publisher.ui.runview import split_card

SPACE_LIMIT = 300.0  # seconds
EMPTY = "Nothing is checked yet. A repository is read by its headers, a few megabytes even for the largest models."
LOGIN = "Sign in above with an account that may read it, after accepting its terms on its page."


def build(*, space: bool) -> None:
    """Lay out the page inside the current block.

    Args:
        space: whether it is served to strangers.
    """
    folder = "" if space else " or a folder"
    with gr.Group():
        path = gr.Textbox(
            label="Checkpoint",
            placeholder=f"hf://org/name{folder}",
            info=None if space else "A folder is read in full, a repository by its headers.",
            elem_id="check-path",
            max_length=4096,
        )
        source = gr.Textbox(
            label="Quantized from",
            placeholder=f"hf://org/name{folder}",
            info="Optional for checking: with it, licence and tensors are compared. The card needs it.",
            elem_id="check-source",
            max_length=4096,
        )
    with gr.Row(elem_classes="actions"):
        validate = gr.Button("Check", variant="primary", elem_id="check", scale=0, min_width=160)
        preview = gr.Button("Show the card", elem_id="show-card", scale=0, min_width=200)
    severity, search = filters("check")
    shown = gr.HTML(markup.element("p", markup.text(EMPTY), kind="empty"), elem_id="check-result")
    with gr.Column(visible=False) as sheet:
        with gr.Accordion("Front matter", open=False):
            front = gr.Code("", language="yaml", interactive=False, show_label=False, elem_id="check-front")
        card = gr.Markdown(sanitize_html=True, elem_id="check-card", elem_classes="card", latex_delimiters=[])
    report = gr.State(None)

    def run_check(
        path: str | None, source: str | None, severity: str, search: str | None, token: gr.OAuthToken | None = None
    ) -> Iterator[tuple[Any, ...]]:
        arguments = check_arguments(path, source, space=space)
        for step in answers(arguments, f"Checking {path}", token, space=space):
            document = step.document if isinstance(step, Answer) else None
            html = reports.report_html([document], severity=severity, search=search) if document else step
            yield html, document, gr.Column(visible=False)

    def run_card(path: str | None, source: str | None, token: gr.OAuthToken | None = None) -> Iterator[tuple[Any, ...]]:
        arguments = card_arguments(path, source, space=space)
        for step in answers(arguments, f"Reading {path}", token, space=space):
            if isinstance(step, Answer) and step.document:
                head, body = split_card(str(step.document.get("card", "")))
                yield "", None, gr.Column(visible=True), head, calm(body)
            else:
                yield step, None, gr.Column(visible=False), "", ""

    def filtered(report: Any, severity: str, search: str | None) -> Any:
        return reports.report_html([report], severity=severity, search=search) if report else gr.skip()

    waits = {**HIDDEN, "concurrency_limit": 4}
    validate.click(run_check, [path, source, severity, search], [shown, report, sheet], **waits)
    path.submit(run_check, [path, source, severity, search], [shown, report, sheet], **waits)
    preview.click(run_card, [path, source], [shown, report, sheet, front, card], **waits)
    severity.change(filtered, [report, severity, search], shown, **HIDDEN)
    search.change(filtered, [report, severity, search], shown, trigger_mode="always_last", **HIDDEN)


def check_arguments(path: str | None, source: str | None, *, space: bool) -> list[str] | PublisherError:
    """`publisher validate` for what was typed, or why not."""
    return _arguments("validate", path, source, space=space)


def card_arguments(path: str | None, source: str | None, *, space: bool) -> list[str] | PublisherError:
    """`publisher card` for what was typed, or why not."""
    if path and not (source or "").strip():
        return PublisherError(
            "A card says what the model was quantized from.", hint="Fill in “Quantized from” to see the card."
        )
    return _arguments("card", path, source, space=space)


def _arguments(verb: str, path: str | None, source: str | None, *, space: bool) -> list[str] | PublisherError:
    path, source = (path or "").strip(), (source or "").strip()
    if not path:
        return PublisherError(
            "No checkpoint is named.", hint="Write hf://org/name" + ("." if space else " or a folder.")
        )
    try:
        if space:
            place.require_hub(path, "Checkpoint")
            if source:
                place.require_hub(source, "Quantized from")
    except PublisherError as error:
        return error
    level = ["--level", "headers"] if space and verb == "validate" else []
    return [verb, "--format", "json", *level, *([f"--source={source}"] if source else []), "--", path]


def answers(arguments: list[str] | PublisherError, what: str, token: Any, *, space: bool) -> Iterator[str | Answer]:
    """What to show while a verb runs, then its answer where it has a document, else a box with what is wrong."""
    if isinstance(arguments, PublisherError):
        yield markup.notice("error", arguments.message, hint=arguments.hint)
        return
    login = token.token if token is not None and space else None
    environment = place.command_environment(login, space=space)
    for step in ask(arguments, environment, limit=SPACE_LIMIT if space else None):
        if not isinstance(step, Answer):
            yield busy(what, step.seconds)
        elif step.document is not None:
            yield step
        else:
            error = step.error or PublisherError("The command gave no result.")
            yield markup.notice("error", error.message, hint=LOGIN if space and step.exit_code == 3 else error.hint)
