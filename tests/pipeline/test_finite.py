"""`--on-nan keep`: what is not finite stays as it is, everywhere it is said, and is looked for once."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors import safe_open

from publisher import pipeline
from publisher.errors import PublisherError
from publisher.journal import Event, RunDirectory
from publisher.pipeline import Order, finite
from publisher.plan.recipe import load_recipe
from tests.builders.tiny import bf16, llama, values_of
from tests.cli.conftest import Workspace

UP, GATE = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.gate_proj"


@pytest.fixture
def damaged(tmp_path: Path) -> Workspace:
    tiny = llama()
    values = values_of(tiny.tensors[f"{UP}.weight"]).copy()
    values[1, 2:4] = np.nan, np.inf
    tiny.tensors[f"{UP}.weight"] = bf16(values)
    tiny.write(tmp_path / "source")
    (tmp_path / "card.toml").write_text('base_model = "tiny/tiny"\n')
    return Workspace(tmp_path)


def run(workspace: Workspace, form: str, on_nan: str, until: str = "quantize") -> list[Event]:
    loaded = load_recipe(workspace.folder / workspace.recipe(form))
    order = Order(recipe=loaded, target=loaded.target, to=f"folder:{workspace.folder / 'out'}", on_nan=on_nan)
    events: list[Event] = []
    pipeline.run(pipeline.prepare(order), RunDirectory(workspace.run), events.append, until=until)
    return events


def test_by_default_it_is_refused_by_name(damaged: Workspace) -> None:
    with pytest.raises(PublisherError, match=rf"{UP}\.weight holds 2 NaN or infinite values"):
        run(damaged, "nvfp4", "refuse")
    assert not damaged.checkpoint.exists()


@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_kept_layers_are_the_source_s_bytes_and_are_declared(damaged: Workspace, form: str) -> None:
    events = run(damaged, form, "keep")
    warning = next(event for event in events if event.kind == "warning" and "NaN" in str(event.payload.get("message")))
    assert warning.payload["modules"] == [UP]
    assert warning.payload["kept"] == 2
    record = json.loads((damaged.run / "checkpoint.quantize.json").read_text())
    assert record["not_finite"] == {UP: 2}
    config = json.loads((damaged.checkpoint / "config.json").read_text())["quantization_config"]
    assert {UP, GATE} <= set(config["ignore"] if form == "nvfp4" else config["exclude"])
    stored = next(damaged.checkpoint.glob("*.safetensors"))
    with safe_open(stored, framework="pt") as found:
        names = set(found.keys())
        assert str(found.get_tensor(f"{GATE}.weight").dtype) == "torch.bfloat16"
        kept = found.get_tensor(f"{UP}.weight").view(torch.int16).numpy()
    assert f"{UP}.weight_scale" not in names
    assert "model.layers.0.mlp.down_proj.weight_scale" in names
    assert any(kept.tobytes() in path.read_bytes() for path in damaged.source.glob("*.safetensors"))
    assert np.isnan(kept.view(ml_dtypes.bfloat16).astype(np.float32)[1, 2])


def test_going_on_does_not_look_again_and_another_source_does(
    damaged: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(damaged, "nvfp4", "keep")
    looked: list[object] = []
    real = finite.not_finite
    monkeypatch.setattr(finite, "not_finite", lambda *a, **k: (looked.append(a), real(*a, **k))[1])
    assert "skip" in {event.kind for event in run(damaged, "nvfp4", "keep") if event.stage == "quantize"}
    assert looked == []
    llama().write(damaged.source)
    run(damaged, "nvfp4", "keep")
    assert len(looked) == 1
    assert json.loads((damaged.run / "checkpoint.quantize.json").read_text())["not_finite"] == {}


def test_a_sound_source_gives_the_plan_without_it(workspace: Workspace) -> None:
    run(workspace, "nvfp4", "keep")
    plan = (workspace.run / "plan.json").read_bytes()
    run(workspace, "nvfp4", "refuse")
    assert (workspace.run / "plan.json").read_bytes() == plan
