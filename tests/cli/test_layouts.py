"""The whole job in compressed-tensors' layout: plan, quantize, validate, card, push, and the proof of it."""

from __future__ import annotations

import json

import pytest
from safetensors import safe_open

from publisher.checkpoint.statistics import Observed, Statistics, write
from tests.cli.conftest import Workspace

LAYOUT = "layout: compressed-tensors\n"


@pytest.mark.parametrize(
    ("form", "extra", "served"),
    [
        ("nvfp4", "", ["vLLM"]),
        ("mxfp4", "", ["vLLM"]),
        ("mxfp4", "activations: none\n", ["vLLM"]),
    ],
)
def test_everything_from_a_source_to_a_proven_repository(
    workspace: Workspace, form: str, extra: str, served: list[str]
) -> None:
    record = workspace.push(workspace.recipe(form, LAYOUT + extra)).json
    assert record["verified"] is True
    report = json.loads((workspace.run / "report.json").read_text())
    assert report["findings"] == []
    config = json.loads((workspace.tree / "config.json").read_text())
    assert config["quantization_config"]["format"] == f"{form}-pack-quantized"
    assert not (workspace.tree / "hf_quant_config.json").exists()
    card = (workspace.tree / "README.md").read_text()
    assert "compressed-tensors" in card
    assert all(engine in card for engine in served)
    with safe_open(next(workspace.tree.glob("*.safetensors")), "np") as file:
        assert file.get_slice("model.layers.0.mlp.up_proj.weight_packed").get_dtype() == "U8"
    again = workspace.publisher("validate", str(workspace.tree), "--source", "source", "--format", "json").json
    assert again["findings"] == []


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_activations_as_they_were_measured(workspace: Workspace, layout: str) -> None:
    observed = {f"model.layers.{n}.mlp.{p}_proj": Observed(2.5, 100) for n in range(2) for p in ("gate", "up", "down")}
    told = {"data": "/somewhere/text.jsonl", "samples": "16", "sequence_length": "64"}
    write(workspace.folder / "seen.safetensors", Statistics(modules=observed, metadata=told))
    recipe = workspace.recipe("nvfp4", f"layout: {layout}\nstatistics: ./seen.safetensors\n")
    assert workspace.push(recipe).json["verified"] is True
    assert json.loads((workspace.run / "report.json").read_text())["findings"] == []
    card = (workspace.tree / "README.md").read_text()
    assert "text.jsonl: 16 samples of at most 64 tokens" in card
    assert "/somewhere" not in card
    suffix = "input_scale" if layout == "modelopt" else "input_global_scale"
    with safe_open(next(workspace.tree.glob("*.safetensors")), "np") as file:
        scale = float(file.get_tensor(f"model.layers.0.mlp.up_proj.{suffix}").reshape(()))
    assert scale == pytest.approx(2.5 / 2688 if layout == "modelopt" else 2688 / 2.5)
    write(workspace.folder / "seen.safetensors", Statistics(modules=dict.fromkeys(observed, Observed(5.0, 100))))
    again = workspace.push(recipe).json
    assert any(path.endswith(".safetensors") for path in again["sent"])
