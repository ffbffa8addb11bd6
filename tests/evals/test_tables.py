"""Rows as a reader sees them, and the facts without which they cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.evals import tables
from publisher.evals.compare import compare
from publisher.evals.comparison import Estimate
from tests.evals.conftest import document, real, write


def test_one_row_per_score_under_its_head(tmp_path: Path) -> None:
    base = write(tmp_path / "b", document({"quiz:exact_match,strict-match": (0.9151, 0.0077)}, n=1319))
    ours = write(tmp_path / "a", document({"quiz:exact_match,strict-match": (0.9136, 0.0077)}, n=1319))
    found = compare([f"INT4={base}"], [f"NVFP4={ours}"], average=["all"])
    assert tables.head(found) == ("Benchmark", "Setup", "INT4", "NVFP4", "Δ", "z", "Confidence", "Recovery")
    row, average = tables.rows(found)
    assert row == (
        "quiz", "5-shot, exact_match, strict-match, n = 1,319", "91.51% ± 0.77", "91.36% ± 0.77", "−0.15 pp ± 1.09",
        "−0.14", "11%", "99.84%",
    )  # fmt: skip
    assert average[:4] == ("Average", "mean of 1", "91.51%", "91.36%")


def test_runs_and_what_is_not_there(tmp_path: Path) -> None:
    assert tables.score(Estimate(value=93.55, deviation=0.49, runs=3), True) == "93.55% ± 0.49 (SD of 3)"
    assert tables.score(Estimate(value=8.12345, stderr=0.01), False) == "8.123 ± 0.01"
    base = write(tmp_path / "a", document({"x:acc,none": (0.5, "N/A"), "y:acc,none": (0.5, 0.1)}, model_name="a"))
    other = write(tmp_path / "b", document({"y:acc,none": (0.5, 0.1)}, model_name="b"))
    ours = write(tmp_path / "c", document({"x:acc,none": (0.6, "N/A"), "y:acc,none": (0.6, 0.1)}, model_name="c"))
    (row, _) = tables.rows(compare([base, other], [ours]))
    assert row[2:] == ("50.00%", "–", "60.00%", "+10.00 pp", "–", "–", "120.00%")


@pytest.mark.parametrize(("value", "told"), [(0.001, "0.00"), (-0.004, "0.00"), (1.06, "+1.06"), (-5.8, "−5.80")])
def test_a_difference_has_a_sign_unless_it_rounds_to_nothing(value: float, told: str) -> None:
    assert tables.signed(value, True) == told


def test_confidence_is_never_certain() -> None:
    assert [tables.percentage(sure) for sure in (0.0, 0.108, 0.9899, 0.991, 1.0)] == [
        "0%",
        "11%",
        "99%",
        ">99%",
        ">99%",
    ]


def test_lower_is_better_and_a_part_are_said(tmp_path: Path) -> None:
    paths = []
    for value in (9.0, 9.3):
        body = document({"wiki:word_perplexity,none": (value, 0.1)})
        body["higher_is_better"]["wiki"] = {"word_perplexity": False}
        body["n-samples"] = {"wiki": {"original": 2000, "effective": 100}}
        paths.append(write(tmp_path / str(value), body))
    found = compare([paths[0]], [paths[1]])
    assert tables.setup(found.lines[0]) == "5-shot, word_perplexity, n = 100 of 2,000, lower is better"
    assert "Partial" in dict(tables.facts(found))


def test_the_facts_of_real_runs() -> None:
    told = dict(tables.facts(compare([real("0.4.11", "source")], [real("0.4.13", "quantized")])))
    assert told["Harness"] == "lm-evaluation-harness 0.4.11 and 0.4.13"
    assert told["Chat template"] == "not applied"
    assert told["Generation"] == "tiny_sums at temperature 0"
    assert told["Seeds"] == "1234"
    assert told["Standard error of Δ"] == "independent errors"
    assert told["Δ"].startswith("org/quantized minus org/source")


def test_a_row_has_as_many_cells_as_the_head() -> None:
    found = compare([real("0.4.11", "source")], [real("0.4.11", "quantized")], average=["all"])
    assert {len(row) for row in tables.rows(found)} == {len(tables.head(found))}
    assert all(cell for row in tables.rows(found) for cell in row)
    json.dumps(tables.rows(found))
