"""A verb's answer is a document, an error, or a sentence about neither."""

from __future__ import annotations

import os
from pathlib import Path

from publisher.ui.commands import Answer, Waiting, answer, ask


def last(*arguments: str) -> Answer:
    *_, end = ask(arguments, os.environ)
    assert isinstance(end, Answer)
    return end


def test_a_document_comes_back() -> None:
    found = last("version", "--format", "json")
    assert found.exit_code == 0
    assert found.error is None
    assert found.document is not None
    assert "fp4-publisher" in found.document


def test_an_error_comes_back_with_its_hint_and_code(tmp_path: Path) -> None:
    found = last("plan", "--format", "json", str(tmp_path / "none.yaml"))
    assert found.exit_code == 2
    assert found.document is None
    assert found.error is not None
    assert "none.yaml" in found.error.message


def test_what_is_no_json_becomes_a_sentence() -> None:
    found = answer(3, "Traceback (most recent call last):\n  File\n", "boom")
    assert found.document is None
    assert found.error is not None
    assert found.error.message == "The command ended with 3 and no result: boom"


def test_a_refused_plan_has_both_a_document_and_an_error() -> None:
    found = answer(2, '{"classes": []}\n{"error": {"message": "no", "hint": "do"}}\n', "")
    assert found.document == {"classes": []}
    assert found.error is not None
    assert (found.error.message, found.error.hint) == ("no", "do")


def test_waiting_is_told_and_a_command_that_takes_too_long_is_stopped() -> None:
    steps = list(ask(["version", "--format", "json"], os.environ, limit=0.0))
    assert isinstance(steps[-1], Answer)
    assert steps[-1].error is not None
    assert "longer than" in steps[-1].error.message
    assert any(isinstance(step, Waiting) for step in ask(["version", "--format", "json"], os.environ))
