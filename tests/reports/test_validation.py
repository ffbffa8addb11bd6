"""Findings by rule, the most useful first, and what a report says beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from publisher import rules
from publisher.checkpoint.open import open_checkpoint
from publisher.reports import REPORTS
from publisher.reports import validation as told
from publisher.reports.validation import Validation
from publisher.subjects import Evidence
from tests.builders.tiny import llama, nvfp4
from tests.reports.conftest import ENGINES, report


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
    assert told.not_run(validation.report) == {"needs the source: --source": ["SD01", "LC01"]}
    assert told.inapplicable(validation.report) == {"NM02": "there is no KV scale"}
    assert list(told.counted(validation.report))[-3:] == ["5 rules run", "2 not run", "1 do not apply"]


def test_versions_that_agree_stand_together() -> None:
    found = told.opinions(report(engines=(*ENGINES, replace(ENGINES[0], version="0.23"))))
    assert [(own.versions, own.verdict, own.because) for own in found["vllm"]] == [
        (("0.17", "0.23"), "refuses", "CN09"),
        (("0.33",), "loads wrong", "SV01"),
    ]
    assert found["sglang"][0].because == "no facts about this version"


def test_a_page_for_strangers_does_not_say_where_a_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for label, title in (
        ("/home/ada-x/models/tiny-fp4", "tiny-fp4"),
        ("./tiny-fp4/", "tiny-fp4"),
        (".", "inner"),
        ("..", tmp_path.name),
        ("hf://org/name@123", "hf://org/name@123"),
        ("", ""),
    ):
        validation = Validation(report=report(), label=label)
        assert validation.title == title
        for form in ("html", "markdown", "sarif", "junit", "jsonl"):
            assert "ada-x" not in REPORTS[form].write(validation)


def test_what_the_runner_says_of_rules_without_a_subject_is_understood(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(nvfp4(llama()).write(tmp_path))
    found = rules.run(Evidence(checkpoint=checkpoint), level="headers")
    assert "NM02" in told.inapplicable(found)
    assert all(reason.startswith("needs ") for reason in told.not_run(found)), told.not_run(found)
