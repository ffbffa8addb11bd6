"""Make the results and samples beside this file with the real lm-evaluation-harness; no test runs it.

In an environment with lm-eval: `python make.py FOLDER`, in this folder, once per version kept here. The model is made
up (a coin per document, weighted), the files are what the harness itself writes; only `pretty_env_info`, which
describes a machine, is cut.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import lm_eval
from lm_eval.api.model import LM
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager


class Coin(LM):
    """Answers right with a given chance; a document is as hard for one skill as for another, so two runs correlate."""

    def __init__(self, skill: float, seed: int = 0) -> None:
        super().__init__()
        self.skill, self.seed = skill, seed

    def _draw(self, *parts: str) -> float:
        return int(hashlib.sha256("|".join(parts).encode()).hexdigest()[:8], 16) / 0xFFFFFFFF

    def loglikelihood(self, requests, disable_tqdm=False):
        found = []
        for request in requests:
            right = request.doc["choices"][request.doc["gold"]].strip() == request.args[1].strip()
            able = 0.7 * self._draw(request.args[0]) + 0.3 * self._draw(request.args[0], f"{self.skill}") < self.skill
            found.append((-1.0 if right == able else -2.0 - self._draw(*request.args), right == able))
        return found

    def generate_until(self, requests, disable_tqdm=False):
        found = []
        for request in requests:
            last = request.args[0].rsplit("\n", 1)[-1]
            able = 0.7 * self._draw(last) + 0.3 * self._draw(last, f"{self.skill} {self.seed}") < self.skill
            answer = str(request.doc["answer"] if able else 1000 + request.doc["answer"])
            found.append(f" {answer}" if self._draw(last, "form") < 0.8 else f" It is {answer}.")
        return found

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


def documents() -> None:
    sums = [{"question": f"{a} + {a * 7 % 13}", "answer": a + a * 7 % 13} for a in range(1, 25)]
    shots = [{"question": f"{a} + 1", "answer": a + 1} for a in range(50, 56)]
    colours = [{"question": f"Colour {n}?", "choices": ["red", "green", "blue"], "gold": n % 3} for n in range(16)]
    numbers = [{"question": f"Is {n} even?", "choices": ["yes", "no"], "gold": n % 2} for n in range(10)]
    named = {"sums": sums, "shots": shots, "colours": colours, "numbers": numbers}
    for name, rows in named.items():
        Path(f"tasks/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(folder: Path, name: str, skill: float, seed: int) -> None:
    tracker = EvaluationTracker(output_path=str(folder / name))
    results = lm_eval.simple_evaluate(
        model=Coin(skill, seed),
        model_args="",
        tasks=["tiny", "tiny_sums"],
        task_manager=TaskManager(include_path="tasks", include_defaults=False),
        log_samples=True,
        random_seed=seed, numpy_random_seed=seed, torch_random_seed=seed, fewshot_random_seed=seed,
        evaluation_tracker=tracker,
    )  # fmt: skip
    samples = results.pop("samples")
    results["pretty_env_info"] = ""
    results["config"]["model_args"] = f"pretrained=org/{name}"
    tracker.general_config_tracker.model_name = f"org/{name}"
    tracker.general_config_tracker.model_name_sanitized = f"org__{name}"
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])


if __name__ == "__main__":
    documents()
    place = Path(sys.argv[1])
    run(place, "source", 0.62, int(sys.argv[2]) if len(sys.argv) > 2 else 1234)
    run(place, "quantized", 0.55, int(sys.argv[2]) if len(sys.argv) > 2 else 1234)
