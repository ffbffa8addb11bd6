"""Limitations follow from the facts."""

from __future__ import annotations

import json
from pathlib import Path

from publisher.card.headers import coverage
from publisher.card.limitations import limitations
from publisher.card.record import perplexity
from publisher.checkpoint.open import Checkpoint, open_checkpoint


def told(checkpoint: Checkpoint, evaluation: dict[str, object] | None = None) -> str:
    found = limitations(checkpoint, None, perplexity(evaluation), (), coverage(checkpoint))
    assert all(value.origin for value in found)
    return " ".join(value.text for value in found)


def test_what_was_not_measured_is_said_first(nvfp4: Path) -> None:
    assert told(open_checkpoint(nvfp4)).startswith("Accuracy was not measured")


def test_a_perplexity_is_no_benchmark(nvfp4: Path) -> None:
    text = told(open_checkpoint(nvfp4), {"source": 10.0, "checkpoint": 11.0})
    assert "weight-only, on one text" in text
    assert "leaves out the error that quantized activations add" in text


def test_static_activations_without_scales_are_named(mxfp4: Path) -> None:
    config = json.loads((mxfp4 / "config.json").read_text())
    config["quantization_config"]["global_quant_config"]["input_tensors"]["is_dynamic"] = False
    (mxfp4 / "config.json").write_text(json.dumps(config))
    assert "6 of 6 quantized modules store no input scale" in told(open_checkpoint(mxfp4))


def test_a_cache_without_scales_clips(nvfp4: Path, mxfp4: Path) -> None:
    assert "engines use 1.0" in told(open_checkpoint(nvfp4))
    assert "KV cache" not in told(open_checkpoint(mxfp4))


def test_images_were_not_tried(nvfp4: Path) -> None:
    config = json.loads((nvfp4 / "config.json").read_text())
    (nvfp4 / "config.json").write_text(json.dumps({**config, "vision_config": {"hidden_size": 8}}))
    assert "Image input was not tested" in told(open_checkpoint(nvfp4))
