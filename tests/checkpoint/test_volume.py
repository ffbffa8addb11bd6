"""Predicted bytes: the published figures of Kimi K2's experts, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.volume import predictable, predicted_bytes
from tests.builders.tiny import Tiny, framed, kimi, llama, mixture, mxfp4, nvfp4


def opened(tiny: Tiny, folder: Path) -> Checkpoint:
    return open_checkpoint(tiny.write(folder))


@pytest.mark.parametrize("make", [llama, mixture, lambda: nvfp4(mixture()), lambda: mxfp4(llama()), kimi])
def test_whole_models_are_predicted_to_the_byte(make: Any, tmp_path: Path) -> None:
    checkpoint = opened(make(), tmp_path)
    known = checkpoint.config.get("model_type") != "unknown"
    assert predicted_bytes(checkpoint) == (checkpoint.tensor_bytes if known else None)


def test_the_experts_of_kimi_k2_take_571_gigabytes_in_nvfp4(tmp_path: Path) -> None:
    """60 layers x 384 experts x 3 projections of 7168 x 2048: 0.5625 bytes a weight, 8 of scalars a module.

    One expert of one layer stands for all: the prediction counts the rest from the configuration.
    """
    head: dict[str, Any] = {}
    at = 0
    for part, (out, width) in {"gate": (2048, 7168), "up": (2048, 7168), "down": (7168, 2048)}.items():
        name = f"model.layers.1.mlp.experts.0.{part}_proj"
        for suffix, dtype, shape, size in (
            ("weight", "U8", [out, width // 2], out * width // 2),
            ("weight_scale", "F8_E4M3", [out, width // 16], out * width // 16),
            ("weight_scale_2", "F32", [], 4),
            ("input_scale", "F32", [], 4),
        ):
            head[f"{name}.{suffix}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(framed(json.dumps(head).encode(), b""))
        file.truncate(file.tell() + at)
    config = {
        "model_type": "kimi_k2", "num_hidden_layers": 61, "hidden_size": 7168, "moe_intermediate_size": 2048,
        "n_routed_experts": 384, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    predicted = predicted_bytes(open_checkpoint(tmp_path))
    assert predicted == 69_120 * (7168 * 2048 * 9 // 16 + 8)
    assert predicted // 10**8 == 5707


def test_a_missing_expert_shows(tmp_path: Path) -> None:
    tiny = nvfp4(mixture())
    tiny.tensors = {name: t for name, t in tiny.tensors.items() if ".1.mlp.experts.3." not in name}
    checkpoint = opened(tiny, tmp_path)
    assert (predicted_bytes(checkpoint) or 0) > checkpoint.tensor_bytes


@pytest.mark.parametrize("value", [None, "61", -1, 10**30, 2.5, True, [3], {}])
def test_odd_configurations_give_no_prediction(value: Any, tmp_path: Path) -> None:
    tiny = llama()
    tiny.config |= {"num_hidden_layers": value, "hidden_size": value}
    checkpoint = opened(tiny, tmp_path)
    assert not predictable(checkpoint)
    assert predicted_bytes(checkpoint) is None
