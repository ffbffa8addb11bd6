"""A report for programs: the one JSON document of the command line's contract, or one JSON object a line."""

from __future__ import annotations

import json
from typing import Any

from publisher.reports.validation import Validation


def write_json(validation: Validation) -> str:
    """The document `validate --format json` prints."""
    return _line(validation.report.to_json())


def write_jsonl(validation: Validation) -> str:
    """One finding a line as it stands in the document, then a line that sums up; `type` tells them apart."""
    document = validation.report.to_json()
    findings = document.pop("findings")
    lines = [_line({"type": "finding", **finding}) for finding in findings]
    return "".join([*lines, _line({"type": "summary", "checkpoint": validation.title, **document})])


def _line(value: Any) -> str:
    """ASCII only: no text of a stranger ends a line or a reader that splits at Unicode's other line ends."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n"
