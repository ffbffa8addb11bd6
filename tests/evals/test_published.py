"""Evaluation tables of three published model cards, rebuilt from results files made with the cards' own figures.

Every figure that a card derives (differences, averages, recovery, z) is computed again. A printed figure follows when
some values that round to the printed scores give it. `DOUBTFUL` lists those that do not follow, or only with a remark.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from scipy import stats

from publisher.evals import tables
from publisher.evals.compare import compare
from publisher.evals.comparison import Comparison, Delta
from publisher.evals.protocol import UnlikeProtocols
from tests.evals.conftest import document, write

STRICT, FLEXIBLE, MMLU = "gsm8k_cot:exact_match,strict-match", "gsm8k_cot:exact_match,flexible-extract", "mmlu:acc,none"

# Kimi-K2.6-NVFP4: a score and its standard error, of this and of its INT4 source, and the difference printed.
NVFP4 = {
    STRICT: ((91.36, 0.77), (91.51, 0.77), "−0.15"),
    FLEXIBLE: ((92.27, 0.74), (91.21, 0.78), "+1.06"),
    MMLU: ((88.63, 0.26), (89.03, 0.25), "−0.40"),
}
# Kimi-K2.6-MXFP4: mean and standard deviation of three seeds, of this and of its FP8 reference.
MXFP4 = {FLEXIBLE: ((93.55, 0.49), (93.96, 0.49)), STRICT: ((93.60, 0.29), (93.86, 0.53))}
# Kimi-K2.5-P48-NVFP4-W4A4: BF16 base, one-shot baseline, this, and the difference printed.
SPARSE = {
    "arc_challenge:acc_norm,none": (74.23, 62.54, 68.43, "−5.80"),
    "hellaswag:acc_norm,none": (91.86, 84.90, 88.70, "−3.16"),
    "mmlu:acc,none": (89.57, 81.83, 85.45, "−4.12"),
    "truthfulqa_mc2:acc,none": (62.54, 55.83, 60.33, "−2.21"),
    "winogrande:acc,none": (82.48, 79.95, 83.35, "+0.87"),
    "gsm8k:exact_match,none": (94.39, 79.98, 87.79, "−6.60"),
}

DOUBTFUL = {
    ("Kimi-K2.6-MXFP4", "z = 1.26"): "the table gives −1.02 (flexible-extract) and −0.75 (strict-match)",
    (
        "Kimi-K2.6-MXFP4",
        "Δ = +0.40 pp",
    ): "reference minus result; result minus reference, as in its sister cards, is −0.41",
    ("Kimi-K2.6-NVFP4", "gap is consistent across both"): "under 3 shots only the source was run, so there is no gap",
    ("Kimi-K2.5-P48", "95.76%"): "the quotient of the rounded averages; of the unrounded ones it is 95.75 %",
}


@pytest.fixture
def nvfp4(tmp_path: Path) -> Comparison:
    runs = [
        document(
            {name: (own[side][0] / 100, own[side][1] / 100) for name, own in NVFP4.items()}, model_name=f"org/{side}"
        )
        for side in (0, 1)
    ]
    ours, base = (write(tmp_path / str(side), body) for side, body in enumerate(runs))
    return compare([f"INT4={base}"], [f"NVFP4={ours}"], tasks=list(NVFP4))


@pytest.fixture
def mxfp4(tmp_path: Path) -> Comparison:
    """Three values with a given mean and standard deviation: the mean, and one deviation to either side of it."""
    places: tuple[list[str], list[str]] = ([], [])
    for side in (0, 1):
        for step, seed in zip((-1, 0, 1), (42, 1234, 7777), strict=True):
            scores = {name: ((own[side][0] + step * own[side][1]) / 100, 0.0067) for name, own in MXFP4.items()}
            body = document(scores, n=1319, seed=seed)
            places[side].append(f"{('MXFP4', 'FP8')[side]}={write(tmp_path / f'{side}-{seed}', body)}")
    return compare(places[1], places[0], tasks=list(MXFP4))


@pytest.fixture
def sparse(tmp_path: Path) -> Comparison:
    places = []
    for column, label in enumerate(("Base", "One-shot", "Ours")):
        scores = {name: (own[column] / 100, "N/A") for name, own in SPARSE.items()}
        places.append(f"{label}={write(tmp_path / label, document(scores))}")
    return compare(places[:2], places[2:], tasks=list(SPARSE), average=["all"])


def first(comparison: Comparison, position: int = 0) -> Delta:
    found = comparison.lines[position].deltas[0]
    assert found is not None
    return found


def test_differences_and_errors_of_the_nvfp4_card_follow(nvfp4: Comparison) -> None:
    for line, row, (own, base, printed) in zip(nvfp4.lines, tables.rows(nvfp4), NVFP4.values(), strict=True):
        assert line.deltas[0] is not None
        assert tables.signed(line.deltas[0].value, True) == printed
        assert row[2:4] == (f"{base[0]:.2f}% ± {base[1]:.2f}", f"{own[0]:.2f}% ± {own[1]:.2f}")
    zs = [first(nvfp4, position).z or 0.0 for position in range(3)]
    assert zs == [pytest.approx(wanted, abs=0.005) for wanted in (-0.14, 0.99, -1.11)]
    assert all(abs(z) < 1.2 for z in zs), "the card says: every delta is within or near one standard error"


def test_the_standard_errors_of_its_gsm8k_are_those_of_1319_questions() -> None:
    for value, error in (*NVFP4[STRICT][:2], *NVFP4[FLEXIBLE][:2]):
        p = value / 100
        assert 100 * math.sqrt(p * (1 - p) / 1318) == pytest.approx(error, abs=0.005)


def test_its_second_protocol_has_no_gap(tmp_path: Path) -> None:
    """The alternative, 3 shots, was run on the source alone; the program does not set it against 8 shots."""
    ours = document({STRICT: (0.9136, 0.0077)}) | {"n-shot": {"gsm8k_cot": 8}}
    source = document({STRICT: (0.8722, 0.0030)}) | {"n-shot": {"gsm8k_cot": 3}}
    with pytest.raises(UnlikeProtocols, match="num_fewshot of gsm8k_cot is 3 in one and 8 in the other"):
        compare([write(tmp_path / "source", source)], [write(tmp_path / "ours", ours)])
    assert ("Kimi-K2.6-NVFP4", "gap is consistent across both") in DOUBTFUL


def test_means_and_deviations_of_the_mxfp4_card_are_rebuilt(mxfp4: Comparison) -> None:
    assert mxfp4.lines[0].result.runs == 3
    assert tables.rows(mxfp4)[0][2:4] == ("93.96% ± 0.49 (SD of 3)", "93.55% ± 0.49 (SD of 3)")
    assert tables.rows(mxfp4)[1][2:4] == ("93.86% ± 0.53 (SD of 3)", "93.60% ± 0.29 (SD of 3)")


def test_its_difference_follows_with_the_other_sign(mxfp4: Comparison) -> None:
    delta = first(mxfp4).value
    assert delta == pytest.approx(-0.41)
    assert abs(-delta - 0.40) <= 0.005 + 2 * 0.005, "0.40 is what some values rounding to the table's give, reversed"
    assert abs(delta - 0.40) > 0.005 + 2 * 0.005
    assert ("Kimi-K2.6-MXFP4", "Δ = +0.40 pp") in DOUBTFUL


def test_its_z_follows_from_nothing_in_its_table(mxfp4: Comparison) -> None:
    assert [round(first(mxfp4, position).z or 0.0, 2) for position in (0, 1)] == [-1.02, -0.75]
    wanted = stats.ttest_ind_from_stats(93.55, 0.49, 3, 93.96, 0.49, 3, equal_var=False)
    assert first(mxfp4).confidence == pytest.approx(1 - wanted.pvalue)
    possible = []
    for own, base in MXFP4.values():
        for shift, one, other in itertools.product((-0.01, 0.01), (-0.005, 0.005), (-0.005, 0.005)):
            difference = abs(base[0] - own[0] + shift)
            spread = math.hypot(own[1] + one, base[1] + other)
            errors = [100 * math.sqrt(value[0] / 100 * (1 - value[0] / 100) / 1319) for value in (own, base)]
            possible += [difference / (spread / math.sqrt(3)), difference / spread]
            possible += [difference / math.hypot(*errors), difference / (math.hypot(*errors) / math.sqrt(3))]
    assert max(possible) < 1.255, "no rounding, no seed error and no error over questions gives 1.26"
    assert ("Kimi-K2.6-MXFP4", "z = 1.26") in DOUBTFUL


def test_its_conclusion_holds_all_the_same(mxfp4: Comparison) -> None:
    """The card says: not significant at 95 %."""
    assert all((first(mxfp4, position).confidence or 1.0) < 0.95 for position in (0, 1))


def test_differences_and_averages_of_the_sparse_card_follow(sparse: Comparison) -> None:
    for position, (_, _, _, printed) in enumerate(SPARSE.values()):
        assert tables.signed(first(sparse, position).value, True) == printed
    assert tables.rows(sparse)[-1] == (
        "Average", "mean of 6", "82.51%", "74.17%", "79.01%", "−3.50 pp", "–", "–", "95.75%",
    )  # fmt: skip


def test_its_recovery_follows_within_rounding(sparse: Comparison) -> None:
    assert sparse.average is not None
    delta = sparse.average.deltas[0]
    assert delta is not None
    assert delta.recovery == pytest.approx(0.95754, abs=5e-6)
    assert f"{79.01 / 82.51:.2%}" == "95.76%"  # as printed, from averages that were rounded first
    ends = [(474.05 + 6 * a) / (495.07 + 6 * b) for a, b in itertools.product((-0.005, 0.005), repeat=2)]
    assert min(ends) <= 0.95765
    assert max(ends) >= 0.95755, "95.76 is what some values rounding to the table's give"
    assert ("Kimi-K2.5-P48", "95.76%") in DOUBTFUL


def test_the_recovery_of_its_baseline_follows(sparse: Comparison) -> None:
    assert sparse.average is not None
    one_shot, base = sparse.average.baselines[1], sparse.average.baselines[0]
    assert one_shot is not None
    assert base is not None
    assert f"{one_shot.value / base.value:.2%}" == "89.89%"


def test_every_doubt_has_a_reason() -> None:
    assert len(DOUBTFUL) == 4
    assert all(len(reason) > 20 for reason in DOUBTFUL.values())
