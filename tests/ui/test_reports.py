"""Findings are shown worst first, can be filtered, and what was not run is not called passed."""

from __future__ import annotations

from typing import Any

from publisher.ui import reports


def report(*findings: dict[str, Any], publishable: bool = True, **summary: Any) -> dict[str, Any]:
    return {
        "findings": list(findings),
        "not_run": [{"code": "SV11", "reason": "needs the data"}, {"code": "LC01", "reason": "needs the card"}],
        "publishable": publishable,
        "summary": {"rules_run": 3, "errors": 1, "warnings": 1, "bytes_read": 2000, "rules": ["CN01"], **summary},
    }


def finding(code: str, severity: str, **more: Any) -> dict[str, Any]:
    where = {"file": "model.safetensors", "tensor": "a.weight_scale", "index": [3, 1]}
    return {"code": code, "slug": "a-defect", "severity": severity, "message": "5 are NaN", "where": where} | more


def test_the_worst_comes_first_and_waived_ones_last() -> None:
    found = reports.rows(
        [
            report(finding("NM01", "info"), finding("SV01", "error", waived="known")),
            report(finding("CN02", "warning"), finding("CN01", "error")),
        ]
    )
    assert [row.code for row in found] == ["CN01", "CN02", "NM01", "SV01"]
    assert found[0].place == "model.safetensors · a.weight_scale · [3, 1]"


def test_severity_is_a_word_and_a_sign_not_only_a_colour() -> None:
    page = reports.report_html([report(finding("SV01", "error"), publishable=False)])
    assert "✕ error" in page
    assert "Not publishable" in page


def test_filters_narrow_the_table() -> None:
    both = [report(finding("SV01", "error", engines=["vllm"]), finding("CN01", "warning"))]
    assert "CN01" not in reports.report_html(both, severity="error")
    assert "SV01" not in reports.report_html(both, search="cn01 nan")
    assert "No finding passes" in reports.report_html(both, severity="info", search=None)
    assert "SV01" in reports.report_html(both, search="VLLM")


def test_what_was_not_run_is_said_with_its_reason_unless_another_report_ran_it() -> None:
    second = report(rules=["LC01"])
    page = reports.report_html([report(), second])
    assert "needs the data" in page
    assert "needs the card" not in page
    assert "1 rules were not run" in page
    assert "2 rules were not run" in reports.report_html([report(), report()])


def test_hostile_findings_are_text() -> None:
    page = reports.report_html([report(finding("<i>", "error", message="<img src=x>", slug="${x}"))])
    assert "<img" not in page
    assert "<i>" not in page
    assert "${" not in page


def test_odd_shapes_are_passed_over() -> None:
    rows = reports.rows([{"findings": [None, {"where": None, "engines": 3}, {"where": "x"}]}, {}])
    assert len(rows) == 2


def test_no_report_is_no_verdict() -> None:
    assert "ublishable" not in reports.report_html([])


def test_engines_are_told_once_for_versions_that_agree() -> None:
    engines = [
        {"engine": "vllm", "version": "0.17", "verdict": "loads", "because": [], "reason": "x"},
        {"engine": "vllm", "version": "0.33", "verdict": "loads", "because": [], "reason": "y"},
        {"engine": "sglang", "version": "0.5", "verdict": "refuses", "because": ["CF12"], "reason": "<b>"},
        {"engine": "atom", "version": "", "verdict": "unknown", "reason": "<img src=x>"},
        "no verdict",
    ]
    page = reports.report_html([report() | {"engines": engines}, report() | {"engines": engines[:1]}])
    assert "0.17, 0.33" in page
    assert page.count("vllm") == 1
    assert "CF12" in page
    assert "<img" not in page
    assert "What engines make of it" not in reports.report_html([report()])
