"""Records of a run: what is there is printed, what is malformed is left out, nothing is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.card.record import measured_errors, method_rows, module_errors, perplexity, producer, validation
from publisher.checkpoint.open import open_checkpoint


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"engine": None, "versions": [1], "device": 7, "seconds": "12", "peak_memory": "much", "weight_error": []},
        {"seconds": float("nan"), "peak_memory": {"host": -1}, "device": {"name": ""}},
    ],
)
def test_a_record_of_nothing_adds_no_row(record: dict[str, Any], source: Path) -> None:
    assert method_rows(open_checkpoint(source), None, record) == ()
    assert validation(None, record) is None


def test_the_engine_is_named_with_its_version(nvfp4: Path) -> None:
    record = {"engine": "modelopt", "versions": {"torch": "2.13.0", "modelopt": "0.47.0"}}
    rows = {row.label: row.value.text for row in method_rows(open_checkpoint(nvfp4), None, record)}
    assert rows == {"Quantized by": "NVIDIA Model Optimizer (nvidia-modelopt) 0.47.0"}


def test_errors_of_modules_come_from_the_engine_or_from_the_rules() -> None:
    engine = {"weight_error": {"overall": 0.1, "modules": {"a": 0.1, "b": float("nan"), "c": "x", "d": 0}}}
    assert module_errors(engine) == {"a": 0.1, "d": 0.0}
    assert measured_errors({"measured": {"a": {"rel_rmse": 0.2}, "b": {}, "c": 1}}) == {"a": 0.2}
    assert measured_errors(None) == {}


def test_failed_rules_are_counted_once_and_waivers_are_published() -> None:
    findings = [
        {"code": "SV01", "slug": "nan", "severity": "error", "message": "first"},
        {"code": "SV01", "slug": "nan", "severity": "error", "message": "second"},
        {"code": "CN02", "slug": "index", "severity": "error", "message": "waived one", "waived": "known"},
    ]
    summary = {"rules_run": 10, "rules_not_run": 0, "errors": 2, "warnings": 0, "waivers": {"CN02": "known"}}
    found = validation({"findings": findings, "not_run": [], "summary": summary, "tool": {}}, {})
    assert found is not None
    rows = {row.label: row.value.text for row in found.rows}
    assert rows["Rules"] == "10 run, 1 failed, 0 not run"
    assert rows["Findings"] == "errors: 2, warnings: 0, waived: 1"
    assert found.remarks[0] == ("SV01 nan", "error: first (and 1 more)")
    assert found.waivers == (("CN02", "known"),)


@pytest.mark.parametrize(
    "evaluation",
    [None, {}, {"source": {"perplexity": 14.0}}, {"source": 0, "checkpoint": 1}, {"source": "a", "checkpoint": 1.0}],
)
def test_half_a_measurement_is_none(evaluation: dict[str, Any] | None) -> None:
    assert perplexity(evaluation) is None


def test_a_perplexity_stands_beside_its_source() -> None:
    found = perplexity({"source": {"perplexity": 10.0}, "checkpoint": {"perplexity": 11.0}, "prompt": "a"})
    assert found is not None
    assert (found.source.text, found.result.text, found.change.text) == ("10.000", "11.000", "+10.00%")
    assert found.continuation is None


def test_the_declared_producer(nvfp4: Path, mxfp4: Path, source: Path) -> None:
    assert producer(open_checkpoint(nvfp4)) == "modelopt 0.47.0"
    assert producer(open_checkpoint(mxfp4)) == "quark 0.11"
    assert producer(open_checkpoint(source)) is None
