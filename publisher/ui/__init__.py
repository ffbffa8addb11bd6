"""The browser app: a form over the command line, on one's own machine or as a Hugging Face Space.

`build` lays the pages out, `launch` serves them. The pages hold no rule, make no Hub call and touch no tensor: they
fill a recipe, show the command, start it detached, and read its directory.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import gradio as gr

from publisher import __version__
from publisher.errors import PublisherError
from publisher.ui import check, markup, new, place, published, runs

STYLE = Path(__file__).with_name("style.css")
# The page fetches nothing from elsewhere, whatever a repository's names or card say.
HEAD = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"img-src 'self' data: blob:; media-src 'self'; "
    "frame-src 'none'; object-src 'none'; form-action 'self'\">"
)
STORED = "fp4-publisher-run"  # where a browser keeps the name of the run it looks at


def build() -> gr.Blocks:
    """The whole app; on a Space without what only a person's own machine may do."""
    space = place.on_space()
    with gr.Blocks(title="FP4 Publisher", analytics_enabled=False) as app:
        with gr.Row(elem_classes="top"):
            gr.HTML(_header(space))
            if place.can_log_in():
                gr.LoginButton(scale=0, min_width=220)
        current = gr.BrowserState(None, storage_key=STORED, secret=STORED)
        with gr.Tabs(elem_id="pages", overflow_behavior="wrap") as pages:
            with gr.Tab("Publish", id="new"):
                first = new.build(space=space)
            if not space:
                with gr.Tab("Runs", id="runs"):
                    second = runs.build(current)
            with gr.Tab("Check a checkpoint", id="check"):
                check.build(space=space)
            with gr.Tab("Published", id="published"):
                published.build(space=space)
        if not space:
            _connect(app, pages, current, first, second)
    return app


def _connect(
    app: gr.Blocks, pages: gr.Tabs, current: gr.BrowserState, first: new.NewPage, second: runs.RunsPage
) -> None:
    """Starting leads to the run; a browser that comes back finds the run it looked at."""
    quiet, relist = runs.HIDDEN, second.relist

    def start(planned: Any) -> tuple[Any, ...]:
        try:
            name = new.start(planned)
        except PublisherError as error:
            box = markup.notice("error", error.message, hint=error.hint)
            return box, gr.skip(), gr.skip(), gr.skip()
        return "", name, relist(name), gr.Tabs(selected="runs")

    def come_back(name: Any) -> tuple[Any, Any]:
        return relist(name), gr.Tabs(selected="runs") if second.known(name) else gr.skip()

    started = first.start.click(start, first.planned, [first.message, current, second.picker, pages], **quiet)
    started.then(*second.look, **quiet)
    app.load(come_back, current, [second.picker, pages], **quiet).then(*second.look, **quiet)


def _header(space: bool) -> str:
    where = "on a Space: plans, checks and cards" if space else "on this machine"
    return markup.element(
        "header",
        markup.element("h1", markup.text("FP4 Publisher")),
        markup.element(
            "p",
            markup.text("Quantize a language model to NVFP4 or MXFP4, prove the result right, publish it gated."),
        ),
        markup.element("p", markup.text(f"Version {__version__}, {where}"), kind="version"),
        kind="head",
    )


def launch(host: str | None = None, port: int | None = None) -> None:
    """Serve the app until the process ends.

    Args:
        host: address to listen on; None leaves it to gradio, which a Space needs.
        port: port to listen on, 0 for a free one; None leaves it to gradio.
    """
    app = build()
    app.queue(max_size=64).launch(
        server_name=host,
        server_port=_free(host) if port == 0 else port,
        share=False,
        run_history=False,
        ssr_mode=False,
        footer_links=["gradio", "settings"],
        theme=_theme(),
        css=STYLE.read_text(),
        head=HEAD,
        show_error=False,
    )


def _free(host: str | None) -> int:
    with socket.socket() as probe:
        probe.bind((host or "127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _theme() -> Any:
    """Quiet colours, the system's own fonts: nothing is fetched for them."""
    return gr.themes.Base(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        font=["ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
