"""`publisher eval`: benchmark results of lm-evaluation-harness, compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli import parameters
from publisher.cli.output import Output, format_option
from publisher.errors import PublisherError

if TYPE_CHECKING:
    from publisher.evals.comparison import Comparison

SPLIT = "\0--"  # what click, which drops `--`, is given in its place


class Sides(click.Command):
    """A command whose arguments stand on two sides of `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the first `--` as an argument of its own; options may stand on both sides of it."""
        place = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*args[:place], *([SPLIT] if place < len(args) else []), *args[place + 1 :]])


@click.group(
    "eval",
    epilog="Example: publisher eval compare BF16=runs/bf16 -- NVFP4=runs/nvfp4 --task gsm8k --format json",
)
def command() -> None:
    """Compare what lm-evaluation-harness measured of a result with what it measured of its baselines.

    Nothing is measured here. Each subcommand takes --format; see `publisher eval compare --help`.
    """


@command.command(
    "compare",
    cls=Sides,
    options_metavar="[OPTIONS]",
    epilog="Examples: publisher eval compare bf16/ -- nvfp4/   "
    "publisher eval compare BF16=a.json GPTQ=b.json -- NVFP4=c.json --task mmlu:acc --task gsm8k --average all",
)
@parameters(
    click.argument("places", nargs=-1, metavar="BASELINE... -- RESULT..."),
    click.option("--task", "tasks", multiple=True, metavar="TASK[:METRIC[,FILTER]]", help="Compare this. Repeatable."),
    click.option(
        "--average", "average", multiple=True, metavar="TASK[:METRIC[,FILTER]]|all", help="Average this. Repeatable."
    ),
    click.option(
        "--eval-results",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Write the Hub's .eval_results/*.yaml of registered benchmarks below FOLDER.",
    ),
    click.option("--source-url", default="", metavar="URL", help="Where the results lie, for those files."),
    format_option,
)
def compare_command(
    places: tuple[str, ...],
    tasks: tuple[str, ...],
    average: tuple[str, ...],
    eval_results: Path | None,
    source_url: str,
    form: str,
) -> None:
    """Print differences from the first BASELINE with standard error, z, confidence and recovery.

    BASELINE and RESULT are results_*.json or folders of them, each as PATH or LABEL=PATH. Runs of one label (or model)
    with unlike seeds are averaged. Where samples_*.jsonl lie beside all of them, answers are compared document by
    document. Runs of unlike protocols are refused, and the field that differs is named.
    """
    from publisher.evals import document, hub
    from publisher.evals.compare import compare

    output = Output(form)
    if places.count(SPLIT) != 1:
        raise PublisherError(
            "It is not said which results are the baseline's and which the result's.",
            hint="Write: publisher eval compare BASELINE... -- RESULT...",
        )
    middle = places.index(SPLIT)
    found = compare(places[:middle], places[middle + 1 :], tasks=tasks, average=average)
    files = hub.eval_results(found, source=source_url)
    written = hub.write(eval_results, files) if eval_results is not None else []
    name = found.result.rpartition("/")[2]
    output.data({**document.to_json(found), "model_index": hub.model_index(found, name=name), "eval_results": files})
    _show(output, found)
    for path in written:
        output.note(f"wrote {eval_results}/{path}")
    if eval_results is not None and not written:
        output.note("no score is of a benchmark that the Hub registers; nothing was written", "yellow")


def _show(output: Output, found: Comparison) -> None:
    from publisher.evals import tables

    output.table(tables.head(found), tables.rows(found))
    for label, text in tables.facts(found):
        output.say(f"{label}: {text}", "dim")
    for note in found.notes:
        output.note(note, "yellow")
