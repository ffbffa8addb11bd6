"""What a rule found is bounded, counted exactly, safe to print, and never a pass where it failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import CheckpointError
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import MAX_PLACES, rule, run
from publisher.subjects import Headers
from tests.builders.tiny import f32, llama, nvfp4
from tests.rules.conftest import evidence


def test_many_places_are_listed_up_to_a_limit_and_counted_exactly(tmp_path: Path, extra: dict[str, Any]) -> None:
    @rule("ZZ01", "too-many", severity=ERROR, engines=("vllm",))
    def too_many(headers: Headers) -> Iterator[Found]:
        """Everything is wrong.

        Why: a test.
        Fix: none.
        """
        for number in range(300):
            yield Found(f"place {number}", severity=ERROR if number % 3 else WARNING)

    report = run(evidence(tmp_path), select=["ZZ01"])
    assert len(report.findings) == MAX_PLACES + 2
    assert [f.message for f in report.errors][-1].startswith("167 more places")
    assert [f.message for f in report.warnings][-1].startswith("83 more places")
    assert {f.severity for f in report.findings[: len(report.errors)]} == {ERROR}


@pytest.mark.parametrize("error", [ValueError("odd data"), CheckpointError("the file is gone.")])
def test_a_rule_that_fails_is_an_error_never_a_pass(error: Exception, tmp_path: Path, extra: dict[str, Any]) -> None:
    @rule("ZZ02", "fails", severity=WARNING)
    def fails(headers: Headers) -> Iterator[Found]:
        """It fails.

        Why: a test.
        Fix: none.
        """
        yield Found("one place first")
        raise error

    report = run(evidence(tmp_path), select=["ZZ02", "CN"])
    assert not report.publishable
    assert "ZZ02" not in report.rules_run
    assert str(error).rstrip(".") in next(n.reason for n in report.not_run if n.code == "ZZ02")
    assert [str(f.severity) for f in report.findings] == ["error", "warning"]
    assert "CN01" in report.rules_run


def test_a_strangers_names_cannot_drive_the_terminal(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.tensors["evil\x1b[2J\ud800\n._amax"] = f32(1.0)
    report = run(evidence(tmp_path, tiny), select=["NM13"])
    told = json.dumps(report.to_json(), ensure_ascii=False)
    assert "\x1b" not in told
    told.encode("utf-8")
    assert report.findings[0].tensor == "evil\\x1b[2J\\ud800\\n._amax"


# --- the list ------------------------------------------------------------------------------------------------------
