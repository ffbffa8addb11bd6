"""A report as JUnit XML, for CI systems that show test results.

A suite is a family of rules, a case is a rule: failed by findings that block, skipped where it could not look. Warnings
and waived findings are told in a passing case's output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from publisher import catalogue
from publisher.reports import validation as told
from publisher.reports.validation import Group, Validation

# What XML 1.0 (2.2) has no way to write, not even as a reference.
_FORBIDDEN = re.compile(r"[^\t\n\r -\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
PLACES = 20


def write(validation: Validation) -> str:
    """The document."""
    report = validation.report
    by_code: dict[str, list[Group]] = {}
    for group in told.groups(report):
        by_code.setdefault(group.code, []).append(group)
    skipped = {entry.code: entry.reason for entry in report.not_run}
    codes = sorted({*report.rules_run, *skipped, *by_code})
    root = ET.Element("testsuites", name=_xml(f"publisher validate {validation.title}".strip()))
    root.set("time", f"{report.seconds:.3f}")
    families: dict[str, list[str]] = {}
    for code in codes:
        families.setdefault(code[:2], []).append(code)
    table = {row["code"]: row for row in catalogue.table()}
    for family, members in families.items():
        _suite(root, family, members, by_code, skipped, table)
    for name in ("tests", "failures", "skipped", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _suite(
    root: ET.Element,
    family: str,
    codes: Sequence[str],
    found: Mapping[str, Sequence[Group]],
    skipped: Mapping[str, str],
    table: Mapping[str, Mapping[str, Any]],
) -> None:
    title = next((str(table[code]["family"]) for code in codes if code in table), family)
    suite = ET.SubElement(root, "testsuite", name=_xml(f"{family} {title}"))
    failures = passed_over = 0
    for code in codes:
        name = f"{code} {table[code]['slug']}" if code in table else code
        case = ET.SubElement(suite, "testcase", classname=f"publisher.{family}", name=_xml(name), time="0")
        blocking = [group for group in found.get(code, ()) if group.blocks]
        if blocking:
            failures += 1
            _failure(case, blocking)
        elif code in skipped:
            passed_over += 1
            ET.SubElement(case, "skipped", message=_xml(skipped[code]))
        rest = [group for group in found.get(code, ()) if not group.blocks]
        if rest:
            ET.SubElement(case, "system-out").text = _xml("\n".join(map(_told, rest)))
    for key, value in (("tests", len(codes)), ("failures", failures), ("skipped", passed_over), ("errors", 0)):
        suite.set(key, str(value))


def _failure(case: ET.Element, groups: Sequence[Group]) -> None:
    first = groups[0]
    message = f"{told.plural(sum(group.places for group in groups), 'place')}: {first.summary}".strip(": ")
    failure = ET.SubElement(case, "failure", type=_xml(first.slug), message=_xml(message))
    failure.text = _xml("\n".join([*map(_told, groups), f"Fix: {first.fix}" if first.fix else ""]).strip())


def _told(group: Group) -> str:
    waived = f", waived: {group.waived}" if group.waived else ""
    lines = [f"{group.severity} {group.code} {group.slug}{waived}"]
    for finding in group.findings[:PLACES]:
        where = told.place(finding)
        lines.append(f"  {where}: {finding.message}" if where else f"  {finding.message}")
    shown = sum(finding.places for finding in group.findings[:PLACES])
    return "\n".join([*lines, f"  … and {group.places - shown:,} more"] if group.places > shown else lines)


def _xml(text: str) -> str:
    """Text that XML can hold: other characters are spelled out."""
    return _FORBIDDEN.sub(lambda match: match.group().encode("unicode_escape", "surrogatepass").decode(), text)
