"""The whole comparison: in the order of the card, nothing twice, not without end."""

from __future__ import annotations

from pathlib import Path

from publisher.checkpoint.open import open_checkpoint
from publisher.claims import MAX_DOUBTS, lint
from tests.builders.tiny import llama, nvfp4


def test_findings_come_by_line_each_once_and_not_without_end(tmp_path: Path) -> None:
    opened = open_checkpoint(nvfp4(llama()).write(tmp_path))
    card = "Attention remains BF16.\n\nStorage: 9 shards, 9 shards.\n\n- KV cache: FP8\n"
    found = lint(card, opened, served=[("vllm", "vllm serve x -q awq", 4)])
    assert [(one.line, one.topic) for one in found] == [
        (1, "statement"),
        (3, "number"),
        (4, "command"),
        (5, "statement"),
    ]
    assert len(lint("Storage: 9 shards.\n\n" * 1000, opened)) == MAX_DOUBTS
    assert lint("", opened) == ()
