"""Documents for programs: the contract's JSON unchanged, and lines that any reader splits alike."""

from __future__ import annotations

import json

from publisher.reports import documents
from publisher.reports.validation import Validation


def test_the_json_report_is_the_contracts(validation: Validation) -> None:
    document = json.loads(documents.write_json(validation))
    assert document == validation.report.to_json()
    assert {"findings", "not_run", "publishable", "summary", "tool"} <= set(document)


def test_a_finding_a_line_then_the_sum(validation: Validation) -> None:
    lines = [json.loads(line) for line in documents.write_jsonl(validation).splitlines()]
    *findings, summary = lines
    assert {line["type"] for line in findings} == {"finding"}
    assert [{k: v for k, v in line.items() if k != "type"} for line in findings] == [
        finding.to_json() for finding in validation.report.findings
    ]
    assert summary["type"] == "summary"
    assert summary["checkpoint"] == validation.label
    assert summary["publishable"] is False


def test_no_text_of_a_stranger_ends_a_line(hostile: Validation) -> None:
    page = documents.write_jsonl(hostile)
    assert len(page.splitlines()) == len(hostile.report.findings) + 1
    page.encode("ascii")
    assert len(documents.write_json(hostile).splitlines()) == 1
