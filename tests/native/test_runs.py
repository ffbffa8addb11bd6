"""Plan, program and rules in a row: whatever the source is stored in, the result is what its weights would give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from publisher.checkpoint.open import open_checkpoint
from publisher.engines import ENGINES
from publisher.engines.base import write_job
from publisher.plan.decide import make_plan
from publisher.plan.recipe import recipe_from_mapping
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.sources import fp8, int4
from tests.builders.tiny import Tiny, kimi, mixture

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
SOURCES = {"int4": lambda: int4(kimi()), "fp8": lambda: fp8(mixture()), "fp8-rows": lambda: fp8(mixture(), (1, 10_000))}


def quantized(folder: Path, tiny: Tiny, run_program: Run, **recipe: Any) -> tuple[Path, list[dict[str, Any]]]:
    """The checkpoint and the events of a run from a recipe."""
    document = {"name": "x", "source": "source", "format": "nvfp4", "quantize": ["*.mlp.*"], **recipe}
    plan = make_plan(
        recipe_from_mapping(document, folder, "recipe.yaml"), open_checkpoint(tiny.write(folder / "source"))
    )
    assert plan.problems == ()
    where = {"source_dir": folder / "source", "output": folder / "out", "staging": folder / "staging"}
    write_job(ENGINES["native"], folder / "job.json", plan=plan, device="cpu", **where)
    code, events, errors = run_program(folder / "job.json")
    assert code == 0, errors
    checkpoint = open_checkpoint(folder / "out")
    assert checkpoint.tensor_bytes == plan.bytes_after
    return folder / "out", events


def weights(folder: Path) -> dict[str, Any]:
    return {name: tensor for shard in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(shard).items()}


def found(folder: Path, *, level: str = "full") -> list[str]:
    evidence = Evidence(checkpoint=open_checkpoint(folder / "out"), source=open_checkpoint(folder / "source"))
    return [f"{f.code} {f.message}" for f in run(evidence, level=level, ignore=("LC",)).findings if f.code != "NU14"]


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_an_encoded_source_gives_what_its_weights_give(kind: str, form: str, tmp_path: Path, run_program: Run) -> None:
    stored, meant = SOURCES[kind]()
    change = {"format": form, "keep": ["*.layers.2.*"]}
    ours, _ = quantized(tmp_path / "stored", stored, run_program, **change)
    theirs, _ = quantized(tmp_path / "meant", meant, run_program, **change)
    mine, other = weights(ours), weights(theirs)
    assert mine.keys() == other.keys()
    assert all(mine[name].equal(other[name]) for name in mine)
    config = json.loads((ours / "config.json").read_text())
    assert "quantization_config" not in config.get("text_config", {})
    assert config["quantization_config"] == json.loads((theirs / "config.json").read_text())["quantization_config"]
    assert found(tmp_path / "stored") == []


@pytest.mark.parametrize(
    ("change", "words"), [("shape", "claim to be"), ("scale", "without a matrix of"), ("zero", "zero_point")]
)
def test_what_cannot_be_decoded_stops_the_run_before_any_work(
    change: str, words: str, tmp_path: Path, run_program: Run
) -> None:
    module = "language_model.model.layers.1.mlp.experts.2.up_proj"
    stored, _ = int4(kimi())
    quantized(tmp_path, stored, run_program)
    (tmp_path / "out").rename(tmp_path / "first")
    if change == "shape":
        stored.tensors[f"{module}.weight_shape"].data = bytes(16)
    elif change == "scale":
        del stored.tensors[f"{module}.weight_scale"]
    else:
        stored.rename(f"{module}.weight_shape", f"{module}.weight_zero_point")
    for shard in (tmp_path / "source").glob("*.safetensors"):
        shard.unlink()
    stored.write(tmp_path / "source")
    code, events, _ = run_program(tmp_path / "job.json")
    assert code == 2
    assert module in events[-1]["payload"]["message"]
    assert words in events[-1]["payload"]["message"]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "staging").exists()
