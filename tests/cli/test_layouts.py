"""The whole job in compressed-tensors' layout: plan, quantize, validate, card, push, and the proof of it."""

from __future__ import annotations

import json

import pytest
from safetensors import safe_open

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
