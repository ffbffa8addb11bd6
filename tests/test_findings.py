"""The report's JSON is the command line's contract; a waived error does not block, an unrun rule does not pass."""

from __future__ import annotations

from publisher.findings import ERROR, WARNING, Finding, NotRun, Report


def finding(**changes: object) -> Finding:
    fields = {"code": "SV01", "slug": "nan-block-scale", "severity": ERROR, "message": "byte 7 is NaN", **changes}
    return Finding(**fields)  # type: ignore[arg-type]


def test_shape_of_the_contract() -> None:
    report = Report(
        findings=(finding(file="a.safetensors", tensor="x.weight_scale", index=(3, 4), engines=("vllm",)),),
        not_run=(NotRun(code="SD01", reason="needs the source"),),
        rules_run=("SV01",),
    )
    body = report.to_json()
    assert body["findings"] == [
        {
            "code": "SV01",
            "slug": "nan-block-scale",
            "severity": "error",
            "message": "byte 7 is NaN",
            "where": {"file": "a.safetensors", "tensor": "x.weight_scale", "index": [3, 4]},
            "engines": ["vllm"],
        }
    ]
    assert body["not_run"] == [{"code": "SD01", "reason": "needs the source"}]
    assert body["publishable"] is False
    wanted = {"rules_run": 1, "rules_not_run": 1, "errors": 1, "warnings": 0, "bytes_read": 0, "seconds": 0.0}
    assert wanted.items() <= body["summary"].items()


def test_warnings_and_waived_errors_do_not_block() -> None:
    assert Report(findings=(finding(severity=WARNING),)).publishable
    waived = Report(findings=(finding(waived="known: the engine pins it"),))
    assert waived.publishable
    assert waived.to_json()["findings"][0]["waived"] == "known: the engine pins it"
    assert not Report(findings=(finding(),)).publishable
