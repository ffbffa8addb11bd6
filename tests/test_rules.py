"""The runner: what counts as run, what blocks, what a waiver does; and how the rules are found and listed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publisher import rules
from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError, PublisherError
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import MAX_PLACES, load_rules, rule, run
from publisher.subjects import Evidence, Headers
from tests.builders.edits import DOWN, UP
from tests.builders.tiny import Tiny, f32, llama, nvfp4
from tests.builders.watched import Watched

ROOT = Path(__file__).parents[1]
FAMILIES = {"CN", "CF", "NM", "SV", "FU", "KV", "SD", "TP", "NU", "LC"}


def evidence(folder: Path, tiny: Tiny | None = None, **given: Any) -> Evidence:
    return Evidence(checkpoint=open_checkpoint((tiny or nvfp4(llama())).write(folder / "c")), **given)


def broken() -> Tiny:
    tiny = nvfp4(llama())
    tiny.poke(f"{UP}.weight_scale", 9, 0x7F)
    return tiny


@pytest.fixture
def extra(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A registry of the test's own, beside the real one."""
    own = dict(load_rules())
    monkeypatch.setattr(rules, "_registry", own)
    monkeypatch.setattr(rules, "load_rules", lambda: own)
    return own


def test_what_is_lacking_is_named_per_rule(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    del tiny.files["README.md"]
    report = run(evidence(tmp_path, tiny), level="headers")
    reasons = {entry.code: entry.reason for entry in report.not_run}
    assert reasons["SV01"] == "needs --level scales"
    assert reasons["SD01"] == "needs the source: --source"
    assert reasons["LC02"] == "needs the source: --source"
    assert reasons["LC03"] == "needs the model card: README.md"
    assert reasons["CF21"] == "nothing to judge: there is no quark declaration"
    assert not set(reasons) & set(report.rules_run)
    assert set(reasons) | set(report.rules_run) == set(load_rules())


def test_headers_alone_read_no_tensor(tmp_path: Path) -> None:
    watched = Watched(nvfp4(llama()).write(tmp_path))
    checkpoint = open_checkpoint(watched)
    starts = {name: shard.data_start for name, shard in checkpoint.shards.items()}

    def tensor_reads() -> list[str]:
        return [path for path, begin, size in watched.reads if begin + size > starts.get(path, 1 << 60)]

    watched.reads.clear()
    run(Evidence(checkpoint=checkpoint), level="headers")
    assert tensor_reads() == []
    run(Evidence(checkpoint=checkpoint), level="scales")
    assert tensor_reads() != []


def test_the_report_has_the_contracts_shape(tmp_path: Path) -> None:
    report = run(evidence(tmp_path, broken())).to_json()
    assert set(report) == {"findings", "not_run", "publishable", "engines", "summary", "tool"}
    (finding,) = report["findings"]
    assert finding["where"] == {
        "file": "model-00001-of-00002.safetensors",
        "tensor": f"{UP}.weight_scale",
        "index": [2, 1],
    }
    assert (finding["code"], finding["slug"], finding["severity"]) == ("SV01", "nan-block-scale", "error")
    assert "vllm" in finding["engines"]
    assert report["publishable"] is False
    json.dumps(report, allow_nan=False)


def test_a_waiver_unblocks_and_stays_in_the_report(tmp_path: Path) -> None:
    report = run(evidence(tmp_path, broken()), waivers={"SV01": " a dead row "})
    assert report.publishable
    assert report.findings[0].waived == "a dead row"
    assert report.waivers == {"SV01": "a dead row"}
    assert not run(evidence(tmp_path / "b", broken()), waivers={"SV03": "another rule"}).publishable


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"waivers": {"SV01": " "}}, "no reason"),
        ({"waivers": {"XX99": "why"}}, "no rule's code"),
        ({"waivers": {"SV": "a family"}}, "no rule's code"),
        ({"select": ["ZZ"]}, "No rule is called"),
        ({"ignore": [""]}, "No rule is called"),
        ({"level": "deep"}, "no level"),
    ],
)
def test_a_wrong_request_is_refused(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match=told):
        run(evidence(tmp_path), **options)


