"""The answers of one task, `samples_<task>_<date>.jsonl`: one score per document, metric and filter.

A document is known by `doc_hash`, sha256 of its JSON (lm-evaluation-harness, lm_eval/evaluator.py); a data set may hold
a document twice, so the n-th of equal ones is a document of its own. The file is read line by line and only scores and
hashes are kept. Refused: a line too long, too many of them, what is no JSON, a document asked twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.evals.results import mapping, score

MAX_LINE = 64 << 20  # bytes; a prompt of a million characters stands there once per choice
MAX_LINES = 2_000_000
HINT = "Move the samples files away to compare by standard errors alone."

Document = tuple[str, int]  # doc_hash, and which of the equal ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one run made of one task under one metric and filter.

    Args:
        scores: per document; empty where a score is no single number (F1, perplexity per word).
        prompts: `prompt_hash` per document.
    """

    scores: Mapping[Document, float]
    prompts: Mapping[Document, str]


@dataclass(slots=True)
class _Filtered:
    """What has been read of one filter: per document id its hashes and its scores."""

    hashes: dict[int, tuple[str, str]] = field(default_factory=dict)
    scores: dict[str, dict[int, float | None]] = field(default_factory=dict)


def read_samples(path: Path) -> dict[tuple[str, str], Answers]:
    """Scores by metric and filter.

    Raises:
        PublisherError: what the module refuses, with the line.
    """
    filters: dict[str, _Filtered] = {}
    for place, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {place:,}"
        if place > MAX_LINES:
            raise PublisherError(f"{path} has more than {MAX_LINES:,} lines.", hint=HINT)
        if line.strip():
            _take(mapping(jsonio.loads_json(line, where)), place, where, filters)
    return {
        (metric, name): _answers(own.hashes, scores)
        for name, own in filters.items()
        for metric, scores in own.scores.items()
    }


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise PublisherError(f"{path} has a line of more than {MAX_LINE:,} bytes.", hint=HINT)
                yield line
    except OSError as error:
        raise PublisherError(f"{path} cannot be read: {error.strerror or error}.", hint=HINT) from None


def _take(sample: Mapping[str, Any], place: int, where: str, filters: dict[str, _Filtered]) -> None:
    digest, name, metrics = sample.get("doc_hash"), sample.get("filter", "none"), sample.get("metrics")
    if not isinstance(digest, str) or not isinstance(name, str) or not isinstance(metrics, list):
        raise PublisherError(f"{where} is no sample: it lacks doc_hash, filter or metrics.", hint=HINT)
    own = filters.setdefault(name, _Filtered())
    identity = sample.get("doc_id")
    document = identity if type(identity) is int else place
    if document in own.hashes:
        raise PublisherError(f"{where}: document {document} is there twice under filter {name[:80]!r}.", hint=HINT)
    prompt = sample.get("prompt_hash")
    own.hashes[document] = (digest, prompt if isinstance(prompt, str) else "")
    for metric in metrics:
        if isinstance(metric, str):
            own.scores.setdefault(metric, {})[document] = _score(sample.get(metric))


def _score(value: Any) -> float | None:
    """A document's score; NumPy's truth values were written as words."""
    if isinstance(value, bool):
        return float(value)
    return {"True": 1.0, "False": 0.0}[value] if value in ("True", "False") else score(value)


def _answers(hashes: Mapping[int, tuple[str, str]], scores: Mapping[int, float | None]) -> Answers:
    seen: dict[str, int] = {}
    found: dict[Document, float] = {}
    prompts: dict[Document, str] = {}
    single = all(value is not None for value in scores.values())
    for document in sorted(scores):
        digest, prompt = hashes[document]
        key = (digest, seen.get(digest, 0))
        seen[digest] = key[1] + 1
        prompts[key] = prompt
        value = scores[document]
        if single and value is not None:
            found[key] = value
    return Answers(scores=found, prompts=prompts)
