"""What makes two runs comparable, and which field differs where they are not.

Compared are the version of the task, shots, prompt, data set and split, documents asked, generation arguments, chat
template, system prompt, the filter and the metric as configured, and the arguments of the model that change a prompt
(`data/evals/protocol.json`). A group is compared task by task. The harness's own version may differ: what matters of it
is the version of the task. Seeds are no protocol but samples of one; `seeds_differ` says when two sides drew different
shots. A field that no side recorded cannot be compared and is left out; one that a single side recorded differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.evals.results import Key, Run, mapping, model_args, number, whole

HASH = "task_hashes"
MAX_SHOWN = 100
MAX_TOLD = 8
_CODE = re.compile(r"\s*(?:def |@|lambda|<|functools\.)")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field in which two runs are unlike.

    Args:
        field: its name as the harness writes it.
        task: where it is set; empty for the run as a whole.
        baseline: what the first run has, ready to print.
        result: what the second one has.
    """

    field: str
    task: str
    baseline: str
    result: str

    def __str__(self) -> str:
        place = f"{self.field} of {self.task[:MAX_SHOWN]}" if self.task else self.field
        return f"{place} is {self.baseline} in one and {self.result} in the other"

    def to_json(self) -> dict[str, str]:
        """As JSON."""
        return {"field": self.field, "task": self.task, "baseline": self.baseline, "result": self.result}


class UnlikeProtocols(PublisherError):
    """Two runs measured different things; nothing is computed from them."""

    def __init__(self, key: Key, labels: tuple[str, str], found: Sequence[Difference]) -> None:
        more = f"; and {len(found) - MAX_TOLD} more" if len(found) > MAX_TOLD else ""
        told = "; ".join(map(str, found[:MAX_TOLD])) + more
        super().__init__(
            f"{labels[0]} and {labels[1]} cannot be compared on {key}: {told}.",
            hint="Run both with the same protocol, or leave the task out with --task.",
        )
        self.differences = tuple(found)


def differences(one: Run, other: Run, key: Key) -> tuple[Difference, ...]:
    """Every field in which two runs are unlike for one score; empty where they may be compared.

    The hash that the harness takes over documents, prompts and targets is the last one, field `HASH`: with unlike
    seeds or several processes it differs for harmless reasons, which only the samples can tell.
    """
    found = [*_whole_run(one, other), *_versions(one, other, key.task)]
    left, right = one.leaves(key.task), other.leaves(key.task)
    if left != right:
        found.append(_difference("group_subtasks", key.task, list(left), list(right)))
    for task in left if left == right else ():
        found.extend(_task(one, other, task, key))
    return tuple(found)


def shots(run: Run, task: str) -> int | None:
    """How many examples a task's prompt has."""
    told = whole(run.table("n-shot").get(task))
    return told if told is not None else whole(run.config(task).get("num_fewshot"))


def seeds(run: Run) -> tuple[tuple[str, int], ...]:
    """The seeds a run was made with, by name; those in arguments of generation and of the model among them."""
    config = run.table("config")
    found = {name: number(config.get(name)) for name in _facts()["seeds"]}
    for place, holder in (("gen_kwargs", arguments(config.get("gen_kwargs"))), ("model_args", model_args(run))):
        found[f"{place}.seed"] = number(holder.get("seed"))
    return tuple((name, int(value)) for name, value in found.items() if value is not None)


def fewshot_seed(run: Run, key: Key) -> int | None:
    """The seed that drew the examples of the prompt; None where none are drawn."""
    drawn = False
    for task in run.leaves(key.task):
        sampler = mapping(run.config(task).get("fewshot_config")).get("sampler")
        drawn = drawn or (bool(shots(run, task)) and sampler not in _facts()["fixed_samplers"])
    seed = run.table("config").get("fewshot_seed")
    return seed if drawn and type(seed) is int else None


def seeds_differ(baseline: Sequence[Run], results: Sequence[Run], key: Key) -> Difference | None:
    """Whether two sides drew different examples: the same seeds are alike, and so are several against several."""
    one, other = (
        sorted({s for run in side if (s := fewshot_seed(run, key)) is not None}) for side in (baseline, results)
    )
    if one == other or (len(one) > 1 and len(other) > 1):
        return None
    return _difference("fewshot_seed", "", one[0] if len(one) == 1 else one, other[0] if len(other) == 1 else other)


def partial(run: Run, key: Key) -> bool:
    """Whether only some documents of the split were asked."""
    if run.table("config").get("limit") is not None:
        return True
    return any(count[0] != count[1] for task in run.leaves(key.task) if None not in (count := run.documents(task)))


def arguments(value: Any) -> Mapping[str, Any]:
    """Arguments of generation: a mapping, or `key=value,key=value` as the command line takes them."""
    if isinstance(value, Mapping):
        return value
    pairs = (pair.partition("=") for pair in value.split(",")) if isinstance(value, str) else ()
    return {name.strip(): text.strip() for name, equals, text in pairs if equals}


# --- fields --------------------------------------------------------------------------------------------------------


def _facts() -> Mapping[str, Any]:
    facts: Mapping[str, Any] = jsonio.data("evals/protocol.json")
    return facts