def test_families_codes_and_slugs_select(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert {code[:2] for code in run(found, select=["sv", "CN01"]).rules_run} == {"SV", "CN"}
    assert "nan-block-scale" in {load_rules()[c].slug for c in run(found, select=["nan-block-scale"]).rules_run}
    report = run(found, ignore=["LC", "SD"])
    assert not {c for c in report.rules_run if c.startswith(("LC", "SD"))}
    assert {n.reason for n in report.not_run if n.code == "LC03"} == {"left out by request"}


def test_many_places_are_listed_up_to_a_limit_and_counted_exactly(tmp_path: Path, extra: dict[str, Any]) -> None:
    @rule("ZZ01", "too-many", severity=ERROR, engines=("vllm",))
    def too_many(headers: Headers) -> Iterator[Found]:
        """Everything is wrong.

        Why: a test.
        Fix: none.
        """
        for number in range(300):
            yield Found(f"place {number}", severity=ERROR if number % 3 else WARNING)

    report = run(evidence(tmp_path), select=["ZZ01"])
    assert len(report.findings) == MAX_PLACES + 2
    assert [f.message for f in report.errors][-1].startswith("167 more places")
    assert [f.message for f in report.warnings][-1].startswith("83 more places")
    assert {f.severity for f in report.findings[: len(report.errors)]} == {ERROR}


@pytest.mark.parametrize("error", [ValueError("odd data"), CheckpointError("the file is gone.")])
def test_a_rule_that_fails_is_an_error_never_a_pass(error: Exception, tmp_path: Path, extra: dict[str, Any]) -> None:
    @rule("ZZ02", "fails", severity=WARNING)
    def fails(headers: Headers) -> Iterator[Found]:
        """It fails.

        Why: a test.
        Fix: none.
        """
        yield Found("one place first")
        raise error

    report = run(evidence(tmp_path), select=["ZZ02", "CN"])
    assert not report.publishable
    assert "ZZ02" not in report.rules_run
    assert str(error).rstrip(".") in next(n.reason for n in report.not_run if n.code == "ZZ02")
    assert [str(f.severity) for f in report.findings] == ["error", "warning"]
    assert "CN01" in report.rules_run


def test_a_shard_that_vanishes_is_an_error_of_every_scale_rule(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    (tmp_path / "c" / "model-00002-of-00002.safetensors").unlink()
    report = run(found, select=["SV", "FU01"])
    assert {f.code for f in report.errors} >= {"SV01", "SV05", "FU01"}
    assert report.rules_run == ()


def test_scales_outside_their_file_are_not_taken_for_checked(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.after.append(lambda folder: _cut(folder / "model-00002-of-00002.safetensors", 4000))
    report = run(evidence(tmp_path, tiny))
    assert {f.code for f in report.errors} == {"CN04", "CN13"}
    assert "not finished" in next(n.reason for n in report.not_run if n.code == "SV01")


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:-size])


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run(evidence(tmp_path), progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_hostile_numbers_in_names_and_configs_end_soon(tmp_path: Path) -> None:
    """Expert numbers and layer counts out of a stranger's files must not become loops or tracebacks."""
    tiny = nvfp4(llama())
    tiny.tensors[f"model.layers.0.mlp.experts.{10**6 - 1}.up_proj.weight"] = f32(1.0)
    tiny.tensors[f"model.layers.0.mlp.experts.{'9' * 5000}.up_proj.weight"] = f32(1.0)
    tiny.config |= {"num_experts": 10**30, "num_hidden_layers": 10**30, "hidden_size": -1, "text_config": 7}
    report = run(evidence(tmp_path, tiny))
    assert not any("could not finish" in finding.message for finding in report.findings)
    assert "NM09" in {finding.code for finding in report.findings}
    assert report.seconds < 5


@pytest.mark.parametrize("block", [None, 7, [], "modelopt", {}, {"quant_method": ["quark"], "export": 3}])
def test_a_senseless_declaration_is_a_finding(block: Any, tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.config["quantization_config"] = block
    report = run(evidence(tmp_path, tiny))
    assert not report.publishable
    assert not any("could not finish" in finding.message for finding in report.findings)


def test_a_strangers_names_cannot_drive_the_terminal(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.tensors["evil\x1b[2J\ud800\n._amax"] = f32(1.0)
    report = run(evidence(tmp_path, tiny), select=["NM13"])
    told = json.dumps(report.to_json(), ensure_ascii=False)
    assert "\x1b" not in told
    told.encode("utf-8")
    assert report.findings[0].tensor == "evil\\x1b[2J\\ud800\\n._amax"


# --- the list ------------------------------------------------------------------------------------------------------


def test_every_rule_says_what_why_and_how() -> None:
    for known in load_rules().values():
        assert known.code[:2] in FAMILIES
        assert known.slug == known.slug.lower().replace(" ", "-")
        assert known.summary.endswith(".")
        assert known.why
        assert known.fix.endswith(".")
    slugs = [known.slug for known in load_rules().values()]
    assert len(slugs) == len(set(slugs))


def test_the_rules_of_the_first_issue_are_there() -> None:
    wanted = [f"CN{n:02d}" for n in range(1, 14)]
    wanted += ["CF01", "CF02", "CF04", "CF06", "CF07", "CF21", "CF22", "CF25"]
    wanted += ["NM01", "NM02", "NM04", "NM05", "NM06", "NM09", "NM10", "NM11", "NM13"]
    wanted += ["SV01", "SV03", "SV05", "SV08", "SV11", "FU01", "FU02", "FU03", "FU04", "SD01", "SD03"]
    wanted += ["LC01", "LC02", "LC03", "LC06"]
    assert set(wanted) <= set(load_rules())


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


def _ask(folder: Path, *path: Path) -> str:
    """Count the rules in a fresh interpreter that sees only these places."""
    code = (
        "from publisher.rules import load_rules as r; import sys; print(len(r()), sys.modules['publisher.validators'])"
    )
    places = [str(p) for p in (*path, folder)]
    start = f"import sys; sys.path[:0] = {places!r}; sys.path.remove('') if '' in sys.path else None; "
    done = subprocess.run([sys.executable, "-c", start + code], cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_and_a_checkout_load_the_same_rules_past_a_foreign_package(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    (foreign / "validators").mkdir(parents=True)
    (foreign / "validators" / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "publisher", tmp_path / "checkout" / "publisher", ignore=skip)
    shutil.copytree(ROOT / "validators", tmp_path / "checkout" / "validators", ignore=skip)
    shutil.copytree(ROOT / "publisher", tmp_path / "wheel" / "publisher", ignore=skip)
    shutil.copytree(ROOT / "validators", tmp_path / "wheel" / "publisher" / "validators", ignore=skip)
    for form in ("checkout", "wheel"):
        told = _ask(tmp_path / form, foreign)
        assert told.startswith(f"{len(load_rules())} ")
        assert str(tmp_path / form) in told


def test_rules_need_no_torch() -> None:
    code = "import sys; from publisher.rules import load_rules; load_rules(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_a_dead_module_is_told_by_its_own_name(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.tensors[f"{DOWN}.weight_scale_2"] = f32(0.0)
    (finding,) = run(evidence(tmp_path, tiny)).findings
    assert DOWN in finding.message
    assert "0" in finding.message
