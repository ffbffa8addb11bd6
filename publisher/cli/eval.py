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
    from publisher.evals.harness import Subject

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

    Each subcommand takes --format; see `publisher eval compare --help` and `publisher eval run --help`.
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


@command.command(
    "run",
    epilog="Example: publisher eval run --baseline BF16=http://127.0.0.1:8000/v1 --result NVFP4=http://127.0.0.1:8001/v1"
    " --task gsm8k --python ./lm-eval/bin/python",
)
@parameters(
    click.option("--baseline", "baselines", multiple=True, required=True, metavar="[LABEL=]MODEL", help="Repeatable."),
    click.option("--result", required=True, metavar="[LABEL=]MODEL", help="The model to publish."),
    click.option("--task", "tasks", multiple=True, required=True, help="A task of the harness. Repeatable."),
    click.option(
        "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("eval-runs"), show_default=True
    ),
    click.option("--python", default="", metavar="PATH", help="The interpreter that has lm-eval  [default: this one]"),
    click.option("--seed", "seeds", multiple=True, type=int, default=(1234,), show_default=True, help="Repeatable."),
    click.option("--num-fewshot", type=click.IntRange(0), help="Examples in the prompt  [default: the task's]"),
    click.option("--limit", type=click.IntRange(1), help="Only so many documents; such scores are not published."),
    click.option("--chat", is_flag=True, help="Apply the chat template; endpoints are asked to."),
    click.option("--tokenizer", default="", help="Folder or Hub id; endpoints need it for tasks of log-likelihoods."),
    click.option("--gen-kwargs", default="", metavar="KEY=VALUE,…", help="Arguments of generation."),
    click.option(
        "--tasks-folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Further tasks."
    ),
    click.option("--concurrency", type=click.IntRange(1, 1024), default=1, show_default=True),
    format_option,
)
def run_command(
    baselines: tuple[str, ...],
    result: str,
    tasks: tuple[str, ...],
    output: Path,
    python: str,
    seeds: tuple[int, ...],
    num_fewshot: int | None,
    limit: int | None,
    chat: bool,
    tokenizer: str,
    gen_kwargs: str,
    tasks_folder: Path | None,
    concurrency: int,
    form: str,
) -> None:
    """Run lm-evaluation-harness on baselines and result alike, then compare.

    MODEL is an OpenAI-compatible endpoint (http://host:port/v1, or …/v1#name where it serves several models), a folder
    or a Hub id. What is measured already is not measured again.
    """
    import sys

    from publisher.evals import document, harness
    from publisher.evals.compare import compare

    shown = Output(form)
    request = harness.Request(
        tasks=tasks,
        output=output,
        python=python or sys.executable,
        seeds=tuple(dict.fromkeys(seeds)),
        shots=num_fewshot,
        limit=limit,
        chat=chat,
        tokenizer=tokenizer,
        generation=gen_kwargs,
        tasks_folder=tasks_folder,
        parallel=concurrency,
    )
    named = [_subject(place, f"baseline{number or ''}") for number, place in enumerate(baselines)]
    ours = _subject(result, "result")
    if len({subject.label for subject in (*named, ours)}) <= len(named):
        raise PublisherError("Two models have one label.", hint="Write LABEL=MODEL, each label once.")
    places = harness.run([*named, ours], request, shown.note)
    before = [place for subject in named for place in places[subject.label]]
    found = compare(before, places[ours.label])
    shown.data(document.to_json(found))
    _show(shown, found)


def _subject(place: str, label: str) -> Subject:
    from publisher.evals.harness import Subject

    name, equals, model = place.partition("=")
    labelled = bool(equals) and "/" not in name and bool(name.strip()) and bool(model)
    return Subject(label=name.strip(), place=model) if labelled else Subject(label=label, place=place)
