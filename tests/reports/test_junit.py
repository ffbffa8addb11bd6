"""JUnit XML as a CI system reads it: parsed by another parser than it was written with, counted again here."""

from __future__ import annotations

from xml.dom import minidom
from xml.dom.minidom import Element

from publisher.reports import junit
from publisher.reports.validation import Validation


def cases(page: str) -> dict[str, Element]:
    return {case.getAttribute("name"): case for case in minidom.parseString(page).getElementsByTagName("testcase")}


def test_a_rule_is_a_case(validation: Validation) -> None:
    page = junit.write(validation)
    found = cases(page)
    assert {name.split()[0] for name in found} == {"CF30", "CN06", "CN09", "FU01", "SV01", "SD01", "LC01", "NM02"}
    failed = {name.split()[0] for name, case in found.items() if case.getElementsByTagName("failure")}
    skipped = {name.split()[0] for name, case in found.items() if case.getElementsByTagName("skipped")}
    assert (failed, skipped) == ({"CN09", "SV01"}, {"SD01", "LC01", "NM02"})
    root = minidom.parseString(page).documentElement
    assert [root.getAttribute(name) for name in ("tests", "failures", "skipped", "errors")] == ["8", "2", "3", "0"]
    suites = root.getElementsByTagName("testsuite")
    assert sum(int(suite.getAttribute("tests")) for suite in suites) == 8
    assert "Names and coverage" in "".join(suite.getAttribute("name") for suite in suites)


def test_a_failure_says_where_and_what_next(validation: Validation) -> None:
    case = next(case for name, case in cases(junit.write(validation)).items() if name.startswith("SV01"))
    failure = case.getElementsByTagName("failure")[0]
    assert failure.getAttribute("message").startswith("1,250 places")
    text = failure.firstChild.data
    assert "model.layers.0.mlp.up_proj.weight_scale" in text
    assert "more" in text
    assert "Fix: " in text


def test_warnings_and_waivers_are_told_in_a_passing_case(validation: Validation) -> None:
    found = cases(junit.write(validation))
    waived = next(case for name, case in found.items() if name.startswith("CN06"))
    assert "waived: the source has none" in waived.getElementsByTagName("system-out")[0].firstChild.data
    assert not waived.getElementsByTagName("failure")


def test_characters_that_xml_cannot_hold_are_spelled_out(hostile: Validation) -> None:
    page = junit.write(hostile)
    document = minidom.parseString(page.encode())
    assert not document.getElementsByTagName("script")
    assert "\\x1b" in page
    assert "\\ud800" in page
