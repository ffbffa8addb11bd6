"""A report with something of everything, and a hostile one: what is written comes from a stranger's checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.findings import ERROR, INFO, WARNING, Finding, NotRun, Report, Verdict
from publisher.reports.validation import Validation

HOSTILE = (
    "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2> ${pwned} {{pwned}} `x` | @all #12 "
    "::error::x %0A::set-output name=a::b ]]> \x1b[31m \u202e \u2028 https://example.com \ud800"
)


def report(**changes: Any) -> Report:
    findings = [
        Finding(code="SV01", slug="nan-block-scale", severity=ERROR, message=f"{n} NaN bytes.", file="a.safetensors",
                tensor=f"model.layers.{n}.mlp.up_proj.weight_scale", index=(n, 2), engines=("vllm", "sglang"))
        for n in range(50)
    ]  # fmt: skip
    findings += [
        Finding(code="SV01", slug="nan-block-scale", severity=ERROR, message="1,200 more places like the 50 listed.",
                places=1200, engines=("vllm", "sglang")),
        Finding(code="CN09", slug="missing-shard", severity=ERROR, message="model-2 is missing.", file="index.json",
                engines=("vllm",), refuses=("vllm",)),
        Finding(code="FU01", slug="unequal", severity=WARNING, message="q and k differ.", tensor="model.layers.0"),
        Finding(code="CF30", slug="told", severity=INFO, message="The file is old."),
        Finding(code="CN06", slug="no-format", severity=ERROR, message="no format", waived="the source has none"),
    ]  # fmt: skip
    values: dict[str, Any] = {
        "findings": tuple(findings),
        "not_run": (
            NotRun(code="SD01", reason="needs the source: --source"),
            NotRun(code="LC01", reason="needs the source: --source"),
            NotRun(code="NM02", reason="nothing to judge: there is no KV scale"),
        ),
        "rules_run": ("CF30", "CN06", "CN09", "FU01", "SV01"),
        "bytes_read": 1234,
        "seconds": 1.5,
        "tool": {"name": "fp4-publisher", "version": "0.1.0"},
    }
    return Report(**{**values, **changes})


ENGINES = (
    Verdict(engine="vllm", version="0.17", verdict="refuses", because=("CN09",)),
    Verdict(engine="vllm", version="0.33", verdict="loads wrong", because=("SV01",)),
    Verdict(engine="sglang", version="0.5", verdict="unknown", reason="no facts about this version"),
    Verdict(engine="atom", version="0.1", verdict="loads"),
)


@pytest.fixture
def validation() -> Validation:
    return Validation(report=report(), label="hf://org/name@0123abc", date="2026-11-21")


@pytest.fixture
def hostile() -> Validation:
    finding = Finding(
        code="SV01", slug="nan-block-scale", severity=ERROR, message=HOSTILE, file=HOSTILE, tensor=HOSTILE, index=(1,)
    )
    warning = Finding(code="FU01", slug="x", severity=WARNING, message=HOSTILE, waived=HOSTILE)
    stranger = Finding(code=HOSTILE[:20], slug=HOSTILE, severity=ERROR, message="hf_abcdefghijklmnopqrstuv")
    held = report(findings=(finding, warning, stranger), not_run=(NotRun(code="CN01", reason=HOSTILE),))
    return Validation(report=held, label=HOSTILE)
