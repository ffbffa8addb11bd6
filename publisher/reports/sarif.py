"""A report as SARIF 2.1.0, for code scanning and for viewers.

Findings are results, rules are descriptors with their reason and remedy, waivers are suppressions, and a rule that
could not look is a notification: not run is not passed. Paths are percent-encoded and relative to the checkpoint.
Fields and limits as OASIS SARIF 2.1.0 (errata 01) and GitHub's "SARIF support for code scanning" give them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from publisher import catalogue
from publisher.findings import ERROR, INFO, WARNING, Finding
from publisher.reports.validation import Validation

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
BASE = "CHECKPOINT"
LEVELS = {ERROR: "error", WARNING: "warning", INFO: "note"}


def write(validation: Validation) -> str:
    """The log as one JSON document."""
    return json.dumps(log(validation), ensure_ascii=True, allow_nan=False, indent=1) + "\n"


def log(validation: Validation) -> dict[str, Any]:
    """The log: one run, whose tool holds every rule."""
    report = validation.report
    table = catalogue.table()
    position = {row["code"]: number for number, row in enumerate(table)}
    tool = dict(report.tool)
    driver: dict[str, Any] = {"name": tool.get("name", "fp4-publisher"), "rules": [_descriptor(row) for row in table]}
    driver |= {"semanticVersion": tool["version"], "version": tool["version"]} if "version" in tool else {}
    run = {
        "tool": {"driver": driver},
        "invocations": [
            {
                "executionSuccessful": True,
                "toolConfigurationNotifications": [
                    _notification(entry.code, entry.reason, position) for entry in report.not_run
                ],
            }
        ],
        "originalUriBaseIds": {BASE: {"description": {"text": validation.title or "the checkpoint"}}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, position) for finding in report.findings],
        "properties": {"publishable": report.publishable, "bytesRead": report.bytes_read},
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _descriptor(row: Mapping[str, Any]) -> dict[str, Any]:
    parts = [row["why"], f"Fix: {row['fix']}", f"Seen: {row['seen']}" if row["seen"] else ""]
    words = [part for part in parts if part]
    return {
        "id": row["code"],
        "name": row["slug"],
        "shortDescription": {"text": row["summary"]},
        "fullDescription": {"text": f"{row['summary']} {row['why']}"},
        "help": {"text": "\n\n".join(words)},
        "defaultConfiguration": {"level": {"info": "note"}.get(row["severity"], row["severity"])},
        "properties": {"tags": [row["family"]], "reads": row["reads"], "engines": row["engines"]},
    }


def _notification(code: str, reason: str, position: Mapping[str, int]) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": code} | ({"index": position[code]} if code in position else {})
    return {"level": "note", "message": {"text": f"{code} was not run: {reason}."}, "associatedRule": rule}


def _result(finding: Finding, position: Mapping[str, int]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "level": LEVELS[finding.severity],
        "message": {"text": finding.message},
        "locations": [_location(finding)],
        "partialFingerprints": {"place/v1": _fingerprint(finding)},
        "properties": {"engines": list(finding.engines), "refusedBy": list(finding.refuses)},
    }
    result |= {"ruleIndex": position[finding.code]} if finding.code in position else {}
    result |= {"occurrenceCount": finding.places} if finding.places > 1 else {}
    if finding.index:
        result["properties"]["index"] = list(finding.index)
    if finding.waived is not None:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": finding.waived}]
    return result


def _location(finding: Finding) -> dict[str, Any]:
    """Code scanning takes no result without a file and a line, so what concerns the whole stands at its config."""
    uri = quote(finding.file or "config.json", safe="/", errors="backslashreplace")
    found: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": uri, "uriBaseId": BASE},
            "region": {"startLine": 1},
        }
    }
    if finding.tensor:
        found["logicalLocations"] = [{"fullyQualifiedName": finding.tensor, "kind": "resource"}]
    return found


def _fingerprint(finding: Finding) -> str:
    """The same for the same rule at the same place, whatever the numbers in the message."""
    place = [finding.code, finding.file, finding.tensor, list(finding.index or ())]
    return hashlib.sha256(json.dumps(place).encode()).hexdigest()[:32]
