"""SARIF 2.1.0: the properties and types of the OASIS schema, and what code scanning asks for beyond it."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from publisher import rules
from publisher.reports import sarif
from publisher.reports.validation import Validation

TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
BAG = {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}}}
LEVEL = {"enum": ["none", "note", "warning", "error"]}


def closed(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


# The part of the schema that is used, as strict as the whole: no property that it does not know.
LOCATION = closed(
    "physicalLocation",
    physicalLocation=closed(
        "artifactLocation",
        artifactLocation=closed("uri", uri={"type": "string", "format": "uri-reference"}, uriBaseId={"type": "string"}),
        region=closed("startLine", startLine={"type": "integer", "minimum": 1}),
    ),
    logicalLocations={
        "type": "array",
        "items": closed("fullyQualifiedName", fullyQualifiedName={"type": "string"}, kind={"type": "string"}),
    },
)
RESULT = closed(
    "ruleId message locations",
    ruleId={"type": "string"},
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=TEXT,
    locations={"type": "array", "items": LOCATION, "minItems": 1},
    partialFingerprints={"type": "object", "additionalProperties": {"type": "string"}},
    occurrenceCount={"type": "integer", "minimum": 1},
    suppressions={
        "type": "array",
        "items": closed(
            "kind",
            kind={"enum": ["inSource", "external"]},
            status={"enum": ["accepted", "underReview", "rejected"]},
            justification={"type": "string"},
        ),
    },
    properties=BAG,
)
RULE = closed(
    "id name shortDescription fullDescription help defaultConfiguration",
    id={"type": "string"},
    name={"type": "string"},
    shortDescription=TEXT,
    fullDescription=TEXT,
    help=TEXT,
    defaultConfiguration=closed("level", level=LEVEL),
    properties=BAG,
)
NOTE = closed(
    "message",
    level=LEVEL,
    message=TEXT,
    associatedRule=closed("id", id={"type": "string"}, index={"type": "integer", "minimum": 0}),
)
LOG = closed(
    "$schema version runs",
    **{"$schema": {"type": "string", "format": "uri"}},
    version={"const": "2.1.0"},
    runs={
        "type": "array",
        "minItems": 1,
        "items": closed(
            "tool results",
            tool=closed(
                "driver",
                driver=closed(
                    "name rules",
                    name={"type": "string"},
                    version={"type": "string"},
                    semanticVersion={"type": "string"},
                    rules={"type": "array", "items": RULE, "uniqueItems": True},
                ),
            ),
            invocations={
                "type": "array",
                "items": closed(
                    "executionSuccessful",
                    executionSuccessful={"type": "boolean"},
                    toolConfigurationNotifications={"type": "array", "items": NOTE},
                ),
            },
            originalUriBaseIds={"type": "object", "additionalProperties": closed("description", description=TEXT)},
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            results={"type": "array", "items": RESULT},
            properties=BAG,
        ),
    },
)
URI = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})+")


@pytest.mark.parametrize("which", ["validation", "hostile"])
def test_the_log_has_the_schemas_shape(which: str, request: pytest.FixtureRequest) -> None:
    log = json.loads(sarif.write(request.getfixturevalue(which)))
    jsonschema.validate(log, LOG)
    run = log["runs"][0]
    listed = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in listed] == list(rules.load_rules())
    for result in run["results"]:
        assert listed[result["ruleIndex"]]["id"] == result["ruleId"] if "ruleIndex" in result else True
        assert URI.fullmatch(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])


def test_findings_become_results_and_waivers_suppressions(validation: Validation) -> None:
    run = sarif.log(validation)["runs"][0]
    results = run["results"]
    assert len(results) == len(validation.report.findings)
    assert [r["level"] for r in results[-4:]] == ["error", "warning", "note", "error"]
    assert results[-1]["suppressions"][0]["justification"] == "the source has none"
    assert not any("suppressions" in result for result in results[:-1])
    assert results[50]["occurrenceCount"] == 1200
    assert results[0]["locations"][0]["logicalLocations"][0]["fullyQualifiedName"].endswith(
        "0.mlp.up_proj.weight_scale"
    )


def test_what_was_not_run_is_said(validation: Validation) -> None:
    notes = sarif.log(validation)["runs"][0]["invocations"][0]["toolConfigurationNotifications"]
    assert [note["associatedRule"]["id"] for note in notes] == ["SD01", "LC01", "NM02"]
    assert "needs the source" in notes[0]["message"]["text"]


def test_a_place_keeps_its_fingerprint_when_its_numbers_change(validation: Validation) -> None:
    first, second = (sarif.log(validation)["runs"][0]["results"] for _ in range(2))
    prints = [result["partialFingerprints"]["place/v1"] for result in first]
    assert prints == [result["partialFingerprints"]["place/v1"] for result in second]
    assert len(set(prints)) == len(prints)
