"""`publisher calibrate`: run a model on text and keep what its layers' inputs are, for calibrated activation scales."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.cli import parameters
from publisher.cli.options import device_option
from publisher.cli.output import Display, Output, format_option

if TYPE_CHECKING:
    from publisher.checkpoint.statistics import Statistics
    from publisher.journal import Journal

STAGE = "calibrate"


@click.command(
    "calibrate",
    epilog="Examples: publisher calibrate ./model --data text.jsonl   "
    "publisher calibrate hf://org/model --data hf://datasets/org/name --split train --samples 512",
)
@parameters(
    click.argument("source"),
    click.option("--data", required=True, help="Text, JSON lines, or hf://datasets/org/name[@revision]."),
    click.option("--subset", help="The data set's configuration."),
    click.option("--split", default="train", show_default=True, help="The data set's split."),
    click.option("--column", help="The data set's column  [default: messages, else text]"),
    click.option("--samples", type=click.IntRange(1, 1_000_000), default=512, show_default=True),
    click.option("--sequence-length", type=click.IntRange(1, 1 << 20), default=2048, show_default=True),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
    click.option("--chat-template", is_flag=True, help="Put plain texts through the chat template, as a user's words."),
    click.option("--trust-remote-code", is_flag=True, help="Run Python code that the checkpoint brings along."),
    click.option("--second-moments", is_flag=True, help="Keep the mean square of every input too, to prune by."),
    click.option(
        "--output",
        "output_file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("statistics.safetensors"),
        show_default=True,
    ),
    device_option,
    format_option,
)
def command(source: str, data: str, output_file: Path, device: str, form: str, **asked: Any) -> None:
    """Observe the inputs of every linear layer of SOURCE, a folder or hf://org/name, on samples of text.

    The unquantized model is held in memory, or on the GPUs. What is written serves every recipe of that source.
    A stopped calibration goes on when the same command is given again.
    """
    from publisher import jsonio
    from publisher.checkpoint import statistics
    from publisher.engines.run import run_job
    from publisher.journal import Journal

    output = Output(form)
    with Display(output) as display, tempfile.TemporaryDirectory(prefix="publisher-calibrate-") as scratch:
        journal = Journal(None, display)
        job = _job(source, data, output_file.absolute(), device, asked, journal)
        path = Path(scratch) / "calibrate.json"
        jsonio.write_atomic(path, jsonio.dump_json(job))
        run_job([sys.executable, "-m", "publisher.native.calibrate", str(path)], journal, stage=STAGE)
    _show(output, output_file, statistics.read(output_file))


def _job(source: str, data: str, goal: Path, device: str, asked: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """The job file's content; a source or a data set of the Hub is fetched here, where the login is."""
    from publisher.checkpoint import source as sources

    place = sources.resolve(source, tell=lambda message: journal.emit(STAGE, "warning", message=message))
    labels = {"source": place.repo or Path(place.label).absolute().name, "source_commit": place.commit or ""}
    file, more = _samples(data, goal, asked, journal)
    return {
        "source": str(sources.fetch(place, progress=_Fetched(journal)).absolute()),
        "data": str(file.absolute()),
        "output": str(goal),
        "samples": asked["samples"],
        "sequence_length": asked["sequence_length"],
        "seed": asked["seed"],
        "chat_template": asked["chat_template"],
        "trust_remote_code": asked["trust_remote_code"],
        "second_moments": asked["second_moments"],
        "device": "auto" if device == "all" else device,
        "labels": labels | more,
    }


def _samples(data: str, goal: Path, asked: dict[str, Any], journal: Journal) -> tuple[Path, dict[str, str]]:
    """The file of samples and what to call it; those of a data set are kept beside the statistics."""
    from publisher.native import dataset

    if not data.startswith(dataset.SCHEME):
        return Path(data), {}
    wanted = dataset.parse(data, subset=asked["subset"], split=asked["split"], column=asked["column"])
    file = goal.with_name(f"{goal.stem}.samples.jsonl")
    count = dataset.write_samples(wanted, asked["samples"], asked["seed"], file)
    journal.emit(STAGE, "log", message=f"{count:,} samples of {wanted.label} are kept in {file}.")
    return file, {"data": wanted.label}


class _Fetched:
    """Tells how far a download is."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __call__(self, done: int, total: int) -> None:
        self._journal.emit(STAGE, "progress", done=done, total=total, unit="bytes")


def _show(output: Output, path: Path, found: Statistics) -> None:
    unreached = found.unreached
    output.data(
        {
            "statistics": str(path),
            "modules": len(found.modules),
            "unreached": list(unreached),
            "metadata": dict(found.metadata),
        }
    )
    output.say(f"{path}: inputs of {len(found.modules):,} modules over {int(found.metadata['tokens']):,} tokens")
    if unreached:
        from publisher.plan.obstacles import listed

        output.say(f"{len(unreached):,} modules saw no token: {listed(unreached, 5)}", "yellow")
