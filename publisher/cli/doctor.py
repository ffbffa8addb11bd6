"""`publisher doctor`: what this machine can do, what is missing, what that means."""

from __future__ import annotations

import click

from publisher.cli.output import Output, format_option


@click.command("doctor")
@format_option
def command(form: str) -> None:
    """Say what this machine can quantize and serve with, and what is missing."""
    from publisher import doctor
    from publisher.hub.client import token_state

    output = Output(form)
    checks = doctor.examine(token_state=token_state)
    output.data([check.to_json() for check in checks])
    output.table(("check", "status", "found", "meaning"), [(c.name, c.status, c.detail, c.meaning) for c in checks])
