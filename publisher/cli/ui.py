"""`publisher ui`: the browser app on this machine."""

from __future__ import annotations

import importlib.util

import click

from publisher.cli import parameters
from publisher.errors import EngineError


@click.command("ui")
@parameters(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option("--port", default=7860, show_default=True, help="Port to listen on; 0 picks a free one."),
)
def command(host: str, port: int) -> None:
    """Open the browser app: the same verbs, as a form."""
    if importlib.util.find_spec("gradio") is None:
        raise EngineError("The browser app needs gradio.", hint="pip install 'fp4-publisher[ui]'")
    if host not in ("127.0.0.1", "localhost", "::1"):
        click.echo(
            f"warning: whoever reaches {host}:{port} reads this machine's files and publishes with its login.", err=True
        )
    from publisher.ui import launch

    launch(host=host, port=port)
