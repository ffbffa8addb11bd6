"""Benchmark scores in a card: from the files card.toml names, in table, metadata, answers and limitations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from publisher.card.benchmarks import benchmarks
from publisher.card.context import card_context, read_person
from publisher.card.render import render
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.source import resolve
from publisher.claims.document import read_document
from publisher.claims.scores import judge
from publisher.errors import PublisherError
from publisher.evals.protocol import UnlikeProtocols
from tests.evals.conftest import document, real, sample, write

STRICT = "gsm8k:exact_match,strict-match"


@pytest.fixture
def named(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "eval"
    for name, value in (("bf16", 0.9151), ("nvfp4", 0.9136)):
        write(folder / name, document({STRICT: (value, 0.0077), "mmlu:acc,none": (value - 0.02, 0.0025)}, n=1319))
    (tmp_path / "card.toml").write_text(
        'base_model = "tiny-org/Tiny-1B"\n[evaluation]\nbaseline = ["BF16=eval/bf16"]\nresults = ["NVFP4=eval/nvfp4"]\n'
        'tasks = ["gsm8k", "mmlu"]\naverage = ["all"]\nsetup = ["Served by vLLM 0.17 on 8 B300, | and *both* alike."]\n'
    )
    return read_person(tmp_path / "card.toml")


def card(nvfp4: Path, inputs: dict[str, Any], person: dict[str, Any]) -> str:
    return render(card_context(checkpoint=open_checkpoint(resolve(str(nvfp4)).files), **{**inputs, "person": person}))


def test_paths_begin_where_card_toml_lies(
    named: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert named["evaluation"]["baseline"] == [f"BF16={tmp_path}/eval/bf16"]
    assert benchmarks(named["evaluation"], title="x", task="text-generation", format_name="NVFP4") is not None


def test_the_card_prints_scores_and_how_they_were_measured(
    nvfp4: Path, inputs: dict[str, Any], named: dict[str, Any]
) -> None:
    text = card(nvfp4, inputs, named)
    assert "| Benchmark | Setup | BF16 | NVFP4 | Δ | z | Confidence | Recovery |" in text
    row = next(line for line in text.splitlines() if line.startswith("| gsm8k "))
    for told in (
        "5-shot, exact_match, strict-match, n = 1,319",
        "91.51% ± 0.77",
        "91.36% ± 0.77",
        "−0.15 pp ± 1.09",
        "99.84%",
    ):
        assert told in row
    assert "| Average | mean of 2 | 90.51% | 90.36% | −0.15 pp ± 0.57 |" in text
    assert "Harness: lm-evaluation-harness 0.4.11" in text
    assert r"Served by vLLM 0.17 on 8 B300, \| and \*both\* alike." in text
    assert "the average: 90.36%, −0.15 pp against BF16, 99.83% recovered" in text
    assert "Not evaluated" not in text
    assert "Accuracy was not measured" not in text
    assert "say little about other tasks" in text


def test_the_hub_s_client_reads_the_scores(nvfp4: Path, inputs: dict[str, Any], named: dict[str, Any]) -> None:
    found = ModelCard(card(nvfp4, inputs, named)).data
    assert found.model_name == "Tiny-1B-FP4"
    assert [(result.metric_type, result.metric_value) for result in found.eval_results or []] == [
        ("exact_match", 91.36),
        ("acc", 89.36),
    ]


def test_the_perplexity_stands_beside_them(nvfp4: Path, inputs: dict[str, Any], named: dict[str, Any]) -> None:
    text = card(nvfp4, inputs, named)
    assert "Weight-only perplexity" in text
    without = card(nvfp4, {**inputs, "evaluation": None}, named)
    assert "Weight-only perplexity" not in without
    assert "| gsm8k " in without


def test_without_results_nothing_is_claimed(nvfp4: Path, inputs: dict[str, Any]) -> None:
    text = card(nvfp4, {**inputs, "evaluation": None}, {"base_model": "tiny-org/Tiny-1B"})
    assert "Not evaluated. No benchmark was run" in text
    assert "model-index" not in text


def test_runs_that_cannot_be_compared_make_no_card(nvfp4: Path, inputs: dict[str, Any], tmp_path: Path) -> None:
    one, other = real("0.4.11", "source"), real("0.4.11-seed42", "quantized")
    with pytest.raises(UnlikeProtocols, match="fewshot_seed"):
        card(nvfp4, inputs, {"base_model": "a/b", "evaluation": {"baseline": [one], "results": [other]}})


def test_results_that_are_missing_make_no_card(nvfp4: Path, inputs: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text('[evaluation]\nbaseline = ["a.json"]\nresults = ["b.json"]\n')
    with pytest.raises(PublisherError, match=r"b\.json does not exist"):
        card(nvfp4, inputs, {"base_model": "a/b", **read_person(tmp_path / "card.toml")})


@pytest.mark.parametrize(
    "text", ["[evaluation]\n", '[evaluation]\nbaseline = []\nresults = ["a"]\n', "[evaluation]\nscores = 3\n"]
)
def test_half_an_evaluation_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(PublisherError, match=r"`?evaluation`?"):
        read_person(tmp_path / "card.toml")


def test_hostile_names_are_inert(nvfp4: Path, inputs: dict[str, Any], tmp_path: Path) -> None:
    name = "quiz|<b>[x](javascript:alert)`"
    for side in "ab":
        write(tmp_path / side, document({f"{name}:acc,none": (0.5, 0.1)}, model_name="{{ 7 }}|" + side))
    named = {"baseline": [str(tmp_path / "a")], "results": [str(tmp_path / "b")]}
    text = card(nvfp4, inputs, {"base_model": "a/b", "evaluation": named})
    body = text.split("---\n", 2)[2]
    assert "<b>" not in body
    assert r"\[x\]" in body
    assert "[x](" not in body
    assert r"\{\{ 7 \}\}" in body
    assert "{{ 7" not in body


def test_the_card_s_own_figures_hold_what_the_claims_are_held_to(
    nvfp4: Path, inputs: dict[str, Any], tmp_path: Path
) -> None:
    """A z that is paired by document is larger than the scores' own errors give, and its column must say so."""
    right = {"bf16": [n % 10 < 7 for n in range(200)], "nvfp4": [n % 100 < 65 or n % 10 < 6 for n in range(200)]}
    for name, answers in right.items():
        mean = sum(answers) / 200
        body = document({"quiz:acc,none": (mean, 0.03), "more:acc,none": (mean, 0.03)}, n=200)
        lines = [sample(number, float(answer)) for number, answer in enumerate(answers)]
        write(tmp_path / name, body, {"quiz": lines, "more": lines})
    places = {"baseline": [f"BF16={tmp_path}/bf16"], "results": [f"NVFP4={tmp_path}/nvfp4"], "average": ["all"]}
    text = card(nvfp4, inputs, {**inputs["person"], "evaluation": places})
    assert "| z (paired) |" in text
    assert list(judge(read_document(text))) == []
