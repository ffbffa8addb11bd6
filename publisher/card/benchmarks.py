"""The benchmark scores of a card: what card.toml names, compared and ready to print.

Figures come from results files of lm-evaluation-harness and from nowhere else; each carries the file it was read from.
How the models were served (engine, container, hardware) stands in no results file, so that is a person's to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher.card.value import Row, Value
from publisher.evals import hub, tables
from publisher.evals.compare import compare
from publisher.evals.comparison import Comparison, Line

PLACE = "card.toml: evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmarks:
    """Scores beside those of the baselines.

    Args:
        head: heads of the columns.
        rows: one per score, the average last.
        facts: what must be known to read them.
        notes: sentences about the comparison.
        setup: a person's paragraphs about how the models were served.
        summary: one phrase for the first questions of users.
        index: `model-index` for the metadata.
        files: `.eval_results/*.yaml`, entries by file name.
    """

    head: tuple[Value, ...]
    rows: tuple[tuple[Value, ...], ...]
    facts: tuple[Row, ...]
    notes: tuple[Value, ...]
    setup: tuple[str, ...]
    summary: Value
    index: tuple[Mapping[str, Any], ...]
    files: Mapping[str, Sequence[Mapping[str, Any]]]


def benchmarks(named: Mapping[str, Any], *, title: str, task: str, format_name: str) -> Benchmarks | None:
    """Compare the results that card.toml names; None where it names none.

    Args:
        named: its table `evaluation`, with places that can be opened from here.
        title: the repository's name without its owner.
        task: the Hub's name of what the model does.
        format_name: how the weights are stored, such as NVFP4.

    Raises:
        UnlikeProtocols: the runs cannot be compared.
        PublisherError: a results file is missing or no results file.
    """
    if not named:
        return None
    found = compare(named["baseline"], named["results"], tasks=named.get("tasks", ()), average=named.get("average", ()))
    return Benchmarks(
        head=tuple(Value(text, PLACE) for text in tables.head(found)),
        rows=_rows(found),
        facts=tuple(Row(label, Value(text, PLACE)) for label, text in tables.facts(found)),
        notes=tuple(Value(note, PLACE) for note in found.notes),
        setup=tuple(str(paragraph) for paragraph in named.get("setup", ())),
        summary=_summary(found),
        index=tuple(hub.model_index(found, name=title, task=task)),
        files=hub.eval_results(found, format_name=format_name),
    )


def _rows(found: Comparison) -> tuple[tuple[Value, ...], ...]:
    lines = (*found.lines, *((found.average,) if found.average else ()))
    told = zip(lines, tables.rows(found), strict=True)
    return tuple(tuple(Value(cell, _origin(line)) for cell in row) for line, row in told)


def _origin(line: Line) -> str:
    return f"{line.run.path.name}: {line.key}" if line.run is not None else PLACE


def _summary(found: Comparison) -> Value:
    """The average where one is declared, otherwise the first score."""
    line = found.average or found.lines[0]
    delta, name = line.deltas[0], "the average" if line.key is None else f"{line.key.task} ({line.key.metric})"
    score = tables.score(line.result, line.percent)
    if delta is None:
        return Value(f"{name}: {score}", _origin(line))
    change = tables.signed(delta.value, line.percent) + (" pp" if line.percent else "")
    recovery = f", {100 * delta.recovery:.2f}% recovered" if delta.recovery is not None else ""
    return Value(f"{name}: {score}, {change} against {found.baselines[0]}{recovery}", _origin(line))
