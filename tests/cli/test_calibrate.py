"""`publisher calibrate` as a user runs it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.cli.conftest import Workspace

SLICE = Path(__file__).parents[1] / "released/sources/slice"


@pytest.mark.slow
def test_a_model_is_observed_and_the_file_serves(workspace: Workspace) -> None:
    source = random.Random(0)
    lines = [" ".join(f"t{source.randrange(3, 256)}" for _ in range(30)) for _ in range(3)]
    (workspace.folder / "text.txt").write_text("\n".join(lines))
    arguments = ["--data", "text.txt", "--samples", "3", "--device", "cpu", "--output", "made/s.safetensors"]
    done = workspace.publisher("calibrate", str(SLICE), *arguments, "--format", "json", fresh=True)
    assert done.json["modules"] == 15
    assert done.json["unreached"] == []
    with safe_open(workspace.folder / "made/s.safetensors", "np") as file:
        assert file.metadata()["source"] == "slice"
        assert file.get_tensor("model.layers.0.mlp.down_proj.input_amax") > 0
    assert [path.name for path in (workspace.folder / "made").iterdir()] == ["s.safetensors"]


def test_what_cannot_be_read_is_said_in_a_sentence(workspace: Workspace) -> None:
    done = workspace.publisher("calibrate", "absent", "--data", "text.txt", code=2)
    assert "absent does not exist" in done.err
