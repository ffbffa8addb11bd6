"""`publisher version`: this program's version and those of the libraries that decide its results."""

from __future__ import annotations

import importlib.metadata
import platform

import click

from publisher import __version__
from publisher.cli.output import Output, format_option

LIBRARIES = ("huggingface_hub", "numpy", "torch", "nvidia-modelopt", "transformers", "gradio")


@click.command("version")
@format_option
def command(form: str) -> None:
    """Print the versions that matter, without importing the libraries."""
    output = Output(form)
    found = {"fp4-publisher": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    output.data(found)
    output.table(("library", "version"), found.items())
    if form == "quiet":
        click.echo(__version__)
