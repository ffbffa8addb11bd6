"""The second page: any run of this machine, as its directory shows it; it outlives the tab that started it.

A timer asks while a run is at work. What has not changed is not sent again, so nothing flickers and a reader keeps
their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from publisher.errors import PublisherError
from publisher.runners import local
from publisher.runners.local import Job
from publisher.ui import markup, place, reports, runview
from publisher.ui.markup import Html
from publisher.ui.runview import StageState, Told, Watch
from publisher.units import format_duration

INTERVAL = 1.0  # seconds
WORDS = {
    "running": ("info", "Running"),
    "done": ("good", "Finished"),
    "findings": ("error", "Stopped by the rules"),
    "failed": ("error", "Failed"),
    "interrupted": ("warning", "Stopped, can go on"),
    "killed": ("warning", "Killed, can go on"),
}
SIGNS = {"waiting": "○", "running": "▸", "done": "✓", "skipped": "–", "failed": "✕", "stopped": "■"}
EMPTY = "No run is chosen. Start one on the first page, or with “publisher push recipe.yaml” in this folder."
TAG = re.compile(r"<(?!https?://)(?=[A-Za-z/!?])")
HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


@dataclass(frozen=True, slots=True)
class RunsPage:
    """What other parts of the app connect to."""

    picker: gr.Dropdown
    look: list[Any]  # function, inputs and outputs that show the picked run
    relist: Callable[[Any], Any]
    known: Callable[[Any], bool]


def build(current: gr.BrowserState, root: Path = local.RUNS) -> RunsPage:
    """Lay out the page inside the current block.

    Args:
        current: the name of the run the browser looks at.
        root: the folder of the runs.
    """
    watch = Watch()
    with gr.Row(elem_classes="pick"):
        picker = gr.Dropdown(
            runview.listed(root), value=None, label="Run", scale=8, elem_id="run", filterable=True, min_width=260
        )
        refresh = gr.Button("Refresh", scale=0, min_width=140, elem_id="refresh")
    status = gr.HTML(_empty(), elem_id="status")
    with gr.Row(elem_classes="actions"):
        cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel", scale=0, min_width=160)
        resume = gr.Button("Resume", variant="primary", visible=False, elem_id="resume", scale=0, min_width=160)
    message = gr.HTML(elem_id="run-message")
    with gr.Tabs(overflow_behavior="wrap"):
        with gr.Tab("Findings", id="findings"):
            severity, search = filters("run")
            findings = gr.HTML(reports.report_html(()), elem_id="findings")
        with gr.Tab("Model card", id="card"):
            with gr.Accordion("Front matter", open=False):
                front = gr.Code("", language="yaml", interactive=False, show_label=False, elem_id="front")
            card = gr.Markdown(_no_card(), sanitize_html=True, elem_id="card", elem_classes="card", latex_delimiters=[])
        with gr.Tab("Publication", id="publication"):
            record = gr.HTML(_record({}, ()), elem_id="record")
        with gr.Tab("Log", id="log"):
            log = gr.HTML(elem_id="log")
    timer = gr.Timer(INTERVAL, active=False)
    seen = gr.State(None)
    outputs = [status, cancel, resume, log, findings, front, card, record, timer, seen]

    def look(name: Any, severity: str, search: str | None, seen: Any) -> tuple[Any, ...]:
        try:
            path = runview.find(root, name)
        except PublisherError:
            return _nothing()
        job, told = local.job(path), watch.told(path)
        left = (str(path), runview.marks(path))
        fresh = (gr.skip(),) * 4 if seen == left else _left(path, severity, search)
        running = job.status == "running"
        state = (
            _status(job, told),
            gr.Button(visible=running),
            gr.Button(visible=job.status in ("interrupted", "killed", "failed", "findings")),
            _log(told, path),
        )
        return (*state, *fresh, gr.Timer(active=running), left)

    def opened(name: Any, severity: str, search: str | None) -> tuple[Any, ...]:
        return (*look(name, severity, search, None), name, "")

    def filtered(name: Any, severity: str, search: str | None) -> str:
        try:
            return reports.report_html(runview.left(runview.find(root, name)).reports, severity=severity, search=search)
        except PublisherError:
            return reports.report_html(())

    def stop(name: Any) -> str:
        try:
            asked = local.cancel(runview.find(root, name))
        except PublisherError as error:
            return markup.notice("error", error.message, hint=error.hint)
        said = "Asked to stop; what is finished is kept." if asked else "It is not running any more."
        return markup.notice("info", said)

    def go_on(name: Any) -> str:
        try:
            path = runview.find(root, name)
            arguments = runview.resume_arguments(local.job(path))
            local.start(arguments, path, env=place.command_environment(None, space=False))
        except PublisherError as error:
            return markup.notice("error", error.message, hint=error.hint)
        return ""

    def relist(name: Any) -> Any:
        return gr.Dropdown(runview.listed(root), value=name if known(name) else None)

    def known(name: Any) -> bool:
        return name in {value for _, value in runview.listed(root)}

    view = [picker, severity, search, seen]
    timer.tick(look, view, outputs, **HIDDEN)
    picker.input(opened, view[:3], [*outputs, current, message], **HIDDEN)
    refresh.click(relist, picker, picker, **HIDDEN).then(look, view, outputs, **HIDDEN)
    severity.change(filtered, view[:3], findings, **HIDDEN)
    search.change(filtered, view[:3], findings, trigger_mode="always_last", **HIDDEN)
    cancel.click(stop, picker, message, **HIDDEN).then(look, view, outputs, **HIDDEN)
    resume.click(go_on, picker, message, **HIDDEN).then(look, view, outputs, **HIDDEN)
    return RunsPage(picker=picker, look=[look, view, outputs], relist=relist, known=known)


def filters(page: str) -> tuple[gr.Radio, gr.Textbox]:
    """The two fields that filter findings."""
    with gr.Row(elem_classes="filters"):
        severity = gr.Radio(
            [("all", reports.ALL), ("errors", "error"), ("warnings", "warning"), ("information", "info")],
            value=reports.ALL,
            label="Show",
            elem_id=f"{page}-severity",
            min_width=280,
        )
        search = gr.Textbox(
            label="Search", placeholder="code, tensor, engine …", elem_id=f"{page}-search", min_width=200
        )
    return severity, search


def _nothing() -> tuple[Any, ...]:
    hidden = gr.Button(visible=False)
    shown = (_empty(), hidden, hidden, "", reports.report_html(()), "", _no_card(), _record({}, ()))
    return (*shown, gr.Timer(active=False), None)


def _empty() -> Html:
    return markup.element("p", markup.text(EMPTY), kind="empty")


def _no_card() -> str:
    return "*The card is written when the checkpoint is validated.*"


def _left(path: Path, severity: str, search: str | None) -> tuple[Any, ...]:
    left = runview.left(path)
    return (
        reports.report_html(left.reports, severity=severity, search=search),
        left.front,
        calm(left.card) or _no_card(),
        _record(left.push, left.licences),
    )


def calm(card: str) -> str:
    """A card that runs nothing and fetches nothing when it is looked at.

    Outside fenced code, what would open a tag does not, and pictures become links: an invisible joiner parts the signs.
    """
    fenced, lines = False, []
    for line in card.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        lines.append(line if fenced else TAG.sub("<\u2060", line.replace("![", "!\u2060[")))
    return "\n".join(lines)


# --- the run -------------------------------------------------------------------------------------------------------


def _status(job: Job, told: Told) -> Html:
    kind, word = WORDS.get(job.status, ("info", job.status))
    took = runview.elapsed(job)
    pieces = [
        markup.element(
            "div",
            markup.element("h2", markup.text(job.name)),
            markup.badge(kind, word),
            markup.element("span", markup.text(took), kind="took"),
            kind="runhead",
        ),
        markup.element(
            "ol", *(_stage(stage) for stage in runview.stages(told, job)), kind="stages", aria_label="Stages"
        ),
    ]
    how = runview.progress(told) if job.status == "running" else None
    if how is not None:
        pieces.append(_bar(how))
    if job.status in ("failed", "findings", "interrupted", "killed"):
        pieces.append(markup.notice(kind, job.message or word, hint=job.hint))
    return markup.element("section", *pieces, kind="run", aria_label="Run", data_status=job.status)


def _stage(stage: StageState) -> Html:
    took = format_duration(stage.ended - stage.began) if stage.ended and stage.ended - stage.began >= 0.5 else ""
    return markup.element(
        "li",
        markup.element("span", markup.text(SIGNS[stage.state]), kind="sign", aria_hidden="true"),
        markup.element("b", markup.text(stage.name)),
        markup.element("span", markup.text(stage.state + (f", {took}" if took else "")), kind="state"),
        markup.element("span", markup.text(stage.message), kind="said"),
        kind=f"stage {stage.state}",
        data_stage=stage.name,
    )


def _bar(how: runview.Progress) -> Html:
    share = how.share or 0.0
    return markup.element(
        "div",
        markup.element(
            "div",
            markup.element("i", style=f"width:{share:.1%}"),
            kind="progress",
            role="progressbar",
            aria_label=how.stage,
            aria_valuenow=f"{share * 100:.0f}",
            aria_valuemin="0",
            aria_valuemax="100",
        ),
        markup.element("p", markup.element("b", markup.text(f"{share:.0%}")), markup.text(f" {how.text}")),
        kind="howfar",
    )


def _log(told: Told, path: Path) -> Html:
    lines = "\n".join(told.lines) or _console(path) or "Nothing was told yet."
    return markup.element("pre", Html("\n".join(map(markup.text, lines.splitlines()))), kind="log", tabindex="0")


def _console(path: Path) -> str:
    try:
        with (path / "console.log").open("rb") as file:
            return file.read(4000).decode(errors="replace")
    except OSError:
        return ""


def _record(push: Any, licences: Any) -> Html:
    """The record of the push and the digests of the licence."""
    if not push and not licences:
        return markup.element("p", markup.text("Nothing is published yet."), kind="empty")
    pieces = []
    if push:
        verified = push.get("verified") is True
        pieces.append(
            markup.notice(
                "good" if verified else "warning",
                "Published, read back and equal to the manifest" if verified else "Published, not verified",
                hint=f"{push.get('visibility')}, gate {push.get('gate')}",
            )
        )
        keys = ("repo", "url", "commit", "files", "bytes", "root_digest")
        pieces.append(
            markup.facts((key.replace("_", " "), str(push[key])) for key in keys if push.get(key) is not None)
        )
    rows = [[markup.code(path), markup.code(digest)] for path, digest in licences]
    if rows:
        pieces.append(markup.table(("File", "sha256"), rows, caption="Terms, byte for byte as in the source"))
    else:
        pieces.append(markup.notice("warning", "The source ships no licence file"))
    return markup.element("div", *pieces, kind="page")
