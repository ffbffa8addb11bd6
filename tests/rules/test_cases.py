"""Every rule against edits of good checkpoints: each edit lists the codes it must raise, consequences included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.findings import Report
from publisher.rules import load_rules, run
from publisher.subjects import Evidence
from tests.builders.edits import Edit, listed
from tests.rules import (
    claims_cases,
    compressed_cases,
    config_cases,
    container_cases,
    coverage_cases,
    defects_cases,
    documents_cases,
    exclusion_cases,
    experts_cases,
    fusion_cases,
    kvcache_cases,
    licence_cases,
    modelconfig_cases,
    modelopt_cases,
    names_cases,
    numerics_cases,
    payload_cases,
    publication_cases,
    quark_cases,
    scales_cases,
    serving_cases,
    sidecars_cases,
    sparsity_cases,
)
from tests.rules.cases import GOOD, KNOWN, UNCOMPARED, Case

FAMILIES = (
    container_cases,
    config_cases,
    modelopt_cases,
    quark_cases,
    compressed_cases,
    sparsity_cases,
    modelconfig_cases,
    documents_cases,
    coverage_cases,
    defects_cases,
    names_cases,
    exclusion_cases,
    experts_cases,
    scales_cases,
    payload_cases,
    fusion_cases,
    kvcache_cases,
    sidecars_cases,
    serving_cases,
    numerics_cases,
    publication_cases,
    claims_cases,
    licence_cases,
)
CASES = [case for family in FAMILIES for case in family.CASES]
LEGITIMATE = [row for family in FAMILIES for row in family.LEGITIMATE]
# The comparison with the source notices nearly every edit of a byte; the other families' cases leave it out, so that
# each tells what its own rules see without one.
COMPARING = frozenset(code for code, known in load_rules().items() if known.cost == "payload and source")


@pytest.fixture(autouse=True)
def _no_hundreds_of_megabytes_of_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file too long to be searched whole is one of 8 MiB here."""
    monkeypatch.setattr("publisher.subjects.sidefiles.MOST", 16 << 20)


def check(
    folder: Path,
    base: str,
    edit: Edit | None = None,
    level: str = "full",
    source_edit: Edit | None = None,
    compare: bool = True,
    **evidence: Any,
) -> Report:
    source, result = GOOD[base]()
    if edit is not None:
        edit(result)
    if source_edit is not None:
        source_edit(source)
    given = {"source": open_checkpoint(source.write(folder / "source")), "base_model": "tiny/tiny"} | evidence
    given["checkpoint"] = open_checkpoint(result.write(folder / "result"))
    return run(Evidence(**given), level=level, ignore=() if compare else COMPARING)


def said(report: Report) -> str:
    """The codes of a report, warnings marked, each once."""
    return " ".join(sorted({f.code + {"warning": "w", "info": "i"}.get(f.severity, "") for f in report.findings}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}-{case.name}")
def test_an_edit_raises_exactly_its_codes(case: Case, tmp_path: Path) -> None:
    compare = case in numerics_cases.CASES
    report = check(tmp_path, case.base, case.edit, case.level, case.source, compare, **case.evidence)
    assert said(report) == case.raises, "\n".join(f"{f.code} {f.message}" for f in report.findings)
    own = [finding for finding in report.findings if finding.code == case.code]
    assert any(case.place in f"{finding.file} {finding.tensor}" for finding in own)
    assert all(finding.message.strip().endswith((".", "place.")) for finding in own)
    assert report.publishable == all(code.endswith(("w", "i")) for code in case.raises.split())


@pytest.mark.parametrize("base", GOOD)
def test_a_good_checkpoint_raises_nothing(base: str, tmp_path: Path) -> None:
    report = check(tmp_path, base, gate="manual", settings={"gated": "manual"})
    assert said(report) == KNOWN.get(base, ""), "\n".join(f"{f.code} {f.message}" for f in report.findings)
    assert report.publishable == all(code.endswith(("w", "i")) for code in KNOWN.get(base, "").split())
    excused = ("nothing to judge", "not finished: ") if base in UNCOMPARED else "nothing to judge"
    assert all(entry.reason.startswith(excused) for entry in report.not_run)


@pytest.mark.parametrize(("name", "base", "edit"), LEGITIMATE, ids=[row[0] for row in LEGITIMATE])
def test_a_legitimate_oddity_raises_nothing(name: str, base: str, edit: Edit, tmp_path: Path) -> None:
    report = check(tmp_path, base, edit, compare=(name, base, edit) in numerics_cases.LEGITIMATE)
    assert report.findings == ()


def test_every_rule_has_a_failing_case() -> None:
    assert {case.code for case in CASES} == set(load_rules())


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The rules that looked at some good checkpoint."""
    folder = tmp_path_factory.mktemp("applied")
    return frozenset(code for base in GOOD for code in check(folder / base, base, listed()).rules_run)


@pytest.mark.parametrize("code", sorted({case.code for case in CASES}))
def test_every_rule_looks_at_some_good_checkpoint(code: str, applied: frozenset[str]) -> None:
    """A rule that applies to no good checkpoint would pass by never looking."""
    assert code in applied


@pytest.mark.parametrize(("level", "codes"), [("scales", ""), ("full", "LC14")])
def test_a_changed_weight_is_named_where_shards_are_read(level: str, codes: str, tmp_path: Path) -> None:
    """The last byte of a shard is a weight no other rule can judge."""
    _, result = GOOD["llama-mxfp4"]()
    listed(lambda at: _flip_last(at / "model-00002-of-00002.safetensors"))(result)
    report = run(Evidence(checkpoint=open_checkpoint(result.write(tmp_path))), level=level)
    assert said(report) == codes


def _flip_last(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
