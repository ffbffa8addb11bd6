"""A workspace with a tiny source, a recipe, and the command line run as a user runs it: in a process of its own.

One test of every verb starts that process afresh (here or in tests/hub/test_canaries.py), the others let it be forked
from one that has imported the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.builders.tiny import llama

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
name: tiny
source: ./source
format: {form}
engine: native
quantize: ["*.mlp.*_proj"]
keep: ["lm_head"]
target: {{repo: demo/tiny-fp4, gate: manual}}
card: ./card.toml
"""


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of standard output."""
        return json.loads(self.out.strip().splitlines()[-1])


@dataclass
class Workspace:
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def checkpoint(self) -> Path:
        return self.run / "checkpoint"

    @property
    def tree(self) -> Path:
        return self.folder / "out/demo/tiny-fp4/tree"

    def recipe(self, form: str = "mxfp4", extra: str = "") -> str:
        (self.folder / f"{form}.yaml").write_text(RECIPE.format(form=form) + extra)
        return f"{form}.yaml"

    def publisher(self, *arguments: str, code: int | None = 0, fresh: bool = False, **env: str) -> Done:
        done = subprocess.run(
            [sys.executable if fresh else warm.python(), "-m", "publisher", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.env, **env},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        if code is not None:
            assert done.returncode == code, done.stderr + done.stdout
        return Done(done.returncode, done.stdout, done.stderr)

    def push(self, recipe: str, *more: str, code: int | None = 0, **env: str) -> Done:
        return self.publisher(
            "push", recipe, "--to", "folder:out", "--run-dir", "run", "--format", "json", *more, code=code, **env
        )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    llama().write(tmp_path / "source")
    (tmp_path / "card.toml").write_text('base_model = "tiny/tiny"\n')
    return Workspace(tmp_path)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose MXFP4 push is finished; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("pushed")
    llama().write(folder / "source")
    (folder / "card.toml").write_text('base_model = "tiny/tiny"\n')
    done = Workspace(folder)
    done.push(done.recipe())
    return done
