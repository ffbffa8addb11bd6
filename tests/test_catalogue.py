"""The tables: every rule, every known defect, every code that was designed; and the claims in them hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from publisher import catalogue
from publisher.rules import load_rules
from tests.rules.test_cases import CASES

ROOT = Path(__file__).resolve().parents[1]
# The rules as they were designed, per family; later ones take the next free number.
DESIGNED = {"CN": 16, "CF": 29, "NM": 19, "SV": 16, "FU": 11, "KV": 9, "SD": 8, "TP": 10, "NU": 11, "LC": 13}
SHOWN: dict[str, list[str]] = {}
for case in CASES:
    SHOWN.setdefault(f"{case.code}-{case.name}", []).append(case.raises)


def test_the_generated_page_is_current() -> None:
    assert (ROOT / "validators" / "README.md").read_text() == catalogue.rules_markdown()


def test_every_rule_is_on_the_page_with_its_cost_severity_engines_fix_and_precedent() -> None:
    lines = catalogue.rules_markdown().splitlines()
    for row in catalogue.table():
        (line,) = [line for line in lines if line.startswith(f"| **{row['code']}**")]
        said = [row["slug"], row["severity"], row["reads"], row["summary"], row["fix"], row["seen"]]
        assert all(part.replace("|", "\\|") in line for part in said)
        engines = line.replace("\\|", "/").split(" | ")[2]
        assert engines.count("all") or all(engine in engines for engine in row["engines"])
        assert ("refuse" in engines) == bool(row["refused_by"])


def test_tables_are_whole() -> None:
    """A cell with a bar or a line end would move the others."""
    for line in catalogue.rules_markdown().splitlines():
        if line.startswith("| "):
            assert line.endswith(" |")
            assert line.replace("\\|", "").count("|") in (4, 6)


@pytest.mark.parametrize("row", catalogue.table(), ids=lambda row: str(row["code"]))
def test_every_rule_has_a_precedent_or_says_why_it_has_none(row: dict[str, str]) -> None:
    assert len(row["seen"]) > 10, row["code"]


def test_every_code_that_was_designed_is_a_rule_or_says_why_not() -> None:
    designed = {f"{family}{number:02}" for family, count in DESIGNED.items() for number in range(1, count + 1)}
    kept = {row["code"] for row in catalogue.reserved()}
    assert len(designed) == 142
    assert designed == (designed & set(load_rules())) | kept
    assert not kept & set(load_rules()), "a rule is written: take its code out of data/rules/reserved.json"
    assert not {row["slug"] for row in catalogue.reserved()} & {rule.slug for rule in load_rules().values()}
    assert all(row["reason"] for row in catalogue.reserved())


def test_every_known_defect_is_found_or_says_why_not() -> None:
    assert len(catalogue.defects()) >= 119
    assert all(count == 1 for count in Counter(row["defect"] for row in catalogue.defects()).values())
    for row in catalogue.defects():
        assert row["seen"], row
        assert row.get("rules") or row.get("unchecked"), row
        assert len(row["defect"].split()) <= 15, row
        assert set(row.get("rules", ())) <= set(load_rules()), row


@pytest.mark.parametrize(
    ("defect", "case"),
    [(row["defect"], case) for row in catalogue.defects() for case in row.get("cases", ())],
    ids=lambda value: None if " " in value else value,
)
def test_a_case_shows_each_claim(defect: str, case: str) -> None:
    """A defect's cases are edits of good checkpoints, and their rules are those the row names."""
    rows = [row for row in catalogue.defects() if row["defect"] == defect]
    assert case in SHOWN, f"no case of tests/rules is called {case}"
    assert case.partition("-")[0] in rows[0]["rules"]


def test_a_rule_named_for_a_defect_is_shown_by_a_case_of_it() -> None:
    for row in catalogue.defects():
        raised = {code.rstrip("wi") for case in row.get("cases", ()) for said in SHOWN[case] for code in said.split()}
        assert set(row.get("rules", ())) <= raised, row
