"""Scores of a result beside those of its baselines: differences in points, their errors, recovery, declared averages.

A side is one model: runs with unlike seeds are samples of it, reported as mean ± standard deviation. A difference is
result minus baseline. Its error is paired by document where every run has its samples, otherwise taken over seeds where
both sides have several, otherwise from the standard errors as if independent. Refused: unlike protocols, samples that
are not those of the results, two runs of one seed, one run on both sides, a declared task that a side lacks.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.evals import pairing, protocol
from publisher.evals.average import averaged
from publisher.evals.comparison import Comparison, Delta, Estimate, Line, matches, named, recovery
from publisher.evals.results import Key, Run
from publisher.evals.sides import Side, sides
from publisher.evals.significance import Error, independent, over_seeds

MAX_LINES = 2_000


@dataclass(slots=True)
class _Work:
    """The sides of a comparison and what was noted on the way."""

    result: Side
    baselines: tuple[Side, ...]
    notes: dict[str, None] = field(default_factory=dict)
    answers: pairing.Cache = field(default_factory=dict)


def compare(
    baselines: Sequence[str], results: Sequence[str], *, tasks: Sequence[str] = (), average: Sequence[str] = ()
) -> Comparison:
    """Compare what was measured of a result with what was measured of its baselines.

    Args:
        baselines: results files or folders of them, each as PATH or LABEL=PATH; one label is one model, and the first
            is the one that differences are told from.
        results: those of the published model.
        tasks: which scores, as `task`, `task:metric` or `task:metric,filter`; all that both have when empty.
        average: which of them to average, or `all`.

    Raises:
        UnlikeProtocols: naming the fields.
        PublisherError: what the module refuses.
    """
    work = _Work(*_told_apart(_one(sides(results, "result")), sides(baselines, "baseline")))
    _require_two_runs(work)
    keys = _declared(work, tasks) if tasks else _shared(work)
    lines = tuple(_line(work, key) for key in keys[:MAX_LINES])
    reference = work.baselines[0]
    _note_harness(work, [*reference.runs, *work.result.runs])
    return Comparison(
        result=work.result.label,
        baselines=tuple(side.label for side in work.baselines),
        lines=lines,
        average=averaged(lines, average) if average else None,
        notes=tuple(work.notes),
        runs=tuple(run for side in (*work.baselines, work.result) for run in side.runs),
    )


def _told_apart(result: Side, baselines: tuple[Side, ...]) -> tuple[Side, tuple[Side, ...]]:
    """Sides whose columns have names of their own: servers are often all asked for the model `/model`."""
    if result.label not in {side.label for side in baselines}:
        return result, baselines
    named = (
        replace(side, label=f"{side.label} (baseline)") if side.label == result.label else side for side in baselines
    )
    return replace(result, label=f"{result.label} (result)"), tuple(named)


def _require_two_runs(work: _Work) -> None:
    """Refuse one run on both sides, a copy of it too: every difference would be none, and every recovery 100 %."""
    for side in work.baselines:
        for run in side.runs:
            for other in work.result.runs:
                if run.document == other.document:
                    raise PublisherError(
                        f"{run.path} of {side.label} and {other.path} of {work.result.label} are the same run.",
                        hint="Name the results of the two models.",
                    )


def _one(found: tuple[Side, ...]) -> Side:
    if len(found) > 1:
        names = ", ".join(side.label[:100] for side in found)
        raise PublisherError(
            f"The results are of {len(found)} models: {names}.",
            hint="Give the runs of one model, or one label to all of them: NAME=PATH.",
        )
    return found[0]


# --- which scores --------------------------------------------------------------------------------------------------


def _declared(work: _Work, tasks: Sequence[str]) -> list[Key]:
    """Every score the selectors name; each side must have them."""
    found: dict[Key, None] = {}
    for selector in tasks:
        wanted = matches(selector, work.result.keys)
        had = matches(selector, work.baselines[0].keys)
        for side, own in ((work.result, wanted), (work.baselines[0], had)):
            if not own:
                raise PublisherError(
                    f"{side.label} has no score {selector!r:.200}.",
                    hint=f"It has {named(side.keys)}.",
                )
        common = [key for key in wanted if key in had]
        if not common:
            raise PublisherError(
                f"{selector!r:.200} is {named(had)} in {work.baselines[0].label} and {named(wanted)} in "
                f"{work.result.label}: metric or filter differ.",
                hint="Run both with the same task.",
            )
        found.update(dict.fromkeys(common))
    return list(found)


def _shared(work: _Work) -> list[Key]:
    """The scores that result and first baseline both have, groups instead of the tasks below them."""
    reference = work.baselines[0]
    below = {task for run in work.result.runs for task in run.subtasks()}
    keys = [key for key in work.result.keys if key.task not in below]
    common = [key for key in keys if key in reference.keys]
    left = sorted({key.task for key in keys} - {key.task for key in common})
    if not common:
        raise PublisherError(
            f"{reference.label} and {work.result.label} share no score: {named(reference.keys)} against {named(keys)}.",
            hint="Run both on the same tasks.",
        )
    if left:
        work.notes[f"Not compared, because {reference.label} lacks it: {', '.join(left[:20])}."] = None
    return common


# --- one score -----------------------------------------------------------------------------------------------------


def _line(work: _Work, key: Key) -> Line:
    result = work.result.runs_with(key)
    others = tuple(side.runs_with(key) for side in work.baselines)
    for side, runs in zip(work.baselines, others, strict=True):
        if runs:
            _require_alike(work, key, side, runs, result)
    percent = _is_proportion(key, [*result, *(run for runs in others for run in runs)])
    higher = result[0].higher_is_better(key)
    estimates = tuple(_estimate(key, runs, percent) if runs else None for runs in others)
    own = _estimate(key, result, percent)
    return Line(
        key=key,
        percent=percent,
        higher_is_better=higher,
        result=own,
        baselines=estimates,
        deltas=tuple(
            None if estimate is None else _delta(work, key, runs, result, (estimate, own), (percent, higher))
            for estimate, runs in zip(estimates, others, strict=True)
        ),
        run=result[0],
        partial=any(protocol.partial(run, key) for run in result),
    )


def _require_alike(work: _Work, key: Key, side: Side, runs: Sequence[Run], result: Sequence[Run]) -> None:
    """Refuse unlike protocols, of runs of one side too; the harness's hash is left to the samples where they are."""
    pairs = [
        (side.label, runs[0], label, run)
        for label, own in ((side.label, runs), (work.result.label, result))
        for run in own
    ]
    for first, one, second, other in pairs:
        if one is other:
            continue
        found = protocol.differences(one, other, key)
        if pairing.have_samples((one, other), key):
            found = tuple(item for item in found if item.field != protocol.HASH) + pairing.unlike(
                work.answers, one, other, key
            )
        if found:
            raise protocol.UnlikeProtocols(key, (f"{first} ({one.path.name})", f"{second} ({other.path.name})"), found)
    seeds = protocol.seeds_differ(runs, result, key)
    if seeds is not None:
        raise protocol.UnlikeProtocols(key, (side.label, work.result.label), [seeds])


