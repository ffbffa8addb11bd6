"""Tables of scores recomputed; every expected number is worked out beside its test."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.claims.document import read_document
from publisher.claims.scores import judge

HEAD = "| Task | BF16 | Ours | Delta |\n|---|---|---|---|\n"


def told(text: str) -> list[str]:
    return [doubt.message for doubt in judge(read_document(text))]


def test_differences_signs_and_averages() -> None:
    rows = "| A | 70.00 | 69.50 | -0.50 |\n| B | 60.00 | 60.20 | {b} |\n| Average | 65.00 | {mean} | -0.15 |\n"
    assert told(HEAD + rows.format(b="+0.20", mean="64.85")) == []
    assert "differ by +0.20" in told(HEAD + rows.format(b="-0.20", mean="64.85"))[0]
    assert any("average 64.85" in message for message in told(HEAD + rows.format(b="+0.20", mean="64.95")))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0.1, 99.9), st.floats(0.1, 99.9)), min_size=2, max_size=8))
def test_a_table_rounded_from_exact_numbers_is_never_wrong(scores: list[tuple[float, float]]) -> None:
    rows = [(f"T{i}", a, b) for i, (a, b) in enumerate(scores)]
    rows.append(("Average", sum(a for _, a, _ in rows) / len(scores), sum(b for *_, b in rows) / len(scores)))
    table = "".join(f"| {n} | {a:.2f} | {b:.2f} | {b - a:+.2f} | {100 * b / a:.1f}% |\n" for n, a, b in rows)
    assert told("| Task | BF16 | Ours | Delta | Recovery |\n|---|---|---|---|---|\n" + table) == []


@pytest.mark.parametrize(("printed", "wrong"), [("-0.41 pp", False), ("-0.4 pp", False), ("-0.51 pp", True)])
def test_fractions_with_a_difference_in_points(printed: str, wrong: bool) -> None:
    rows = f"| A | 0.9396 | 0.9355 | {printed} |\n| B | 0.5 | 0.5 | 0.0 pp |\n"
    assert bool(told(HEAD + rows)) == wrong


def test_a_change_in_percent_of_the_baseline() -> None:
    rows = "| Perplexity | 13.752 | 15.598 | {} |\n"  # (15.598 - 13.752) / 13.752 = 13.42 %
    assert told(HEAD + rows.format("+13.42%")) == []
    assert told(HEAD + rows.format("+12.42%"))


def test_columns_that_no_head_names_are_paired_by_the_rows_they_explain() -> None:
    head = "| Task | A | B | C | Diff |\n|---|---|---|---|---|\n"
    rows = "| x | 10.0 | 20.0 | 15.0 | -5.0 |\n| y | 30.0 | 44.0 | 40.0 | -4.0 |\n| z | 50.0 | 61.0 | 60.0 | -2.0 |\n"
    assert [message[:8] for message in told(head + rows)] == ["Line 5 s"]
    assert told(head + "| x | 1.0 | 2.0 | 3.0 | 9.0 |\n| y | 1.0 | 2.0 | 3.0 | 7.0 |\n") == []


def test_a_z_score_follows_from_the_errors_of_the_table() -> None:
    rows = "| A | 70.0 ± 0.30 | 69.0 ± 0.40 |\n"  # z = 1.0 / 0.5 = 2
    head = "| Task | BF16 | Ours |\n|---|---|---|\n"
    assert told(f"{head}{rows}\nHere z = 2.0.") == []
    assert "at most 2.2" in told(f"{head}{rows}\nHere z = 3.1.")[0]
    seeds = math.sqrt(3) * 2  # deviations over three seeds: errors of the mean are smaller
    assert told(f"{head}{rows}\nOver 3 seeds, z = {seeds:.2f}.") == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("79.01 / 82.51 = 95.76%", False),
        ("79.01 / 82.51 = 95.67%", True),
        ("79.01 / 82.51 = 95.8 %", False),
        ("1/2 = 50%", False),
    ],
)
def test_quotients_in_prose(text: str, wrong: bool) -> None:
    assert bool(told(text)) == wrong


@pytest.mark.parametrize(
    "text",
    [
        "| Tensor | Count | Bytes |\n|---|---|---|\n| a | 1 | 2 |\n| b | 3 | 4 |",
        "| GPU | Memory | Nodes | Delta |\n|---|---|---|---|\n| x | 80 GB | two | none |",
        "| | |\n|---|---|\n| Average | 3 |",
    ],
)
def test_other_tables_are_not_judged(text: str) -> None:
    assert told(text) == []


def test_averages_of_groups_that_stand_in_the_second_column() -> None:
    head = "| Group | Task | BF16 | Ours | Recovery |\n|---|---|---|---|---|\n"
    rows = (
        "| V1 | A | 70.0 | 69.0 | 98.57 |\n| | B | 60.0 | 60.0 | 100.0 |\n| | **Average** | 65.0 | {ours} | {rest} |\n"
    )
    second = (
        "| V2 | C | 40.0 | 39.0 | 97.5 |\n| | D | 20.0 | 20.0 | 100 |\n| | **Average Score** | 30.0 | 29.5 | 98.33 |\n"
    )
    assert told(head + rows.format(ours="64.5", rest="99.23") + second) == []
    assert "average 64.50" in told(head + rows.format(ours="63.5", rest="97.69") + second)[0]
    assert "give 99.23%" in told(head + rows.format(ours="64.5", rest="98.23") + second)[0]
