"""The formulas against scipy and against figures worked out by hand."""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from publisher.evals.significance import (
    Error,
    confidence,
    independent,
    margin,
    mean_error,
    over_seeds,
    paired,
    ratio,
    stratified,
)


def test_the_error_of_an_accuracy_is_the_harness_s() -> None:
    """For 0 and 1 the harness's sample deviation over the root of n is sqrt(p (1 - p) / (n - 1))."""
    right = [1.0] * 1205 + [0.0] * 114  # GSM8K has 1,319 questions; 91.36 % of them
    p = 1205 / 1319
    assert mean_error(right) == pytest.approx(math.sqrt(p * (1 - p) / 1318))
    assert 100 * (mean_error(right) or 0) == pytest.approx(0.77, abs=0.005)
    assert mean_error([1.0]) is None


def test_independent_variances_add() -> None:
    assert independent(3.0, 4.0).value == 5.0


def test_paired_is_the_paired_t_test() -> None:
    draw = random.Random(1)
    before = [draw.random() for _ in range(40)]
    after = [value + draw.gauss(-0.1, 0.3) for value in before]
    differences = [b - a for a, b in zip(before, after, strict=True)]
    error = paired(differences)
    assert error is not None
    z = ratio(sum(differences) / 40, error)
    assert z is not None
    wanted = stats.ttest_rel(after, before)
    assert z == pytest.approx(wanted.statistic)
    assert confidence(z, error.freedom) == pytest.approx(1 - wanted.pvalue)
    assert margin(error) == pytest.approx(stats.t.ppf(0.975, 39) * error.value)
    assert paired([0.1]) is None


def test_over_seeds_is_welch_s_test() -> None:
    one, other = [93.1, 93.4, 94.0, 93.7], [94.4, 93.2, 94.9]
    error = over_seeds(one, other)
    assert error is not None
    z = ratio(sum(other) / 3 - sum(one) / 4, error)
    assert z is not None
    wanted = stats.ttest_ind(other, one, equal_var=False)
    assert z == pytest.approx(wanted.statistic)
    assert error.freedom == pytest.approx(wanted.df)
    assert confidence(z, error.freedom) == pytest.approx(1 - wanted.pvalue)
    assert over_seeds([1.0], [1.0, 2.0]) is None


def test_equal_runs_have_no_z() -> None:
    error = over_seeds([1.0, 1.0], [1.0, 1.0])
    assert error is not None
    assert ratio(0.0, error) is None


def test_strata_weigh_tasks_equally() -> None:
    """By hand: errors 0.5 and 1.0 of two means give sqrt(0.25 + 1) / 2."""
    first, second = [0.0, 1.0], [0.0, 2.0]
    error = stratified([first, second])
    assert error is not None
    assert error.value == pytest.approx(math.sqrt(0.5**2 + 1.0**2) / 2)
    assert stratified([[1.0], [1.0, 2.0]]) is None


@pytest.mark.parametrize("freedom", [1, 2, 3.45, 10, 39, 1318, 14041])
@pytest.mark.parametrize("z", [0.0, 1e-6, 0.1, 0.5, 1.0, 1.96, 3.0, -8.0])
def test_confidence_is_that_of_student(z: float, freedom: float) -> None:
    assert confidence(z, freedom) == pytest.approx(1 - 2 * stats.t.sf(abs(z), freedom), abs=1e-9)


@pytest.mark.parametrize("z", [0.0, 0.5, 1.0, 1.96, -2.5, 6.0])
def test_confidence_without_freedom_is_normal(z: float) -> None:
    assert confidence(z) == pytest.approx(1 - 2 * stats.norm.sf(abs(z)), abs=1e-12)


def test_the_interval_of_the_normal_distribution() -> None:
    assert margin(Error(value=2.0, method="")) == pytest.approx(2 * 1.959963984540054)
    assert margin(Error(value=1.0, method="", freedom=1)) == pytest.approx(stats.t.ppf(0.975, 1))
