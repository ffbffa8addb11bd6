"""A comparison as rows of text, for a terminal, a card or a document; figures are rounded here and nowhere else.

Scores are printed with two decimals (percent) or four significant digits, a difference with its sign, and next to it
its standard error. What was not measured is a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from publisher.evals import protocol
from publisher.evals.comparison import Comparison, Delta, Estimate, Line
from publisher.evals.significance import INDEPENDENT, PAIRED, SEEDS

DASH = "–"
METHODS = {INDEPENDENT: "z", PAIRED: "z (paired)", SEEDS: "z (over seeds)"}
MAX_SEEDS = 20


def head(comparison: Comparison) -> tuple[str, ...]:
    """The heads of the columns: benchmark, setup, baselines, result, difference from the first baseline."""
    used = methods(comparison)
    z = METHODS.get(used[0], "z") if len(used) == 1 else "z (error as below)" if used else "z"
    return ("Benchmark", "Setup", *comparison.baselines, comparison.result, "Δ", z, "Confidence", "Recovery")


def rows(comparison: Comparison) -> tuple[tuple[str, ...], ...]:
    """One row per score, the average last."""
    lines = (*comparison.lines, *((comparison.average,) if comparison.average else ()))
    return tuple(_row(line, len(comparison.lines)) for line in lines)


def methods(comparison: Comparison) -> list[str]:
    """How the errors of differences from the first baseline were computed."""
    firsts = (line.deltas[0] for line in comparison.lines)
    return _unique(delta.error.method for delta in firsts if delta is not None and delta.error is not None)


def facts(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """What must be known to read the figures, as label and text."""
    return tuple(_facts(comparison))


def setup(line: Line) -> str:
    """How a score was measured: shots, metric and filter, documents."""
    if line.key is None or line.run is None:
        return f"mean of {line.of}"
    shots = {protocol.shots(line.run, task) for task in line.run.leaves(line.key.task)}
    told = [f"{number}-shot" for number in shots if number is not None] if len(shots) == 1 else []
    told += [line.key.metric, *([line.key.filter] if line.key.filter != "none" else [])]
    told += [f"n = {count}"] if (count := _documents(line)) else []
    return ", ".join(told) + (", lower is better" if line.higher_is_better is False else "")


def _row(line: Line, count: int) -> tuple[str, ...]:
    first = line.deltas[0]
    name = line.key.task if line.key is not None else "Average" if line.of == count else f"Average of {line.of}"
    columns = [DASH if estimate is None else score(estimate, line.percent) for estimate in line.baselines]
    return (name, setup(line), *columns, score(line.result, line.percent), *_told(first, line.percent))


def score(estimate: Estimate, percent: bool) -> str:
    """A score with its spread: ± the standard error, or ± the standard deviation over runs."""
    text = _figure(estimate.value, percent) + ("%" if percent else "")
    if estimate.deviation is not None:
        return f"{text} ± {_figure(estimate.deviation, percent)} (SD of {estimate.runs})"
    return text if estimate.stderr is None else f"{text} ± {_figure(estimate.stderr, percent)}"


def _told(delta: Delta | None, percent: bool) -> tuple[str, str, str, str]:
    if delta is None:
        return (DASH, DASH, DASH, DASH)
    text = signed(delta.value, percent) + (" pp" if percent else "")
    text += "" if delta.error is None else f" ± {_figure(delta.error.value, percent)}"
    z, sure = delta.z, delta.confidence
    recovery = DASH if delta.recovery is None else f"{100 * delta.recovery:.2f}%"
    return (text, DASH if z is None else _minus(f"{z:+.2f}"), DASH if sure is None else percentage(sure), recovery)


def percentage(sure: float) -> str:
    """A confidence in whole percent, never rounded up to certainty."""
    return ">99%" if sure > 0.99 else f"{100 * sure:.0f}%"


def signed(value: float, percent: bool) -> str:
    """A difference with its sign; what rounds to nothing has none."""
    text = _figure(value, percent)
    return text.lstrip("-") if float(text) == 0 else _minus(text if value < 0 else f"+{text}")


def _figure(value: float, percent: bool) -> str:
    return f"{value:.2f}" if percent else f"{value:.4g}"


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text


def _documents(line: Line) -> str:
    if line.key is None or line.run is None:
        return ""
    counts = [line.run.documents(task) for task in line.run.leaves(line.key.task)]
    asked = [effective for _, effective in counts if effective is not None]
    there = [original for original, _ in counts if original is not None]
    if len(asked) < len(counts):
        return ""
    of = f" of {sum(there):,}" if len(there) == len(counts) and sum(there) != sum(asked) else ""
    return f"{sum(asked):,}{of}"


def _facts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    runs = comparison.runs
    if versions := _unique(run.harness for run in runs):
        yield "Harness", f"lm-evaluation-harness {' and '.join(versions)}"
    templates = {bool(run.document.get("chat_template_sha") or run.document.get("chat_template")) for run in runs}
    yield "Chat template", "applied" if templates == {True} else "not applied"
    if told := list(_generation(comparison.lines)):
        yield "Generation", "; ".join(told)
    seeds = sorted({seed for run in runs for name, seed in protocol.seeds(run) if name == "fewshot_seed"})
    if seeds:
        yield "Seeds", ", ".join(map(str, seeds[:MAX_SEEDS]))
    yield "±", "the harness's standard error of a score; with SD, the standard deviation over runs"
    if used := methods(comparison):
        yield "Standard error of Δ", "; ".join(used)
    yield "Δ", f"{comparison.result} minus {comparison.baselines[0]}; confidence is two-sided, 1 − p"
    if comparison.average is not None:
        yield (
            "Average",
            f"the plain mean of {comparison.average.of} unrounded scores; its recovery is that of the means",
        )
    if any(line.partial for line in comparison.lines):
        yield "Partial", "some benchmarks asked only a part of their documents"


def _generation(lines: Sequence[Line]) -> Iterator[str]:
    """The temperature of generated answers, the one argument that readers ask for."""
    told: dict[str, None] = {}
    for line in lines:
        if line.key is not None and line.run is not None:
            given = protocol.generation(line.run, line.run.leaves(line.key.task)[0])
            if isinstance(temperature := given.get("temperature"), float):
                told[f"{line.key.task} at temperature {temperature:g}"] = None
    yield from told


def _unique(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})