def _is_proportion(key: Key, runs: Iterable[Run]) -> bool:
    if key.metric in jsonio.data("evals/protocol.json")["not_proportions"]:
        return False
    return all(0 <= run.scores[key].value <= 1 for run in runs)


def _estimate(key: Key, runs: Sequence[Run], percent: bool) -> Estimate:
    factor = 100.0 if percent else 1.0
    values = [factor * run.scores[key].value for run in runs]
    errors = [factor * error for run in runs if (error := run.scores[key].stderr) is not None]
    return Estimate(
        value=statistics.fmean(values),
        stderr=statistics.fmean(errors) if len(errors) == len(runs) else None,
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        runs=len(runs),
    )


def _delta(
    work: _Work,
    key: Key,
    baseline: Sequence[Run],
    result: Sequence[Run],
    estimates: tuple[Estimate, Estimate],
    scale: tuple[bool, bool | None],
) -> Delta:
    before, after = estimates
    percent, higher = scale
    factor = 100.0 if percent else 1.0
    found = pairing.error(work.answers, baseline, result, key)
    if isinstance(found, str):
        work.notes[found] = None
        values = [[factor * run.scores[key].value for run in runs] for runs in (baseline, result)]
        error = over_seeds(*values)
        if error is None and before.stderr is not None and after.stderr is not None:
            error = independent(before.stderr, after.stderr)
    else:
        error = Error(value=factor * found.value, method=found.method, freedom=found.freedom)
    return Delta(value=after.value - before.value, error=error, recovery=recovery(after.value, before.value, higher))


def _note_harness(work: _Work, runs: Iterable[Run]) -> None:
    found: Mapping[str, None] = dict.fromkeys(run.harness for run in runs if run.harness)
    if len(found) > 1:
        told = " and ".join(sorted(found))
        work.notes[f"The harness was {told}; the tasks have the same version."] = None
