"""`publisher fix` as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import warm
from tests.builders.edits import body, file
from tests.cli.conftest import ROOT
from tests.rules.cases import GOOD


def fix(*arguments: object, fresh: bool = False) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable if fresh else warm.python(), "-m", "publisher", "fix", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def broken(folder: Path) -> tuple[Path, Path]:
    source, result = GOOD["llama-nvfp4"]()
    body(lambda b: b.update(kv_cache_quant_algo="FP8"))(result)
    file("LICENSE", b"other\n")(result)
    file("README.md", None)(result)
    return source.write(folder / "source"), result.write(folder / "result")


def test_nothing_is_written_unasked(tmp_path: Path) -> None:
    source, result = broken(tmp_path)
    before = sorted((p.name, p.read_bytes()) for p in result.iterdir() if p.is_file())
    code, out, _ = fix(result, "--source", source, fresh=True)
    assert code == 1
    assert "LICENSE is not the source's" in out
    assert "Nothing was written" in out
    assert sorted((p.name, p.read_bytes()) for p in result.iterdir() if p.is_file()) == before


def test_out_writes_and_validates(tmp_path: Path) -> None:
    source, result = broken(tmp_path)
    code, out, _ = fix(result, "--source", source, "--out", tmp_path / "fixed", "--format", "json")
    record: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert code == 0, record["report"]["findings"]
    assert record["written"] == str(tmp_path / "fixed")
    assert record["report"]["publishable"] is True
    assert {change["repair"] for change in record["changes"]} == {"declaration", "side-files"}


def test_in_place_names_the_backup(tmp_path: Path) -> None:
    source, result = broken(tmp_path)
    code, out, _ = fix(result, "--source", source, "--in-place")
    assert code == 0
    backup = next(tmp_path.glob("result.before-*"))
    assert str(backup) in out.replace("\n", "")
    assert (backup / "LICENSE").read_bytes() == b"other\n"
    code, out, _ = fix(result, "--source", source, "--in-place")
    assert (code, "nothing to repair" in out) == (0, True)


def test_refusals_are_sentences(tmp_path: Path) -> None:
    _, result = broken(tmp_path)
    for arguments, words in (
        ((result, "--out", tmp_path / "x", "--in-place"), "exclude each other"),
        ((result, "--only", "weights"), "no repair"),
        ((tmp_path / "none",), "does not exist"),
    ):
        code, _, err = fix(*arguments)
        assert code == 2
        assert words in err
        assert "Traceback" not in err
