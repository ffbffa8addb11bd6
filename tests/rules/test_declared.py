"""How a rule is declared: a code of its own, a reason, a fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from publisher.findings import ERROR, Found
from publisher.rules import load_rules, rule
from publisher.subjects import Headers

FAMILIES = {"CN", "CF", "NM", "SV", "FU", "KV", "SD", "TP", "NU", "LC"}


def test_every_rule_says_what_why_and_how() -> None:
    for known in load_rules().values():
        assert known.code[:2] in FAMILIES
        assert known.slug == known.slug.lower().replace(" ", "-")
        assert known.summary.endswith(".")
        assert known.why
        assert known.fix.endswith(".")
    slugs = [known.slug for known in load_rules().values()]
    assert len(slugs) == len(set(slugs))


def test_a_code_names_one_rule_only(extra: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="taken"):

        @rule("SV01", "again", severity=ERROR)
        def again(headers: Headers) -> Iterator[Found]:
            """Again.

            Why: a test.
            Fix: none.
            """
            yield Found("")


def test_a_rule_without_a_reason_is_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="Why"):

        @rule("ZZ03", "bare", severity=ERROR)
        def bare(headers: Headers) -> Iterator[Found]:
            """Bare."""
            yield Found("")
