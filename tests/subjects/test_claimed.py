"""The card as evidence: read once, without a card nothing is claimed."""

from __future__ import annotations

from pathlib import Path

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import Evidence, Meter
from publisher.subjects.claimed import read_claimed
from tests.builders.tiny import llama, nvfp4


def test_a_card_is_compared_once_and_by_topic(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.files["README.md"] += b"\nStorage: 9 shards.\n\n```\nvllm serve x --quantization awq\n```\n"
    claimed = read_claimed(Evidence(checkpoint=open_checkpoint(tiny.write(tmp_path))), Meter())
    lines = tiny.files["README.md"].decode().splitlines()
    (number,), (command,) = claimed.about("number"), claimed.about("command")
    assert lines[number.line - 1] == "Storage: 9 shards."
    assert lines[command.line - 1].startswith("vllm serve")
    assert claimed.doubts is claimed.doubts


def test_without_a_card_nothing_is_claimed(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    del tiny.files["README.md"]
    assert read_claimed(Evidence(checkpoint=open_checkpoint(tiny.write(tmp_path))), Meter()).doubts == ()


def test_a_card_that_is_no_utf8_claims_nothing(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.files["README.md"] = b"\xff\xfe 9 shards"
    assert read_claimed(Evidence(checkpoint=open_checkpoint(tiny.write(tmp_path))), Meter()).doubts == ()
