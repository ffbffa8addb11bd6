"""Declared averages, by hand; and what is not averaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.evals.average import averaged
from publisher.evals.compare import compare
from tests.evals.conftest import document, write

BEFORE = {
    "a:acc,none": (0.80, 0.03),
    "b:acc,none": (0.60, 0.04),
    "b:acc_norm,none": (0.65, 0.04),
    "p:perplexity,none": (9.0, 0.1),
}
AFTER = {
    "a:acc,none": (0.78, 0.03),
    "b:acc,none": (0.63, 0.04),
    "b:acc_norm,none": (0.62, 0.04),
    "p:perplexity,none": (9.3, 0.1),
}


@pytest.fixture
def sides(tmp_path: Path) -> tuple[list[str], list[str]]:
    return [write(tmp_path / "b", document(BEFORE))], [write(tmp_path / "a", document(AFTER))]


def test_the_mean_of_scores_and_of_differences(sides: tuple[list[str], list[str]]) -> None:
    line = averaged(compare(*sides).lines, ["a", "b:acc"])
    assert line.result.value == pytest.approx(70.5)
    assert line.baselines[0] is not None
    assert line.baselines[0].value == pytest.approx(70.0)
    (delta,) = line.deltas
    assert delta is not None
    assert delta.value == pytest.approx(0.5)
    assert delta.recovery == pytest.approx(70.5 / 70)
    assert delta.error is not None
    assert delta.error.value == pytest.approx((2 * 3**2 + 2 * 4**2) ** 0.5 / 2)  # variances of independent tasks add
    assert line.of == 2


def test_metrics_of_one_task_are_not_independent(sides: tuple[list[str], list[str]]) -> None:
    (delta,) = averaged(compare(*sides).lines, ["b:acc", "b:acc_norm"]).deltas
    assert delta is not None
    assert delta.error is None


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (["b"], "2 of the compared scores"),
        (["c"], "0 of the compared"),
        (["a", "a"], "twice"),
        (["a", "p"], "mix units"),
    ],
)
def test_what_cannot_be_averaged_is_refused(sides: tuple[list[str], list[str]], wanted: list[str], told: str) -> None:
    with pytest.raises(PublisherError, match=told):
        averaged(compare(*sides).lines, wanted)


def test_all_means_every_score_compared(sides: tuple[list[str], list[str]]) -> None:
    found = compare(*sides, tasks=["a", "b:acc"], average=["all"])
    assert found.average is not None
    assert found.average.of == 2
