"""Which rules there are, from a checkout and from a wheel, and which are meant."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from publisher.rules import load_rules, run
from tests.rules.conftest import evidence

ROOT = Path(__file__).parents[2]


def test_families_codes_and_slugs_select(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert {code[:2] for code in run(found, select=["sv", "CN01"]).rules_run} == {"SV", "CN"}
    assert "nan-block-scale" in {load_rules()[c].slug for c in run(found, select=["nan-block-scale"]).rules_run}
    report = run(found, ignore=["LC", "SD"])
    assert not {c for c in report.rules_run if c.startswith(("LC", "SD"))}
    assert {n.reason for n in report.not_run if n.code == "LC03"} == {"left out by request"}


def test_the_rules_of_the_first_issue_are_there() -> None:
    wanted = [f"CN{n:02d}" for n in range(1, 14)]
    wanted += ["CF01", "CF02", "CF04", "CF06", "CF07", "CF21", "CF22", "CF25"]
    wanted += ["NM01", "NM02", "NM04", "NM05", "NM06", "NM09", "NM10", "NM11", "NM13"]
    wanted += ["SV01", "SV03", "SV05", "SV08", "SV11", "FU01", "FU02", "FU03", "FU04", "SD01", "SD03"]
    wanted += ["LC01", "LC02", "LC03", "LC06"]
    assert set(wanted) <= set(load_rules())


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
