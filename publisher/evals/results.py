"""One run of lm-evaluation-harness, 0.4.9 to 0.4.13, read from its `results_*.json`.

A results file has scores under `results` (and `groups`) as `metric,filter` with `metric_stderr,filter` beside it, and
the protocol under `configs`, `versions`, `n-shot`, `n-samples`, `config` and a few keys of the run (the harness's
`result_schema.py` lists them since 0.4.12; earlier ones lack `name`, `sample_len` and `sample_count`). It is a
stranger's document: strict JSON of bounded size, every value of any type. Refused: a file without a single score.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from publisher import jsonio
from publisher.errors import PublisherError

MAX_RESULTS = 64 << 20  # bytes; MMLU with all its subtasks is about 300 kB
MAX_FILES = 200  # results files of one folder
MAX_LEAVES = 5_000  # tasks below one group
MAX_SCORE = 1e15  # of any size; what is larger measures nothing and would overflow
_STAMP = re.compile(r"_(\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d{1,9})?)$")
_NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What one score is of.

    Args:
        task: a task or a group.
        metric: such as `acc_norm`.
        filter: how answers were extracted, `none` where they were not.
    """

    task: str
    metric: str
    filter: str

    def __str__(self) -> str:
        return f"{self.task}:{self.metric},{self.filter}"


@dataclass(frozen=True, slots=True)
class Score:
    """A figure as the harness wrote it, and its standard error where it wrote one."""

    value: float
    stderr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One results file.

    Args:
        path: where it was read.
        document: the whole of it.
        scores: by task, metric and filter, in its order.
    """

    path: Path
    document: Mapping[str, Any]
    scores: Mapping[Key, Score]

    @property
    def model(self) -> str:
        """The model's name as the harness has it, of a path its last part; the folder where it has none."""
        for name in (
            self.document.get("model_name"),
            model_args(self).get("pretrained"),
            model_args(self).get("model"),
        ):
            if isinstance(name, str) and name.strip("/. "):
                return PurePath(name).name if name[0] in "/.~\\" else name
        return self.path.parent.name or self.path.stem

    @property
    def harness(self) -> str | None:
        """Version of lm-evaluation-harness."""
        found = self.document.get("lm_eval_version")
        return found if isinstance(found, str) and found else None

    @property
    def date(self) -> float | None:
        """When the run began, in seconds since 1970."""
        return number(self.document.get("date"))

    def table(self, name: str) -> Mapping[str, Any]:
        """A mapping of the document, empty where it is not there or no mapping."""
        return mapping(self.document.get(name))

    def config(self, task: str) -> Mapping[str, Any]:
        """The configuration of a task."""
        return mapping(self.table("configs").get(task))

    def documents(self, task: str) -> tuple[int | None, int | None]:
        """How many documents a task's split has and how many were asked."""
        counts = mapping(self.table("n-samples").get(task))
        original, effective = (whole(counts.get(name)) for name in ("original", "effective"))
        return original, effective

    def higher_is_better(self, key: Key) -> bool | None:
        """Whether more of a metric is better; None where the harness does not say."""
        for task in (key.task, *self.leaves(key.task)):
            found = mapping(self.table("higher_is_better").get(task)).get(key.metric)
            if isinstance(found, bool):
                return found
        return None

    def leaves(self, task: str) -> tuple[str, ...]:
        """The tasks below a group, in order; the task itself when it is none."""
        groups, open_, seen = self.table("group_subtasks"), [task], {task}
        found: list[str] = []
        while open_ and len(found) < MAX_LEAVES:
            name = open_.pop(0)
            members = groups.get(name)
            below = [str(member) for member in members[:MAX_LEAVES]] if isinstance(members, list) else []
            if not below:
                found.append(name)
            open_[:0] = [member for member in below if member not in seen]
            seen.update(below)
        return tuple(found)

    def subtasks(self) -> frozenset[str]:
        """Every task that is part of a group with scores of its own."""
        scored = {key.task for key in self.scores}
        below: set[str] = set()
        for group, members in self.table("group_subtasks").items():
            if group in scored and isinstance(members, list) and members:
                below.update(str(member) for member in members)
                below.update(self.leaves(group))
        return frozenset(below)

    def samples(self, task: str) -> Path | None:
        """The file of the answers to one task, where it lies beside the results."""
        stamp = _STAMP.search(self.path.stem)
        if stamp is None or "/" in task or task in (".", ".."):
            return None
        place = self.path.with_name(f"samples_{task}_{stamp.group(1)}.jsonl")
        return place if place.is_file() else None


def read_run(path: Path) -> Run:
    """Read one results file.

    Raises:
        DocumentError: missing, too large or not strict JSON; the harness writes NaN where it divided by nothing.
        PublisherError: it holds no score.
    """
    document = mapping(jsonio.loads_json(jsonio.read_bytes(path, MAX_RESULTS), str(path)))
    scores = {**dict(_scores(mapping(document.get("groups")))), **dict(_scores(mapping(document.get("results"))))}
    if not scores:
        raise PublisherError(
            f"{path} holds no scores of lm-evaluation-harness.",
            hint="Give a results_*.json it wrote, or the folder that holds it.",
        )
    return Run(path=path, document=document, scores=scores)


def read_runs(place: Path) -> tuple[Run, ...]:
    """The runs at a place: a results file, or every `results_*.json` below a folder, by name.

    Raises:
        DocumentError: as `read_run`.
        PublisherError: the folder holds none or too many, or a file holds no score.
    """
    if not place.is_dir():
        return (read_run(place),)
    found = sorted(place.rglob("results_*.json"))[: MAX_FILES + 1]
    if not found or len(found) > MAX_FILES:
        told = f"more than {MAX_FILES}" if found else "no"
        raise PublisherError(f"{place} holds {told} results_*.json.", hint="Name the results files themselves.")
    return tuple(read_run(path) for path in found)


def model_args(run: Run) -> Mapping[str, Any]:
    """The arguments of the model: a mapping in newer files, `key=value,key=value` in older ones."""
    found = run.table("config").get("model_args")
    if isinstance(found, Mapping):
        return found
    pairs = (pair.partition("=") for pair in found.split(",")) if isinstance(found, str) else ()
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


def whole(value: Any) -> int | None:
    """The value where it is a whole number from zero up."""
    return value if type(value) is int and value >= 0 else None


def number(value: Any) -> float | None:
    """The value where it is a finite number; numpy's single-precision numbers were written as strings."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if type(value) not in (int, float):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return found if math.isfinite(found) else None


def score(value: Any) -> float | None:
    """The value where it is a number that something may have scored."""
    found = number(value)
    return found if found is not None and abs(found) <= MAX_SCORE else None


def _scores(tasks: Mapping[str, Any]) -> Iterator[tuple[Key, Score]]:
    for task, values in tasks.items():
        own = mapping(values)
        for name, value in own.items():
            metric, comma, filter_name = name.partition(",")
            if not comma or (metric.endswith("_stderr") and f"{metric[:-7]},{filter_name}" in own):
                continue
            found = score(value)
            if found is not None:
                error = score(own.get(f"{metric}_stderr,{filter_name}"))
                known = error if error is not None and error >= 0 else None
                yield Key(task, metric, filter_name), Score(found, known)
