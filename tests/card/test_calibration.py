"""What activations were calibrated on: what was drawn wins over what was asked; experts without a token are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.card.calibration import calibration_rows
from publisher.plan.model import Calibration, Plan, Recipe


def plan(tmp_path: Path, **recipe: Any) -> Plan:
    asked = {"calibration": Calibration(data=tmp_path / "secret" / "chat.jsonl", samples=64, seed=7), **recipe}
    return Plan(
        recipe=Recipe(
            name="tiny", source="x", format="nvfp4", layout="modelopt", engine="native", mode="max",
            **{"activations": "calibrated", **asked},
        ),
        source_label="x", source_commit=None, decisions=(), classes=(), exclude=(), quantization_config={},
        hf_quant_config=None, bytes_before=0, bytes_after=0, shards=1, disk_needed=0, memory_needed=0,
    )  # fmt: skip


def rows(plan: Plan | None, record: dict[str, Any]) -> dict[str, str]:
    return {row.label: row.value.text for row in calibration_rows(plan, record)}


def test_what_was_drawn_wins_over_what_was_asked(tmp_path: Path) -> None:
    asked = rows(plan(tmp_path), {})
    assert asked == {"Calibration data": "chat.jsonl: up to 64 samples of at most 512 tokens, seed 7"}
    drawn = rows(plan(tmp_path), {"calibration": {"samples": 40, "tokens": 9001, "sha256": "ab" * 32}})
    assert drawn["Calibration data"] == "chat.jsonl: 40 samples of at most 512 tokens, 9,001 tokens in all, seed 7"
    assert drawn["Calibration data digest"] == f"sha256 {'ab' * 32}"


def test_a_data_set_of_the_hub_keeps_its_name_and_revision(tmp_path: Path) -> None:
    made = plan(tmp_path, calibration=None, statistics=tmp_path / "seen.safetensors")
    told = {"data": "org/set@0123abc/train", "samples": "512", "sequence_length": "2048", "seed": "1"}
    found = rows(made, {"calibration": {**told, "chat_template": "true", "data_sha256": "cd" * 32}})
    assert found["Calibration data"] == (
        "org/set@0123abc/train: 512 samples of at most 2048 tokens, seed 1 (activation statistics seen.safetensors)"
    )
    assert found["Chat template in calibration"] == "applied"
    local = rows(made, {"calibration": {**told, "data": "/home/somebody/chat.jsonl"}})
    assert "somebody" not in local["Calibration data"]


def test_experts_no_token_reached_are_counted_with_whose_range_they_have() -> None:
    seen = {
        f"model.layers.0.mlp.experts.{n}.up_proj": {"tokens": tokens, "input_amax": 1.0}
        for n, tokens in enumerate((0, 5, 400))
    }
    seen["model.layers.0.mlp.experts.0.up_proj"]["substituted"] = "the largest of its layer"  # type: ignore[assignment]
    seen["model.layers.0.self_attn.o_proj"] = {"tokens": 0, "input_amax": 1.0}
    found = rows(None, {"activation_statistics": seen})
    assert found["Expert coverage"] == (
        "3 expert layers, 1 of them reached by no token, 1 by fewer than 32; the least reached one saw 5"
    )
    assert found["Ranges of unreached experts"] == "1 input ranges are not the layer's own but the largest of its layer"


@pytest.mark.parametrize("record", [{}, {"calibration": 1}, {"activation_statistics": {"a.experts.0.up": 3}}])
def test_a_record_of_nothing_adds_no_row(record: dict[str, Any]) -> None:
    assert rows(None, record) == {}


def test_weight_only_needs_no_data(tmp_path: Path) -> None:
    assert rows(plan(tmp_path, activations="none"), {}) == {"Calibration data": "none needed"}
