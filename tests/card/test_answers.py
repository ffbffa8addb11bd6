"""The first questions are answered near the top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from publisher.card.context import card_context
from publisher.checkpoint.open import open_checkpoint


def answers(folder: Path, inputs: dict[str, Any]) -> dict[str, str]:
    context = card_context(checkpoint=open_checkpoint(folder), **inputs)
    return {row.label: row.value.text for row in context.rows["answers"]}


def test_four_questions_are_answered_from_the_files(nvfp4: Path, inputs: dict[str, Any]) -> None:
    found = answers(nvfp4, inputs)
    assert found["Which engine, which version?"].startswith("vLLM 0.17.1 or newer (untested by the publisher)")
    assert found["Is the KV cache quantized?"].startswith("FP8 E4M3")
    assert "Hopper" in found["Which GPUs?"]
    assert found["How accurate is it?"].startswith("weight-only perplexity 16.435, source 14.645 (+12.22%)")
    assert found["Can the figures be repeated?"].startswith("Yes")


def test_what_was_not_measured_is_said(nvfp4: Path, inputs: dict[str, Any]) -> None:
    found = answers(nvfp4, {**inputs, "evaluation": None, "quantize": None})
    assert found["How accurate is it?"] == "not evaluated"
    assert "Can the figures be repeated?" not in found
