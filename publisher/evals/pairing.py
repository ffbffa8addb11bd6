"""Two sides document by document: which documents, whether they are the same, and the error of their difference.

Per document a side's score is its mean over runs; the difference of a document is taken between the two, and the error
of a score is that of the mean of the differences (`significance.paired`). It holds where a score is the plain mean over
documents, or over tasks of a group; any other score (F1, perplexity) is left to its own standard error. Refused are
samples whose mean is not the score beside them: they belong to another run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from publisher.errors import PublisherError
from publisher.evals.protocol import Difference
from publisher.evals.results import Key, Run, mapping
from publisher.evals.samples import HINT, Answers, Document, read_samples
from publisher.evals.significance import Error, paired, stratified

CLOSE = 1e-6  # numpy sums scores in single precision where a task's are
Cache = dict[Path, dict[tuple[str, str], Answers]]


def have_samples(runs: Sequence[Run], key: Key) -> bool:
    """Whether every run has the samples of every task below a score."""
    return all(run.samples(task) is not None for run in runs for task in run.leaves(key.task))


def unlike(cache: Cache, one: Run, other: Run, key: Key) -> tuple[Difference, ...]:
    """Documents or prompts in which two runs differ; prompts only between equal seeds, which drew equal examples."""
    found = []
    same_seed = one.table("config").get("fewshot_seed") == other.table("config").get("fewshot_seed")
    for task in one.leaves(key.task):
        left, right = (_prompts(cache, run, task, key) for run in (one, other))
        if left.keys() != right.keys():
            told = (
                f"{len(left.keys() - right.keys()):,} of its own",
                f"{len(right.keys() - left.keys()):,} of its own",
            )
            found.append(Difference(field="documents", task=task, baseline=told[0], result=told[1]))
        elif same_seed and (count := sum(left[document] != right[document] for document in left)):
            told = (f"one text for {count:,} of {len(left):,} documents", "another")
            found.append(Difference(field="prompts", task=task, baseline=told[0], result=told[1]))
    return tuple(found)


def error(cache: Cache, baseline: Sequence[Run], result: Sequence[Run], key: Key) -> Error | str:
    """The paired standard error of result minus baseline, in the score's own unit, or why there is none.

    Raises:
        PublisherError: samples are not those of the results beside them.
    """
    runs = [*baseline, *result]
    if not have_samples(runs, key):
        return "Not paired by document where a run has no samples beside its results."
    leaves = runs[0].leaves(key.task)
    strata: list[list[float]] = []
    for task in leaves:
        found = _differences(cache, baseline, result, Key(task, key.metric, key.filter))
        if found is None:
            return f"Not paired, because a document's {key.metric} is missing or no single number: {key.task}."
        strata.append(found)
    shape = _shape(cache, runs, key, leaves)
    if isinstance(shape, str):
        return shape
    pooled = paired([value for stratum in strata for value in stratum])
    found_error = pooled if shape else stratified(strata)
    return found_error if found_error is not None else f"Not paired, because there are too few documents: {key.task}."


def _shape(cache: Cache, runs: Sequence[Run], key: Key, leaves: Sequence[str]) -> bool | str:
    """True where scores are the mean over all documents, False where over the means of the tasks, or why neither."""
    over_documents = over_tasks = True
    for run in runs:
        scores = [list(_answers(cache, run, task, key).scores.values()) for task in leaves]
        value, allowed = run.scores[key].value, CLOSE * max(1.0, abs(run.scores[key].value))
        mean = statistics.fmean([score for own in scores for score in own])
        over_documents = over_documents and abs(mean - value) <= allowed
        over_tasks = over_tasks and abs(statistics.fmean([statistics.fmean(own) for own in scores]) - value) <= allowed
        if len(leaves) == 1 and not over_documents and _is_mean(run, key):
            raise PublisherError(
                f"{run.path}: {key} is {value:.6g}, the mean of its samples {mean:.6g}: they are of another run.",
                hint=HINT,
            )
    if not over_documents and not over_tasks:
        return f"Not paired, because {key.metric} of {key.task} is no plain mean over documents or tasks."
    return over_documents


def _is_mean(run: Run, key: Key) -> bool:
    """Whether a task declares that its metric is averaged."""
    entries = run.config(key.task).get("metric_list")
    found = [mapping(entry) for entry in entries] if isinstance(entries, list) else []
    return any(entry.get("metric") == key.metric and entry.get("aggregation") == "mean" for entry in found)


def _differences(cache: Cache, baseline: Sequence[Run], result: Sequence[Run], key: Key) -> list[float] | None:
    before, after = (_mean(cache, runs, key) for runs in (baseline, result))
    if not before or before.keys() != after.keys():
        return None
    return [after[document] - before[document] for document in before]


def _mean(cache: Cache, runs: Sequence[Run], key: Key) -> Mapping[Document, float]:
    """A side's score per document, over its runs; empty where a run has none."""
    scores = [_answers(cache, run, key.task, key).scores for run in runs]
    if any(own.keys() != scores[0].keys() for own in scores):
        return {}
    return {document: math.fsum(own[document] for own in scores) / len(scores) for document in scores[0]}


def _prompts(cache: Cache, run: Run, task: str, key: Key) -> Mapping[Document, str]:
    return _answers(cache, run, task, key).prompts


def _answers(cache: Cache, run: Run, task: str, key: Key) -> Answers:
    path = run.samples(task)
    if path is None:
        return Answers(scores={}, prompts={})
    if path not in cache:
        cache[path] = read_samples(path)
    return cache[path].get((key.metric, key.filter)) or Answers(scores={}, prompts={})
