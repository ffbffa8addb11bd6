"""The verdict per engine: each engine loads, loads wrong, refuses and is unknown for some checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher import jsonio, verdict
from publisher.checkpoint.open import open_checkpoint
from publisher.findings import ERROR, Finding, NotRun, Report, Verdict
from publisher.rules import ENGINES, run
from publisher.subjects import Evidence
from publisher.verdict import verdicts
from tests.builders.edits import DOWN, UP, Edit, each, plain_expert, poke, quant, set_global
from tests.builders.tiny import Tiny
from tests.rules.cases import GOOD
from tests.rules.exclusion_cases import ATTENTION, DOWN_0, add, algorithm, modelopt_mxfp4, plain


def told(base: str, edit: Edit | None, folder: Path, level: str = "full", **options: Any) -> dict[str, Verdict]:
    _, result = GOOD[base]()
    if edit is not None:
        edit(result)
    report = run(Evidence(checkpoint=open_checkpoint(result.write(folder))), level=level, **options)
    return {f"{v.engine} {v.version}": v for v in report.engines}


def dead_scale(tiny: Tiny) -> None:
    """A NaN block scale in any format."""
    name = f"{UP}.weight_scale"
    tiny.poke(name, 0, 0x7F if tiny.tensors[name].dtype == "F8_E4M3" else 0xFF)


V17, V23, V33 = "vllm 0.17.1", "vllm 0.23.0", "vllm 0.33.0"
SGL, TRT, ATOM, TF = "sglang 0.5.23", "tensorrt-llm of 2026", "atom of 2026", "transformers 5.23"
MIXED = quant(lambda block: block.update(format="mixed-precision"))
SPLIT = set_global(UP, 3e-5)  # gate and up with global scales of their own

# engine, checkpoint, edit, level, what the engine makes of it, and because of which rules
TABLE: list[tuple[str, str, Edit | None, str, str, str]] = [
    (V17, "llama-nvfp4", None, "full", "loads", ""),
    (V17, "llama-nvfp4", SPLIT, "full", "loads wrong", "FU02"),
    (V17, "llama-w4a16", None, "full", "refuses", ""),
    (V17, "llama-mxfp4", None, "full", "unknown", ""),
    (V23, "llama-w4a16", None, "full", "loads", ""),
    (V23, "llama-w4a16", SPLIT, "full", "loads wrong", "FU02"),
    (V23, "llama-nvfp4", algorithm("W4A8_NVFP4_FP8"), "full", "refuses", "CF03"),
    (V23, "llama-ct-nvfp4", None, "full", "unknown", ""),
    (V33, "kimi-mxfp4", None, "full", "loads", ""),
    (V33, "llama-ct-mxfp4", dead_scale, "full", "loads wrong", "SV11"),
    (V33, "llama-mxfp4", modelopt_mxfp4, "full", "refuses", "CF03"),
    (V33, "mixture-nvfp4", plain_expert, "full", "refuses", "NM08"),
    (V33, "llama-nvfp4", None, "headers", "unknown", ""),
    (SGL, "kimi-nvfp4", None, "full", "loads", ""),
    (SGL, "llama-nvfp4", SPLIT, "full", "loads wrong", "FU02"),
    (SGL, "kimi-mxfp4", plain(ATTENTION, "kimi"), "full", "refuses", "TP10"),
    (SGL, "llama-ct-mxfp4", None, "full", "unknown", ""),
    (TRT, "llama-ct-nvfp4", None, "full", "loads", ""),
    (TRT, "llama-nvfp4", dead_scale, "full", "loads wrong", "SV01"),
    (TRT, "llama-nvfp4", SPLIT, "full", "refuses", "FU02"),
    (TRT, "llama-mxfp4", None, "full", "refuses", ""),
    (TRT, "llama-nvfp4", algorithm("NVFP4_SVD"), "headers", "unknown", ""),
    (ATOM, "kimi-mxfp4", None, "full", "loads", ""),
    (ATOM, "llama-mxfp4", dead_scale, "full", "loads wrong", "SV11"),
    (ATOM, "llama-mxfp4", add(DOWN_0), "full", "refuses", "TP10"),
    (ATOM, "llama-nvfp4", None, "full", "unknown", ""),
    (TF, "llama-ct-nvfp4", None, "full", "loads", ""),
    (TF, "mixture-ct-nvfp4", None, "full", "loads wrong", ""),
    (TF, "mixture-ct-nvfp4", MIXED, "headers", "loads wrong", ""),
    (TF, "kimi-ct-mxfp4", None, "full", "loads", ""),
    (TF, "llama-ct-nvfp4", MIXED, "full", "loads", ""),
    (TF, "llama-ct-nvfp4", dead_scale, "full", "loads wrong", "SV01"),
    (TF, "llama-nvfp4", None, "full", "refuses", ""),
    (TF, "llama-mxfp4", None, "full", "unknown", ""),
]


@pytest.mark.parametrize(("engine", "base", "edit", "level", "expected", "because"), TABLE)
def test_what_an_engine_makes_of_a_checkpoint(
    engine: str, base: str, edit: Edit | None, level: str, expected: str, because: str, tmp_path: Path
) -> None:
    found = told(base, edit, tmp_path, level)[engine]
    assert found.verdict == expected, found
    assert set(because.split()) <= set(found.because)
    assert bool(found.because or found.reason) or expected == "loads"


def test_every_version_of_every_engine_is_in_the_table() -> None:
    rows = {(row["engine"], row["version"]) for row in jsonio.data("engines/support.json")["engines"]}
    assert {engine for engine, _ in rows} == set(ENGINES)
    for engine, version in rows:
        seen = {row[4] for row in TABLE if row[0] == f"{engine} {version}"}
        assert seen == {"loads", "loads wrong", "refuses", "unknown"}, (engine, version)


def test_what_was_not_run_is_named_with_what_it_needs(tmp_path: Path) -> None:
    found = told("llama-nvfp4", None, tmp_path, "headers")[V33]
    assert found.reason.startswith("not run: FU01")
    assert "needs --level scales" in found.reason
    assert told("llama-nvfp4", None, tmp_path / "again", select=["SV01"])[V33].verdict == "unknown"


def test_a_waiver_changes_nothing_about_the_engine(tmp_path: Path) -> None:
    assert told("llama-nvfp4", SPLIT, tmp_path, waivers={"FU02": "known"})[TRT].verdict == "refuses"


def test_a_checkpoint_that_declares_nothing(tmp_path: Path) -> None:
    edit = each(
        lambda tiny: tiny.config.pop("quantization_config"), lambda tiny: setattr(tiny, "hf_quant_config", None)
    )
    assert {v.verdict for v in told("llama-nvfp4", edit, tmp_path).values()} <= {"unknown", "refuses", "loads wrong"}


@pytest.mark.parametrize("algo", ["INT4_AWQ", "", 7, None, "nvfp4"])
def test_strange_algorithms_have_a_verdict(algo: Any, tmp_path: Path) -> None:
    found = told("llama-nvfp4", quant(lambda q: q.update(quant_algo=algo)), tmp_path, "headers")
    assert len(found) == 7


def _finding(code: str, **facts: Any) -> Finding:
    return Finding(code=code, slug="x", severity=ERROR, message="A thing is wrong.", **facts)


def test_sizes_do_not_decide_and_a_rule_that_failed_says_nothing(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(GOOD["llama-nvfp4"]()[1].write(tmp_path))
    size = _finding("TP01", engines=("vllm",), refuses=("vllm",))
    assert verdicts(checkpoint, Report(findings=(size,)))[2].verdict == "loads"
    broken = Finding(code="SV01", slug="x", severity=ERROR, message="The rule could not finish: no.", engines=("vllm",))
    report = Report(findings=(broken,), not_run=(NotRun(code="SV01", reason="the rule failed: no"),))
    found = verdicts(checkpoint, report, {"SV01": ("vllm",)})[2]
    assert (found.verdict, found.reason) == ("unknown", "not run: SV01, the rule failed: no")


def test_lines_for_people_and_the_report(tmp_path: Path) -> None:
    _, result = GOOD["llama-w4a16"]()
    poke(f"{DOWN}.weight_scale", 0, 0x7F)(result)
    report = run(Evidence(checkpoint=open_checkpoint(result.write(tmp_path))), level="full")
    said = verdict.lines(report.engines)
    assert said[0] == (
        "vLLM 0.17.1: refuses (it does not accept quant_algo W4A16_NVFP4; from 0.23.0 on it does)"
    ) or said[0].startswith("vLLM 0.17.1: refuses (SV01")
    row = report.to_json()["engines"][6]
    assert row["engine"] == "transformers"
    assert set(row) == {"engine", "version", "verdict", "because", "reason"}
