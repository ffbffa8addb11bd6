"""One screen for a person: the verdict, what blocks, the fix; no line a CI runner would obey."""

from __future__ import annotations

import pytest

from publisher.findings import ERROR, WARNING, Finding
from publisher.reports import human
from publisher.reports.validation import Validation
from publisher.rules import load_rules
from tests.reports.conftest import ENGINES, report


def text(validation: Validation, **how: object) -> list[str]:
    return [line.text for line in human.lines(validation, **how)]


def test_the_verdict_comes_first_and_each_error_has_its_fix(validation: Validation) -> None:
    lines = text(validation, width=100)
    assert lines[0].startswith("✕ not publishable: hf://org/name@0123abc")
    page = "\n".join(lines)
    assert page.index("CN09 missing-shard") < page.index("SV01 nan-block-scale: 1,250 places")
    assert page.count("fix: ") == 2
    assert "… and 1,247 more" in page
    assert "! 1 warning: FU01 unequal" in page
    assert "waived: the source has none" in page
    assert "needs the source: --source: SD01, LC01" in page
    assert "1 do not apply" in page
    assert "q and k differ" not in page
    assert "rules explain CN09" in lines[-1]


def test_verbose_lists_every_place_and_warning(validation: Validation) -> None:
    page = "\n".join(text(validation, verbose=True))
    assert "layers.49.mlp" in page
    assert "q and k differ" in page
    assert human.write(validation) == page + "\n"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_checkpoint_with_everything_wrong_still_fits_a_screen(width: int) -> None:
    findings = tuple(
        Finding(code=code, slug=rule.slug, severity=severity, message="One thing is wrong here and it is 3 of 7.",
                file="model-00001-of-00119.safetensors", tensor="model.layers.3.mlp.experts.17.up_proj.weight")
        for code, rule in load_rules().items()
        for severity in (ERROR, WARNING)
        for _ in range(20)
    )  # fmt: skip
    lines = text(Validation(report=report(findings=findings), label="x"), width=width)
    assert len(lines) < 60 * 100 / width + 40
    assert "more rules with errors" in "\n".join(lines)
    assert all(len(line) <= width or " " not in line.strip() for line in lines)


def test_engines_take_a_line_each() -> None:
    page = "\n".join(text(Validation(report=report(engines=ENGINES), label="x")))
    assert "vllm    refuses in 0.17 (CN09); loads wrong in 0.33 (SV01)" in page
    assert "sglang  unknown (no facts about this version)" in page
    assert "atom    loads\n" in page


def test_a_clean_report_is_short() -> None:
    lines = text(Validation(report=report(findings=(), not_run=()), label="x"))
    assert lines[0] == "✓ publishable: x"
    assert len(lines) == 2


def test_no_line_is_a_command_of_a_ci_runner() -> None:
    finding = Finding(code="SV01", slug="s", severity=ERROR, message="a " * 40 + "::error::b ##[x " * 40)
    for width in range(20, 120, 7):
        for line in text(Validation(report=report(findings=(finding,)), label="::warning::x"), width=width):
            assert not line.strip().startswith(("::", "##["))
