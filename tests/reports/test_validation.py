"""Findings by rule, the most useful first, and what a report says beside them."""

from __future__ import annotations

from publisher.reports import validation as told
from publisher.reports.validation import Validation


def test_what_refuses_comes_before_what_computes_wrong_and_waived_last(validation: Validation) -> None:
    found = told.groups(validation.report)
    assert [group.code for group in found] == ["CN09", "SV01", "FU01", "CF30", "CN06"]
    assert [group.blocks for group in found] == [True, True, False, False, False]


def test_a_group_counts_places_that_are_not_listed(validation: Validation) -> None:
    group = told.groups(validation.report)[1]
    assert group.places == 1250
    assert len(group.listed) == 50
    assert group.fix
    assert group.breaks == "vllm, sglang compute wrong"
    assert told.groups(validation.report)[0].breaks == "vllm refuses to load"
    assert "1,251 errors" in list(told.counted(validation.report))


def test_rules_not_run_are_grouped_by_reason(validation: Validation) -> None:
    assert list(told.not_run(validation.report).values()) == [["SD01", "LC01"], ["NM02"]]
