"""`publisher quantize`: the first stages of a push, ending with a checkpoint on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.cli import parameters
from publisher.cli.options import RECIPE, device_option, on_nan_option, recipe_order, run_dir_option, workers_option
from publisher.cli.output import Display, Output, format_option
from publisher.units import format_bytes


@click.command("quantize", epilog="Example: publisher quantize recipe.yaml --run-dir ./run --device cuda:0")
@parameters(RECIPE, run_dir_option, device_option, workers_option, on_nan_option, format_option)
def command(recipe: Path, run_dir: Path | None, device: str, workers: int | None, on_nan: str, form: str) -> None:
    """Quantize a source as RECIPE says; resumes a run that was stopped."""
    from publisher import pipeline
    from publisher.checkpoint.open import open_checkpoint
    from publisher.journal import Journal, RunDirectory

    output = Output(form)
    with Display(output) as display:
        order = recipe_order(recipe, device=device, workers=workers, on_nan=on_nan)
        prepared = pipeline.prepare(order, journal=Journal(None, display))
        directory = RunDirectory(run_dir or prepared.default_directory)
        pipeline.run(prepared, directory, display, until="quantize")
    checkpoint = open_checkpoint(directory.checkpoint)
    output.data(
        {"checkpoint": str(directory.checkpoint), "bytes": checkpoint.tensor_bytes, "shards": len(checkpoint.shards)}
    )
    output.say(f"{directory.checkpoint}: {format_bytes(checkpoint.tensor_bytes)} in {len(checkpoint.shards)} shard(s)")
    output.say(f"next: publisher push {recipe}", "dim")