def _whole_run(one: Run, other: Run) -> Iterator[Difference]:
    template, system = "chat_template_sha", "system_instruction_sha"
    yield from _compared(template, "", *(_digest(run, template) for run in (one, other)))
    yield from _compared(system, "", *(_digest(run, system) for run in (one, other)))
    if _digest(one, template) is not None and _digest(other, template) is not None:
        names = [bool(run.document.get("fewshot_as_multiturn")) for run in (one, other)]
        yield from _compared("fewshot_as_multiturn", "", *names)
    yield from _compared("limit", "", *(run.table("config").get("limit") for run in (one, other)))
    given = [model_args(run) for run in (one, other)]
    for name in _facts()["model_args"]:
        yield from _compared(f"model_args.{name}", "", *(_plain(holder.get(name)) for holder in given))


def _digest(run: Run, name: str) -> Any:
    """A text's sha256; the text itself where an older harness kept no digest; None where none was applied."""
    return run.document.get(name) or run.document.get(name.removesuffix("_sha")) or None


def _versions(one: Run, other: Run, task: str) -> Iterator[Difference]:
    if task in one.leaves(task):
        return  # compared with the tasks
    yield from _compared("version", task, *(_version(run, task) for run in (one, other)))


def _version(run: Run, task: str) -> Any:
    found = run.table("versions").get(task)
    found = mapping(run.config(task).get("metadata")).get("version") if found is None else found
    return value if (value := number(found)) is not None else found


def _task(one: Run, other: Run, task: str, key: Key) -> Iterator[Difference]:
    runs, configs = (one, other), (one.config(task), other.config(task))
    yield from _compared("version", task, *(_version(run, task) for run in runs))
    yield from _compared("num_fewshot", task, *(shots(run, task) for run in runs))
    for position, name in enumerate(("original", "effective")):
        yield from _compared(f"n-samples.{name}", task, *(run.documents(task)[position] for run in runs))
    names = list(_facts()["task"]) + (_facts()["with_shots"] if shots(one, task) else [])
    for name in names:
        yield from _compared(name, task, *(_told(config, name) for config in configs))
    yield from _compared("dataset_kwargs", task, *(_dataset(config) for config in configs))
    if shots(one, task) and all("fewshot_config" in config for config in configs):
        for name in _facts()["fewshot_config"]:
            drawn = [mapping(config["fewshot_config"]).get(name) for config in configs]
            yield from _compared(f"fewshot_config.{name}", task, *drawn)
    if "generate_until" in (config.get("output_type", "generate_until") for config in configs):
        yield from _compared("generation_kwargs", task, *(generation(run, task) or None for run in runs))
    for name, wanted in (("filter_list", key.filter), ("metric_list", key.metric)):
        yield from _compared(name, task, *(_entry(config.get(name), wanted) for config in configs))
    if fewshot_seed(one, key) == fewshot_seed(other, key):
        hashes = [run.table(HASH).get(task) for run in runs]
        if None not in hashes:
            yield from _compared(HASH, task, *hashes)


def _told(config: Mapping[str, Any], name: str) -> Any:
    """A field of a task; an empty text says as much as none, but between prompt and answer."""
    found = config.get(name)
    return None if found == "" and name not in ("target_delimiter", "fewshot_delimiter") else found


def _dataset(config: Mapping[str, Any]) -> Any:
    """What of a data set's arguments chooses the data; a place on one machine does not."""
    elsewhere = _facts()["dataset_kwargs_elsewhere"]
    return {
        name: value for name, value in mapping(config.get("dataset_kwargs")).items() if name not in elsewhere
    } or None


def generation(run: Run, task: str) -> Mapping[str, Any]:
    """The arguments of generation in force: a run's are merged into the task's, or stand alone in a cut file."""
    found = run.config(task).get("generation_kwargs")
    found = found if isinstance(found, Mapping) else arguments(run.table("config").get("gen_kwargs"))
    return {name: _plain(value) for name, value in found.items() if name != "seed"}


def _plain(value: Any) -> Any:
    """`0`, `0.0` and `"0.0"` are one; so are truth values and their names."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value if isinstance(value, bool) or (found := number(value)) is None else found


def _entry(entries: Any, name: str) -> Any:
    """A filter or metric of a task by name; None where the list says nothing of it."""
    found = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    return next((entry for entry in found if name in (entry.get("name"), entry.get("metric"))), None)


def _compared(field: str, task: str, one: Any, other: Any) -> Iterator[Difference]:
    if not _same(one, other):
        yield _difference(field, task, one, other)


def _same(one: Any, other: Any) -> bool:
    """Whether two values say the same; the text of a function is compared without the place in memory."""
    if isinstance(one, str) and isinstance(other, str):
        if one == other:
            return True
        code = bool(_CODE.match(one)) and bool(_CODE.match(other))
        return code and _ADDRESS.sub("", one) == _ADDRESS.sub("", other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _difference(field: str, task: str, one: Any, other: Any) -> Difference:
    return Difference(field=field, task=task, baseline=_shown(one), result=_shown(other))


def _shown(value: Any) -> str:
    if value is None:
        return "not recorded"
    text = jsonio.dump_line(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
