"""Results and samples of lm-evaluation-harness: real ones, kept in `harness/`, and made-up ones of the same shape."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

HARNESS = Path(__file__).parent / "harness"
SECONDS = itertools.count()
STAMP = "2026-05-04T03-02-01.123456"


def task_config(
    task: str, *, shots: int = 5, metric: str = "acc", filter_name: str = "none", **more: Any
) -> dict[str, Any]:
    return {
        "task": task,
        "dataset_path": f"org/{task}",
        "dataset_name": "main",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "description": "",
        "target_delimiter": " ",
        "fewshot_delimiter": "\n\n",
        "num_fewshot": shots,
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
        "output_type": "multiple_choice",
        "repeats": 1,
        "metadata": {"version": 1.0},
        **(
            {}
            if filter_name == "none"
            else {"filter_list": [{"name": filter_name, "filter": [{"function": "take_first"}]}]}
        ),
        **more,
    }


def document(
    scores: Mapping[str, tuple[float, float | str]], *, n: int = 1000, seed: int = 1234, **changes: Any
) -> dict[str, Any]:
    """A results document as 0.4.11 writes it; `scores` by `task:metric,filter`, each a value and its standard error."""
    results: dict[str, dict[str, Any]] = {}
    configs: dict[str, Any] = {}
    for name, (value, error) in scores.items():
        task, _, rest = name.partition(":")
        metric, _, filter_name = rest.partition(",")
        results.setdefault(task, {"alias": task})[rest] = value
        results[task][f"{metric}_stderr,{filter_name}"] = error
        configs.setdefault(task, task_config(task, metric=metric, filter_name=filter_name))
        known = {entry["metric"] for entry in configs[task]["metric_list"]}
        if metric not in known:
            configs[task]["metric_list"].append({"metric": metric, "aggregation": "mean", "higher_is_better": True})
    found = {
        "results": results,
        "group_subtasks": {task: [] for task in results},
        "configs": configs,
        "versions": dict.fromkeys(results, 1.0),
        "n-shot": dict.fromkeys(results, 5),
        "higher_is_better": {task: {e["metric"]: True for e in configs[task]["metric_list"]} for task in results},
        "n-samples": {task: {"original": n, "effective": n} for task in results},
        "config": {
            "model": "local-completions",
            "model_args": {"model": "served", "base_url": "http://127.0.0.1:8000/v1/completions"},
            "limit": None,
            "gen_kwargs": None,
            **dict.fromkeys(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), seed),
        },
        "date": 1795252898.25 + next(SECONDS),  # no two runs begin at the same moment
        "lm_eval_version": "0.4.11",
        "model_name": "org/model",
        "task_hashes": {},
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": None,
    }
    return {**found, **changes}


def sample(
    identity: int, value: Any, *, metric: str = "acc", filter_name: str = "none", text: str = ""
) -> dict[str, Any]:
    """A line of a samples file."""
    body = text or f"document {identity}"
    return {
        "doc_id": identity,
        "doc": {"question": body},
        "filter": filter_name,
        "metrics": [metric],
        "doc_hash": hashlib.sha256(body.encode()).hexdigest(),
        "prompt_hash": hashlib.sha256(f"prompt {body}".encode()).hexdigest(),
        "target_hash": hashlib.sha256(b"target").hexdigest(),
        metric: value,
    }


def write(
    folder: Path, body: Mapping[str, Any], samples: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> str:
    """Write a run as the harness lays it out; returns the path of its results."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"results_{STAMP}.json"
    path.write_text(json.dumps(body, indent=2))
    for task, lines in (samples or {}).items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"samples_{task}_{STAMP}.jsonl").write_text(text)
    return str(path)


def real(version: str, model: str) -> str:
    """A run that the harness of that version wrote."""
    return str(HARNESS / version / model)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Two runs with samples: 8 documents, 6 right before, 5 after, 4 of them the same."""
    before, after = [1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 1, 0]
    paths = []
    for name, right in (("before", before), ("after", after)):
        mean = sum(right) / 8
        error = (sum((value - mean) ** 2 for value in right) / 7) ** 0.5 / 8**0.5
        body = document({"quiz:acc,none": (mean, error)}, n=8, model_name=f"org/{name}")
        lines = [sample(number, float(value)) for number, value in enumerate(right)]
        paths.append(write(tmp_path / name, body, {"quiz": lines}))
    return paths[0], paths[1]
