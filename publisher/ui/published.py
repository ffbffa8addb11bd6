"""The fourth page: what is published, compared with what its publisher says, and who may download it.

Three verbs of the command line: `verify`, `card lint` and `access`. On a Space a visitor names repositories only and
reads with their own login; deciding on requests is left to a machine of one's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from publisher.errors import PublisherError
from publisher.ui import markup, place, reports
from publisher.ui.check import LOGIN, answers
from publisher.ui.commands import Answer
from publisher.ui.markup import Html
from publisher.ui.runs import HIDDEN
from publisher.units import format_bytes

SHOWN = 200
EMPTY = "Name a published repository: its files are compared with its manifest, its licence, gate and card looked at."
STATES = ("pending", "accepted", "rejected", "all")
DECISIONS = {"accept": "Accept", "reject": "Reject", "grant": "Grant"}


def build(*, space: bool) -> None:
    """Lay out the page inside the current block.

    Args:
        space: whether it is served to strangers.
    """
    named = gr.Textbox(
        label="Published at",
        placeholder="hf://org/name" + ("" if space else " or folder:ROOT/org/name"),
        info="Every stored file is compared by digest; what the Hub's listing does not tell is downloaded and hashed.",
        elem_id="published-place",
        max_length=4096,
    )
    with gr.Row(elem_classes="actions"):
        verify = gr.Button("Verify", variant="primary", elem_id="verify", scale=0, min_width=160)
        lint = gr.Button("Check the card's claims", elem_id="lint", scale=0, min_width=220)
    shown = gr.HTML(_quiet(EMPTY), elem_id="published-result")

    def run_verify(path: str | None, token: gr.OAuthToken | None = None) -> Iterator[str]:
        yield from _shown(verify_arguments(path, space=space), f"Verifying {path}", verification_html, token, space)

    def run_lint(path: str | None, token: gr.OAuthToken | None = None) -> Iterator[str]:
        yield from _shown(lint_arguments(path, space=space), f"Reading {path}", _lint_html, token, space)

    waits = {**HIDDEN, "concurrency_limit": 4}
    verify.click(run_verify, named, shown, **waits)
    named.submit(run_verify, named, shown, **waits)
    lint.click(run_lint, named, shown, **waits)
    if not space:
        _build_access(named)


def _build_access(named: gr.Textbox) -> None:
    with gr.Accordion("Access requests", open=False, elem_id="access"):
        with gr.Row(elem_classes="pick"):
            state = gr.Radio(list(STATES), value="pending", label="Show requests that are", elem_id="access-state")
            listing = gr.Button("List", elem_id="access-list", scale=0, min_width=140)
        requests = gr.HTML(_quiet("Nothing is listed yet."), elem_id="access-result")
        with gr.Row(elem_classes="pick"):
            who = gr.Textbox(label="Users", placeholder="ada, grace", elem_id="access-who", scale=4, min_width=220)
            reason = gr.Textbox(label="What the rejected are told", elem_id="access-reason", scale=4, min_width=220)
        with gr.Row(elem_classes="actions"):
            buttons = {
                action: gr.Button(word, elem_id=f"access-{action}", scale=0, min_width=140)
                for action, word in DECISIONS.items()
            }
        decided = gr.HTML(elem_id="access-message")

    def run_list(path: str | None, state: str) -> Iterator[str]:
        yield from _shown(list_arguments(path, state), f"Asking who wants {path}", requests_html, None, False)

    def run_decide(action: str, path: str | None, who: str | None, reason: str | None) -> Iterator[str]:
        arguments = decide_arguments(action, path, who, reason)
        yield from _shown(arguments, f"Telling the Hub about {path}", decisions_html, None, False)

    listing.click(run_list, [named, state], requests, **HIDDEN)
    for action, button in buttons.items():
        given = gr.State(action)
        button.click(run_decide, [given, named, who, reason], decided, **HIDDEN).then(
            run_list, [named, state], requests, **HIDDEN
        )


# --- arguments -----------------------------------------------------------------------------------------------------


def verify_arguments(path: str | None, *, space: bool) -> list[str] | PublisherError:
    """`publisher verify` for what was typed, or why not."""
    return _place(path, space) or ["verify", "--format", "json", "--", _typed(path)]


def lint_arguments(path: str | None, *, space: bool) -> list[str] | PublisherError:
    """`publisher card lint` for what was typed, or why not; of a published folder, its files."""
    typed = _typed(path)
    files = f"{typed.removeprefix('folder:')}/tree" if typed.startswith("folder:") else typed
    return _place(path, space) or ["card", "lint", "--format", "json", "--complete", "--", files]


def list_arguments(path: str | None, state: str) -> list[str] | PublisherError:
    """`publisher access list` for what was typed, or why not."""
    shown = state if state in STATES else "pending"
    return _place(path, False) or ["access", "--format", "json", "--state", shown, "--", "list", _typed(path)]


def decide_arguments(action: str, path: str | None, who: str | None, reason: str | None) -> list[str] | PublisherError:
    """`publisher access accept|reject|grant` for users typed with commas or spaces between, or why not."""
    users = (who or "").replace(",", " ").split()
    if action not in DECISIONS:
        return PublisherError(f"{action[:40]!r} is no decision.", hint="Accept, reject or grant.")
    if not users:
        return PublisherError("Nobody is named.", hint="Write the users' names, with commas between.")
    told = [f"--reason={(reason or '').strip()}"] if action == "reject" and (reason or "").strip() else []
    return _place(path, False) or [
        *("access", "--format", "json", "--yes"),
        *told,
        *("--", action, _typed(path), *users),
    ]


def _typed(path: str | None) -> str:
    return (path or "").strip()


def _place(path: str | None, space: bool) -> PublisherError | None:
    if not _typed(path):
        return PublisherError("No repository is named.", hint="Write hf://org/name.")
    try:
        if space:
            place.require_hub(_typed(path), "Published at")
    except PublisherError as error:
        return error
    return None


# --- answers -------------------------------------------------------------------------------------------------------


def _shown(
    arguments: list[str] | PublisherError, what: str, show: Any, token: gr.OAuthToken | None, space: bool
) -> Iterator[str]:
    for step in answers(arguments, what, token, space=space):
        if not isinstance(step, Answer):
            yield step
            continue
        boxes = [show(step.document)]
        if step.error is not None:
            hint = LOGIN if space and step.exit_code == 3 else step.error.hint
            boxes.append(markup.notice("error", step.error.message, hint=hint))
        yield markup.element("div", *boxes, kind="page")


def verification_html(document: Mapping[str, Any]) -> Html:
    """The answer of `publisher verify`: what equals, what differs, what could not be looked at."""
    settings = document.get("settings")
    if not isinstance(settings, Mapping):
        return markup.notice("error", f"There is no repository at {document.get('place')}.")
    verified = document.get("verified") is True
    state = f"{settings.get('visibility')}, gate {settings.get('gate')}"
    title = "Equals its manifest, byte for byte" if verified else "Is not what its publisher says"
    size = document.get("bytes")
    facts = [
        ("repository", str(document.get("place"))),
        ("files", f"{document.get('files')}"),
        ("bytes", format_bytes(size) if isinstance(size, int) else "?"),
        ("root digest", str(document.get("root_digest"))),
    ]
    pieces = [markup.notice("good" if verified else "error", title, hint=state), markup.facts(facts)]
    pieces += _remarks("error", "Problems", document.get("problems"))
    pieces += _remarks("warning", "Worth a look", document.get("warnings"))
    pieces += _remarks("info", "Not looked at", document.get("not_checked"))
    rows = [
        [markup.code(str(item.get("path"))), markup.text(item.get("kind")), *map(_value, _sides(item))]
        for item in _mappings(document.get("differences"))[:SHOWN]
    ]
    if rows:
        pieces.append(markup.table(("File", "Differs in", "Manifest", "Stored"), rows, caption="Files that differ"))
    return markup.element("div", *pieces, kind="page")


def requests_html(document: Mapping[str, Any]) -> Html:
    """The answer of `publisher access list`; what people wrote is shown as text."""
    found = _mappings(document.get("requests"))
    if not found:
        return _quiet("Nobody is in this list.")
    rows = []
    for item in found[:SHOWN]:
        form = item.get("form")
        wrote = "; ".join(f"{k}: {v}" for k, v in form.items()) if isinstance(form, Mapping) else ""
        who = item.get("user") or item.get("request")
        rows.append([markup.code(str(who)), *map(_value, (item.get("name"), item.get("email"), item.get("state")))])
        rows[-1] += [_value(item.get("time")), markup.text(wrote)]
    more = f"; {len(found) - SHOWN:,} more are not shown" if len(found) > SHOWN else ""
    head = ("User", "Name", "Mail", "State", "Asked", "Wrote")
    return markup.table(head, rows, caption=f"{len(found):,} request(s){more}")


def decisions_html(document: Mapping[str, Any]) -> Html:
    """The answer of `publisher access accept|reject|grant`: what the Hub holds now, request by request."""
    made = _mappings(document.get("decisions"))
    if not made:
        return markup.notice("info", "Nothing was changed: it is so already.")
    done = [f"{item.get('who')}: {item.get('state')}" for item in made if not item.get("error")]
    failed = [f"{item.get('who')}: {item.get('error')}" for item in made if item.get("error")]
    boxes = [markup.notice("good", "Decided", done)] if done else []
    boxes += [markup.notice("error", "The Hub did not take", failed)] if failed else []
    return markup.element("div", *boxes, kind="page")


def _lint_html(document: Mapping[str, Any]) -> Html:
    return reports.report_html([document])


def _remarks(kind: str, title: str, remarks: Any) -> list[Html]:
    lines = [f"{item.get('check')}: {item.get('message')}" for item in _mappings(remarks)]
    return [markup.notice(kind, title, lines)] if lines else []


def _sides(item: Mapping[str, Any]) -> tuple[Any, Any]:
    return item.get("expected"), item.get("actual")


def _value(value: Any) -> Html:
    return markup.text("" if value is None else str(value))


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _quiet(words: str) -> Html:
    return markup.element("p", markup.text(words), kind="empty")
