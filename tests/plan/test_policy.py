"""Which pattern or which rule decides about a module."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.plan.matrix import matrices_of, prediction_layers
from publisher.plan.policy import Policy


def decisions(headers: Any, recipe: Any, tensors: dict[str, Any], **change: Any) -> dict[str, tuple[str, str]]:
    checkpoint = headers(tensors)
    policy = Policy(recipe(**change), prediction_layers(checkpoint.modules.values()))
    found = [policy.decide(matrix) for matrix in matrices_of(checkpoint)]
    return {d.module: (d.action, d.pattern or d.reason) for d in found}


def test_keep_wins_over_quantize(headers: Any, shapes: Any, recipe: Any) -> None:
    found = decisions(headers, recipe, shapes("llama"), quantize=["*"], keep=["model.layers.1.*"])
    assert found["model.layers.0.mlp.up_proj"] == ("quantize", "*")
    assert found["model.layers.1.mlp.up_proj"] == ("keep", "model.layers.1.*")


def test_the_first_pattern_that_matches_decides(headers: Any, shapes: Any, recipe: Any) -> None:
    found = decisions(headers, recipe, shapes("llama"), quantize=["*.up_proj", "*.mlp.*"])
    assert found["model.layers.0.mlp.up_proj"] == ("quantize", "*.up_proj")
    assert found["model.layers.0.mlp.down_proj"] == ("quantize", "*.mlp.*")
    assert found["model.layers.0.self_attn.o_proj"] == ("keep", "no quantize pattern matches")


def test_vectors_are_not_decided_on(headers: Any, shapes: Any, recipe: Any) -> None:
    assert not any("norm" in name for name in decisions(headers, recipe, shapes("llama"), quantize=["*"]))


@pytest.mark.parametrize(
    ("module", "shape", "named"),
    [
        ("lm_head", (64, 32), "lm_head"),
        ("model.embed_tokens", (64, 32), "*embed_tokens"),
        ("vision_tower.blocks.0.mlp.fc0", (64, 32), "vision_tower.*"),
        ("mm_projector.proj.0", (64, 32), "mm_projector*"),
        ("model.mtp.0.mlp.up_proj", (64, 32), "*.mtp.*"),
    ],
)
def test_a_sweeping_pattern_does_not_mean_heads_and_towers(
    headers: Any, recipe: Any, module: str, shape: tuple[int, ...], named: str
) -> None:
    tensors = {f"{module}.weight": ("BF16", shape)}
    for sweep in ("*", "*.*", "model.*", "*_proj", "*.proj.*", "lm_h*"):
        assert decisions(headers, recipe, tensors, quantize=[sweep])[module][0] == "keep"
    assert decisions(headers, recipe, tensors, quantize=["*", named])[module] == ("quantize", named)


def numbered_on(shapes: Any) -> dict[str, Any]:
    """Two decoder layers and, as DeepSeek-V3 and GLM store it, a prediction layer with the next number."""
    tensors: dict[str, Any] = shapes("llama", layers=3)
    tensors |= {f"model.layers.2.{name}.weight": ("BF16", (64,)) for name in ("enorm", "hnorm", "shared_head.norm")}
    tensors["model.layers.2.eh_proj.weight"] = ("BF16", (64, 128))
    tensors["model.layers.2.mlp.gate.weight"] = ("BF16", (8, 64))
    tensors["model.layers.2.mlp.experts.0.up_proj.weight"] = ("BF16", (32, 64))
    tensors["model.mtp.layers.0.mlp.up_proj.weight"] = ("BF16", (32, 64))
    return tensors


def test_a_layer_numbered_on_after_the_decoder_is_a_prediction_layer(headers: Any, shapes: Any, recipe: Any) -> None:
    found = decisions(headers, recipe, numbered_on(shapes), quantize=["*", "*_proj", "*.experts.*", "model.layers.0.*"])
    kept = {name: why for name, (action, why) in found.items() if action == "keep"}
    assert kept["model.layers.2.mlp.experts.0.up_proj"] == "prediction layer; name it to quantize it"
    assert {name for name in found if name.startswith("model.layers.2.")} <= set(kept)
    assert "model.mtp.layers.0.mlp.up_proj" in kept
    assert found["model.layers.1.mlp.up_proj"] == ("quantize", "*")
    assert found["model.layers.0.mlp.up_proj"] == ("quantize", "*")


def test_a_prediction_layer_is_quantized_where_its_number_is_named(headers: Any, shapes: Any, recipe: Any) -> None:
    found = decisions(headers, recipe, numbered_on(shapes), quantize=["*", "model.layers.2.mlp.*"])
    assert found["model.layers.2.mlp.experts.0.up_proj"] == ("quantize", "model.layers.2.mlp.*")
    assert found["model.layers.2.self_attn.o_proj"][0] == "keep"
    assert found["model.layers.2.mlp.gate"] == ("keep", "no serving engine loads a quantized router")
    assert found["model.mtp.layers.0.mlp.up_proj"][0] == "keep"


@pytest.mark.parametrize("pattern", ["*", "*.mlp.gate", "model.layers.0.mlp.gate"])
def test_routers_are_kept_whatever_is_asked(headers: Any, recipe: Any, pattern: str) -> None:
    tensors = {"model.layers.0.mlp.gate.weight": ("BF16", (8, 64))}
    found = decisions(headers, recipe, tensors, quantize=[pattern])
    assert found["model.layers.0.mlp.gate"] == ("keep", "no serving engine loads a quantized router")


def test_convolutions_are_kept(headers: Any, recipe: Any) -> None:
    tensors = {"model.layers.0.linear_attn.conv1d.weight": ("BF16", (64, 1, 4))}
    found = decisions(headers, recipe, tensors, quantize=["*"])
    assert found["model.layers.0.linear_attn.conv1d"] == ("keep", "weight has 3 dimensions, not 2")
