"""A comparison: scores of a result beside its baselines', each with its error, ready to be printed or published."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from publisher.evals.results import Key, Run
from publisher.evals.significance import Error, confidence, margin, ratio

LEAST = 1e-9  # a smaller score is no base of a quotient


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What one side scored.

    Args:
        value: the score, the mean over runs where there are several; in percent where `Line.percent`.
        stderr: the harness's standard error, the mean of it over runs; None where it gave none.
        deviation: standard deviation over runs (of n - 1); None for a single one.
        runs: how many.
    """

    value: float
    stderr: float | None = None
    deviation: float | None = None
    runs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A result against one baseline.

    Args:
        value: result minus baseline, in points.
        error: its standard error; None where nothing tells.
        recovery: result over baseline; None where less is better or the baseline is not positive.
    """

    value: float
    error: Error | None = None
    recovery: float | None = None

    @property
    def z(self) -> float | None:
        """The difference in standard errors; None where there is no error or it is zero."""
        return None if self.error is None else ratio(self.value, self.error)

    @property
    def confidence(self) -> float | None:
        """Two-sided confidence that the two differ."""
        return None if self.error is None or self.z is None else confidence(self.z, self.error.freedom)

    @property
    def margin(self) -> float | None:
        """Half the width of the 95 % interval."""
        return None if self.error is None else margin(self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One score of all sides.

    Args:
        key: task, metric and filter; None for the average.
        percent: whether values are percentages and differences percentage points.
        higher_is_better: None where the harness does not say.
        result: what the published model scored.
        baselines: one per baseline, None where it lacks the score.
        deltas: result minus each of them.
        run: a run of the result, for its protocol; None for the average.
        partial: whether only some documents were asked.
        of: how many lines were averaged; 1 for a score.
    """

    key: Key | None
    percent: bool
    higher_is_better: bool | None
    result: Estimate
    baselines: tuple[Estimate | None, ...]
    deltas: tuple[Delta | None, ...]
    run: Run | None = None
    partial: bool = False
    of: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A result against its baselines, of which differences are told from the first.

    Args:
        result: its label.
        baselines: theirs.
        lines: one per score, in the order declared.
        average: over the declared lines; None where none were declared.
        notes: what a reader should know, each a sentence.
        runs: every run that was read.
    """

    result: str
    baselines: tuple[str, ...]
    lines: tuple[Line, ...]
    average: Line | None
    notes: tuple[str, ...]
    runs: tuple[Run, ...]


def recovery(result: float, baseline: float, higher_is_better: bool | None) -> float | None:
    """What part of a baseline's score is left; None where less is better or the baseline is as good as nothing."""
    return result / baseline if baseline > LEAST and higher_is_better is not False else None


def matches(selector: str, keys: Iterable[Key]) -> list[Key]:
    """The scores that `task`, `task:metric` or `task:metric,filter` means, in the order of `keys`."""
    task, colon, rest = selector.partition(":")
    metric, comma, name = rest.partition(",")
    return [
        key
        for key in keys
        if key.task == task and (not colon or key.metric == metric) and (not comma or key.filter == name)
    ]


def named(keys: Iterable[Key]) -> str:
    """Some scores by name, for a message."""
    told = [str(key) for key in keys]
    return ", ".join(told[:8]) + (f" and {len(told) - 8} more" if len(told) > 8 else "")
