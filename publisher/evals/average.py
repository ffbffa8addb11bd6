"""The average over a declared list of scores; nothing is averaged that nobody asked for.

An average is the plain mean of unrounded scores. Refused: a score named twice, a name that means several, percentages
mixed with other figures, and what should be high mixed with what should be low.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from publisher.errors import PublisherError
from publisher.evals.comparison import Delta, Estimate, Line, matches, named, recovery
from publisher.evals.results import Key
from publisher.evals.significance import Error

ALL = "all"


def averaged(lines: Sequence[Line], wanted: Sequence[str]) -> Line:
    """The plain mean over declared lines: of scores, of differences, and recovery as the quotient of the means.

    Args:
        lines: what was compared.
        wanted: selectors that each mean one of them, or `all`.

    Raises:
        PublisherError: a selector means none, several or the same again, or units or directions would be mixed.
    """
    chosen = list(_chosen(lines, wanted))
    if len({line.percent for line in chosen}) > 1 or len({line.higher_is_better for line in chosen}) > 1:
        names = ", ".join(str(line.key) for line in chosen[:8])
        raise PublisherError(
            f"The average would mix units or directions: {names}.", hint="Average percentages that should all be high."
        )
    leaves = [task for line in chosen if line.run and line.key for task in line.run.leaves(line.key.task)]
    distinct = len(set(leaves)) == len(leaves)
    result = Estimate(value=statistics.fmean(line.result.value for line in chosen))
    columns = list(zip(*(line.baselines for line in chosen), strict=True))
    deltas = list(zip(*(line.deltas for line in chosen), strict=True))
    estimates = tuple(_mean(column) for column in columns)
    return Line(
        key=None,
        percent=chosen[0].percent,
        higher_is_better=chosen[0].higher_is_better,
        result=result,
        baselines=estimates,
        deltas=tuple(
            None
            if estimate is None
            else _mean_delta(result.value, estimate.value, own, chosen[0].higher_is_better, distinct)
            for estimate, own in zip(estimates, deltas, strict=True)
        ),
        partial=any(line.partial for line in chosen),
        of=len(chosen),
    )


def _chosen(lines: Sequence[Line], wanted: Sequence[str]) -> Iterator[Line]:
    by_key = {line.key: line for line in lines if line.key is not None}
    if list(wanted) == [ALL]:
        yield from lines
        return
    taken: set[Key] = set()
    for selector in wanted:
        found = matches(selector, by_key)
        if len(found) != 1 or found[0] in taken:
            told = "twice" if found and found[0] in taken else f"{len(found)} of the compared scores"
            raise PublisherError(
                f"The average names {selector!r:.200}, which is {told}.",
                hint=f"Name each score once, as task:metric,filter: {named(by_key)}.",
            )
        taken.add(found[0])
        yield by_key[found[0]]


def _mean(column: Sequence[Estimate | None]) -> Estimate | None:
    known = [estimate.value for estimate in column if estimate is not None]
    return Estimate(value=statistics.fmean(known)) if len(known) == len(column) else None


def _mean_delta(
    result: float, baseline: float, deltas: Sequence[Delta | None], higher: bool | None, distinct: bool
) -> Delta:
    """Tasks are independent, so the squared errors of their differences add up; metrics of one task are not."""
    errors = [delta.error.value for delta in deltas if delta is not None and delta.error is not None]
    error = None
    if len(errors) == len(deltas) and distinct:
        value = sum(error**2 for error in errors) ** 0.5 / len(errors)
        error = Error(value=value, method=f"from the errors of {len(errors)} scores")
    return Delta(value=result - baseline, error=error, recovery=recovery(result, baseline, higher))
