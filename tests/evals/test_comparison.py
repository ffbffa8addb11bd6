"""Names of scores, and what a difference says of itself."""

from __future__ import annotations

import pytest

from publisher.evals.comparison import Delta, matches, named
from publisher.evals.results import Key
from publisher.evals.significance import Error

KEYS = [
    Key("gsm8k", "exact_match", "strict-match"),
    Key("gsm8k", "exact_match", "flexible-extract"),
    Key("arc", "acc", "none"),
]


def test_a_name_means_a_task_a_metric_or_one_score() -> None:
    assert matches("gsm8k", KEYS) == KEYS[:2]
    assert matches("gsm8k:exact_match", KEYS) == KEYS[:2]
    assert matches("gsm8k:exact_match,flexible-extract", KEYS) == [KEYS[1]]
    assert matches("gsm", KEYS) == []
    assert named(KEYS * 4).endswith(" and 4 more")


def test_z_confidence_and_interval_of_a_difference() -> None:
    """By hand: 1.96 standard errors are 95 % sure, and the interval then ends at zero."""
    delta = Delta(value=-1.959964, error=Error(value=1.0, method=""))
    assert delta.z == pytest.approx(-1.959964)
    assert delta.confidence == pytest.approx(0.95)
    assert delta.margin == pytest.approx(1.959964)


def test_without_an_error_or_with_none_at_all_nothing_is_claimed() -> None:
    assert (Delta(value=1.0).z, Delta(value=1.0).confidence, Delta(value=1.0).margin) == (None, None, None)
    same = Delta(value=0.0, error=Error(value=0.0, method=""))
    assert (same.z, same.confidence) == (None, None)
