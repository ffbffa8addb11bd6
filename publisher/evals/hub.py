"""A comparison's result as the Hub takes it: `model-index` of a card and `.eval_results/*.yaml` of a repository.

`model-index` (huggingface.co/docs/hub/model-cards, huggingface_hub `EvalResult`) takes any task; `.eval_results`
(huggingface.co/docs/hub/eval-results) only benchmarks that are registered there, which `data/evals/benchmarks.json`
maps. Both get percentages, and the protocol as text, because both are read without the table. A score of a part of the
documents is no score of the benchmark and is left out; so are baselines, which are another model's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.evals.comparison import Comparison, Line
from publisher.evals.results import mapping
from publisher.evals.tables import setup

FOLDER = ".eval_results"
TEXT_GENERATION = "text-generation"
DECIMALS = 4
MARK = "# Written by fp4-publisher from the results of lm-evaluation-harness.\n"


def model_index(comparison: Comparison, *, name: str, task: str = TEXT_GENERATION) -> list[dict[str, Any]]:
    """The value of the key `model-index` of a card; empty where no score is of a whole benchmark.

    Args:
        comparison: what was measured.
        name: the model's, without its owner.
        task: the Hub's name of what the model does.
    """
    grouped: dict[str, dict[str, Any]] = {}
    for line in _whole(comparison):
        dataset = _dataset(line)
        entry = grouped.setdefault(
            jsonio.dump_line({**dataset, "name": ""}), {"task": {"type": task}, "dataset": dataset, "metrics": []}
        )
        entry["metrics"].append(
            {"type": line.key.metric if line.key else "", "value": _value(line), "name": _told(line)}
        )
    return [{"name": name, "results": list(grouped.values())}] if grouped else []


def eval_results(comparison: Comparison, *, format_name: str = "", source: str = "") -> dict[str, list[dict[str, Any]]]:
    """Entries by file name below `.eval_results`, for the registered benchmarks among the scores.

    Args:
        comparison: what was measured.
        format_name: how the weights are stored, for the notes: NVFP4.
        source: a web address of the results themselves; left out when empty.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for line in _whole(comparison):
        benchmark = _benchmark(line)
        if benchmark is None:
            continue
        file = f"{benchmark['dataset'].rpartition('/')[2].lower()}.yaml"
        known = {(entry["dataset"]["id"], entry["dataset"]["task_id"]) for entry in found.get(file, [])}
        if (benchmark["dataset"], benchmark["task_id"]) not in known:
            found.setdefault(file, []).append(_entry(line, benchmark, format_name, source))
    return found


def write(folder: Path, files: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Write `.eval_results/*.yaml` below a folder and remove what an earlier call wrote there and this one does not.

    Returns:
        The paths written, relative to the folder.
    """
    for stale in set(written(folder)) - {f"{FOLDER}/{name}" for name in files}:
        (folder / stale).unlink()
    for name, entries in sorted(files.items()):
        jsonio.write_atomic(folder / FOLDER / name, MARK + jsonio.dump_yaml([dict(entry) for entry in entries]))
    return [f"{FOLDER}/{name}" for name in sorted(files)]


def written(folder: Path) -> list[str]:
    """The files that `write` left below a folder, known by their first line; a person's own are not among them."""
    found = []
    for path in sorted((folder / FOLDER).glob("*.yaml")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(len(MARK.encode())) == MARK.encode():
                    found.append(f"{FOLDER}/{path.name}")
    return found


def _entry(line: Line, benchmark: Mapping[str, str], format_name: str, source: str) -> dict[str, Any]:
    harness = f"lm-evaluation-harness {line.run.harness}" if line.run and line.run.harness else "lm-evaluation-harness"
    task = line.key.task if line.key else ""
    entry: dict[str, Any] = {
        "dataset": {"id": benchmark["dataset"], "task_id": benchmark["task_id"]},
        "value": _value(line),
        "notes": "; ".join(part for part in (format_name, harness, task, _told(line)) if part),
    }
    if line.run is not None and line.run.date is not None and 0 <= line.run.date < 1e11:
        entry["date"] = time.strftime("%Y-%m-%d", time.gmtime(line.run.date))
    if source:
        entry["source"] = {"url": source}
    return entry


def _whole(comparison: Comparison) -> Iterator[Line]:
    yield from (line for line in comparison.lines if not line.partial and line.key is not None)


def _value(line: Line) -> float:
    return round(line.result.value, DECIMALS)


def _told(line: Line) -> str:
    runs = f", mean of {line.result.runs} runs" if line.result.runs > 1 else ""
    return setup(line) + runs


def _benchmark(line: Line) -> Mapping[str, str] | None:
    key = line.key
    if key is None:
        return None
    for entry in jsonio.data("evals/benchmarks.json")["benchmarks"]:
        if (entry["task"], entry["metric"], entry["filter"]) == (key.task, key.metric, key.filter):
            found: Mapping[str, str] = entry
            return found
    return None


def _dataset(line: Line) -> dict[str, str]:
    """The data set of a score as its task names it; of a group only what all its tasks share."""
    task = line.key.task if line.key else ""
    configs = [line.run.config(leaf) for leaf in line.run.leaves(task)] if line.run else []
    path = _shared(configs, "dataset_path")
    local = not path or path in jsonio.data("evals/benchmarks.json")["builders"] or path.startswith((".", "/"))
    named = {
        "type": task if local else path,
        "config": _shared(configs, "dataset_name"),
        "split": _shared(configs, "test_split") or _shared(configs, "validation_split"),
        "revision": _shared([mapping(config.get("dataset_kwargs")) for config in configs], "revision"),
    }
    return {"name": task, **{key: value for key, value in named.items() if value}}


def _shared(configs: list[Mapping[str, Any]], name: str) -> str:
    found = {value if isinstance(value := config.get(name), str) else "" for config in configs}
    return found.pop() if len(found) == 1 else ""
