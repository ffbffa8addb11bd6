"""What is written for the Hub, read and rebuilt by its own client."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard
from huggingface_hub import eval_result_entries_to_yaml as entries_to_yaml
from huggingface_hub import parse_eval_result_entries as parse_entries
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from publisher import jsonio
from publisher.evals import hub
from publisher.evals.compare import compare
from publisher.evals.comparison import Comparison
from tests.evals.conftest import document, write

STRICT, FLEXIBLE = "gsm8k:exact_match,strict-match", "gsm8k:exact_match,flexible-extract"


def compared(folder: Path, *, effective: int = 1319) -> Comparison:
    paths = []
    for name, value in (("b", 0.9151), ("a", 0.9136)):
        body = document(
            {STRICT: (value, 0.0077), FLEXIBLE: (value + 0.01, 0.0077), "mmlu:acc,none": (value, 0.002)}, n=1319
        )
        body["configs"]["gsm8k"]["filter_list"].append(
            {"name": "flexible-extract", "filter": [{"function": "take_first"}]}
        )
        body["configs"]["gsm8k"]["dataset_path"] = "openai/gsm8k"
        body["configs"]["mmlu"]["dataset_path"] = "json"
        body["n-samples"]["gsm8k"]["effective"] = effective
        paths.append(write(folder / name, body))
    return compare([f"INT4={paths[0]}"], [f"NVFP4={paths[1]}"])


def test_model_index_is_what_the_client_makes_of_the_same_figures(tmp_path: Path) -> None:
    ours = hub.model_index(compared(tmp_path), name="Tiny-NVFP4")
    task = {"task_type": "text-generation"}
    gsm8k = {
        **task,
        "dataset_type": "openai/gsm8k",
        "dataset_name": "gsm8k",
        "dataset_config": "main",
        "dataset_split": "test",
    }
    mmlu = {**task, "dataset_type": "mmlu", "dataset_name": "mmlu", "dataset_config": "main", "dataset_split": "test"}
    told = "5-shot, exact_match, {}, n = 1,319"
    wanted = [
        EvalResult(**gsm8k, metric_type="exact_match", metric_value=91.36, metric_name=told.format("strict-match")),
        EvalResult(**gsm8k, metric_type="exact_match", metric_value=92.36, metric_name=told.format("flexible-extract")),
        EvalResult(**mmlu, metric_type="acc", metric_value=91.36, metric_name="5-shot, acc, n = 1,319"),
    ]
    assert ours == eval_results_to_model_index("Tiny-NVFP4", wanted)
    assert model_index_to_eval_results(ours)[0] == "Tiny-NVFP4"


def test_the_client_reads_it_in_a_card(tmp_path: Path) -> None:
    ours = hub.model_index(compared(tmp_path), name="Tiny-NVFP4")
    card = ModelCard(f"---\n{jsonio.dump_yaml({'model-index': ours})}---\n# Tiny\n")
    assert [result.metric_value for result in card.data.eval_results or []] == [91.36, 92.36, 91.36]


def test_eval_results_is_what_the_client_makes_of_the_same_figures(tmp_path: Path) -> None:
    source = "https://huggingface.co/org/name/blob/main/eval/results.json"
    files = hub.eval_results(compared(tmp_path), format_name="NVFP4", source=source)
    entry = EvalResultEntry(
        dataset_id="openai/gsm8k",
        task_id="gsm8k",
        value=91.36,
        date="2026-11-21",
        source_url=source,
        notes="NVFP4; lm-evaluation-harness 0.4.11; gsm8k; 5-shot, exact_match, strict-match, n = 1,319",
    )
    assert files == {"gsm8k.yaml": entries_to_yaml([entry])}
    text = jsonio.dump_yaml(files["gsm8k.yaml"])
    assert parse_entries(yaml.safe_load(text)) == [entry]


def test_a_score_of_a_part_is_no_score_of_the_benchmark(tmp_path: Path) -> None:
    found = compared(tmp_path, effective=100)
    assert hub.eval_results(found) == {}
    assert [result["dataset"]["name"] for result in hub.model_index(found, name="x")[0]["results"]] == ["mmlu"]


def test_nothing_whole_is_no_index(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        body = document({"quiz:acc,none": (0.5, 0.1)})
        body["config"]["limit"] = 100
        paths.append(write(tmp_path / name, body))
    assert hub.model_index(compare([paths[0]], [paths[1]]), name="x") == []


@pytest.mark.parametrize("field", ["task", "metric", "filter", "dataset", "task_id"])
def test_the_table_of_benchmarks_is_complete(field: str) -> None:
    assert all(entry[field] for entry in jsonio.data("evals/benchmarks.json")["benchmarks"])


def test_files_are_replaced_and_a_person_s_own_are_left(tmp_path: Path) -> None:
    files = hub.eval_results(compared(tmp_path))
    own = tmp_path / ".eval_results" / "own.yaml"
    assert hub.write(tmp_path, files) == [".eval_results/gsm8k.yaml"] == hub.written(tmp_path)
    own.write_text("- dataset: {id: a/b, task_id: c}\n  value: 1\n")
    assert hub.write(tmp_path, {}) == [] == hub.written(tmp_path)
    assert own.exists()
    assert not (tmp_path / ".eval_results" / "gsm8k.yaml").exists()
