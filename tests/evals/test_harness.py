"""Starting the harness: its command line, a loopback endpoint, a stand-in and, where there is one, the real harness."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.errors import EngineError, HubError, PublisherError
from publisher.evals import harness
from publisher.evals.compare import compare
from publisher.evals.harness import Request, Subject
from tests.evals.conftest import HARNESS
from tests.evals.endpoint import endpoint, install_stand_in


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(install_stand_in(tmp_path / "packages")))
    return tmp_path / "runs"


def test_both_models_are_asked_alike_and_compared(stand_in: Path) -> None:
    told: list[str] = []
    with endpoint("base") as base, endpoint("ours", wrong={3, 4}) as ours:
        subjects = [Subject(label="BF16", place=base.address), Subject(label="NVFP4", place=f"{ours.address}#any")]
        found = harness.run(subjects, Request(tasks=("sums",), output=stand_in), told.append)
        assert base.prompts == ours.prompts
        line = compare(found["BF16"], found["NVFP4"]).lines[0]
        assert (line.baselines[0] and line.baselines[0].value, line.result.value) == (100.0, 80.0)
        asked = len(ours.prompts)
        assert harness.run(subjects, Request(tasks=("sums",), output=stand_in), told.append) == found
        assert len(ours.prompts) == asked, "what is measured is not measured again"
    assert "lm-evaluation-harness 0.4.11 on sums" in told[0]
    assert "measured already" in told[-1]


def test_seeds_have_runs_of_their_own(stand_in: Path) -> None:
    with endpoint("base") as served:
        request = Request(tasks=("sums",), output=stand_in, seeds=(1, 2))
        found = harness.run([Subject(label="x", place=served.address)], request, lambda _: None)
    assert len(found["x"]) == 2
    seeds = {json.loads(path.read_text())["config"]["fewshot_seed"] for path in stand_in.rglob("results_*")}
    assert seeds == {1, 2}


def test_a_harness_that_fails_is_said_and_leaves_nothing(stand_in: Path) -> None:
    with endpoint("base") as served, pytest.raises(EngineError, match="ended with 3 for x"):
        harness.run([Subject(label="x", place=served.address)], Request(tasks=("broken",), output=stand_in), print)


def test_the_command_line_says_everything(tmp_path: Path) -> None:
    request = Request(
        tasks=("gsm8k", "mmlu"),
        output=tmp_path,
        python="python3",
        shots=5,
        limit=10,
        chat=True,
        tokenizer="org/t",
        generation="temperature=0.6",
        tasks_folder=tmp_path,
        parallel=4,
    )
    found = harness.command(Subject(label="x", place="http://127.0.0.1:1/v1/#name"), request, 7)
    assert found[:5] == ["python3", "-m", "lm_eval", "--model", "local-chat-completions"]
    assert found[6] == (
        "model=name,base_url=http://127.0.0.1:1/v1/chat/completions,num_concurrent=4,tokenizer=org/t,"
        "tokenizer_backend=huggingface"
    )
    rest = " ".join(found[7:])
    for told in ("--tasks gsm8k,mmlu", "--seed 7", "--num_fewshot 5", "--limit 10", "--gen_kwargs temperature=0.6"):
        assert told in rest
    assert rest.endswith("--apply_chat_template")
    local = harness.command(Subject(label="x", place="org/model"), Request(tasks=("a",), output=tmp_path), 1)
    assert local[3:7] == ["--model", "hf", "--model_args", "pretrained=org/model"]


def test_another_protocol_has_another_folder(tmp_path: Path) -> None:
    subject = Subject(label="../x", place="org/model")
    places = set()
    for shots in (None, 5):
        request = Request(tasks=("a",), output=tmp_path, shots=shots)
        places.add(harness.place(request, harness.command(subject, request, 1), subject.label, 1))
    assert len(places) == 2
    assert all(path.parent == tmp_path for path in places)


def test_an_interpreter_without_the_harness_is_refused() -> None:
    with pytest.raises(EngineError, match="has no lm-evaluation-harness"):
        harness.require_harness("/nowhere/python")


def test_an_endpoint_that_names_no_single_model_is_refused(tmp_path: Path) -> None:
    request = Request(tasks=("a",), output=tmp_path)
    with endpoint("a", "b") as served, pytest.raises(PublisherError, match="serves 2 models: a, b"):
        harness.command(Subject(label="x", place=served.address), request, 1)
    with pytest.raises(HubError, match="does not name its models"):
        harness.command(Subject(label="x", place="http://127.0.0.1:9/v1"), request, 1)


def test_a_comma_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="comma in pretrained"):
        harness.command(Subject(label="x", place="/a,b"), Request(tasks=("a",), output=tmp_path), 1)


def interpreter() -> str:
    """An interpreter with the real harness: LM_EVAL_PYTHON, or this one where lm-eval is installed in it."""
    for python in (os.environ.get("LM_EVAL_PYTHON", ""), sys.executable):
        if python and subprocess.run([python, "-c", harness.FOUND], capture_output=True).returncode == 0:
            return python
    return ""


@pytest.mark.slow
def test_the_real_harness_measures_a_small_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = interpreter()
    if not python:
        pytest.skip("no lm-eval here: set LM_EVAL_PYTHON to an interpreter that has it")
    monkeypatch.chdir(HARNESS)  # where the task's own paths begin
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    request = Request(tasks=("tiny_sums",), output=tmp_path, python=python, tasks_folder=HARNESS / "tasks")
    with endpoint("base") as base, endpoint("ours", wrong={1, 2, 3}) as ours:
        subjects = [Subject(label="BF16", place=base.address), Subject(label="NVFP4", place=ours.address)]
        found = harness.run(subjects, request, print)
    line = compare(found["BF16"], found["NVFP4"], tasks=["tiny_sums:exact_match,strict-match"]).lines[0]
    assert line.baselines[0] is not None
    assert line.baselines[0].value == 100.0
    assert line.result.value == pytest.approx(87.5)
    assert line.deltas[0] is not None
    assert line.deltas[0].error is not None
    assert line.deltas[0].error.method == "paired by document"
