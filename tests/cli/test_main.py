"""The frame of the command line: help at once, exit codes, JSON errors, no traceback, no token."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from publisher.cli import VERBS
from tests.cli.conftest import Workspace


def test_help_names_every_verb_and_answers_at_once(workspace: Workspace) -> None:
    started = time.monotonic()
    done = workspace.publisher("--help", fresh=True)
    assert time.monotonic() - started < 5  # a frozen start would take minutes; the budget itself is a house rule
    for verb in VERBS:
        assert verb in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_its_format(workspace: Workspace, verb: str) -> None:
    done = workspace.publisher(verb, "--help")
    assert f"Usage: publisher {verb}" in done.out
    if verb != "ui":
        assert "--format" in done.out


def test_usage_errors_end_with_two(workspace: Workspace) -> None:
    assert "No such command" in workspace.publisher("publsh", code=2).err
    assert "No such option" in workspace.publisher("plan", "--nope", code=2).err


def test_an_error_is_a_sentence_and_in_json_an_object(workspace: Workspace) -> None:
    done = workspace.publisher("validate", "nowhere", "--format", "json", code=2)
    assert done.err.startswith("error: ")
    assert "nowhere does not exist" in done.err
    error = done.json["error"]
    assert error["exit_code"] == 2
    assert error["hint"]


def test_a_name_with_escape_codes_does_not_reach_the_terminal(workspace: Workspace) -> None:
    done = workspace.publisher("validate", "\x1b[2Jnowhere", code=2)
    assert "\x1b" not in done.err


def test_a_reader_that_goes_away_is_told_from_findings() -> None:
    command = [sys.executable, "-m", "publisher", "rules", "list", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait() == 141
    assert b"Traceback" not in said


def test_data_goes_to_stdout_and_nothing_else_does(workspace: Workspace) -> None:
    done = workspace.publisher("plan", workspace.recipe(), "--format", "json")
    assert len(done.out.strip().splitlines()) == 1
    assert "plan" in done.err
    assert workspace.publisher("plan", workspace.recipe(), "--format", "quiet").out == ""


def test_a_closed_pipe_is_no_traceback(workspace: Workspace) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "publisher", "rules"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize(
    "arguments", [("push",), ("publsh",), ("validate",), ("plan", "--nope"), ("rules", "praise"), ("push", "--gate=x")]
)
def test_in_json_a_usage_error_is_an_object_too(workspace: Workspace, arguments: tuple[str, ...]) -> None:
    done = workspace.publisher(*arguments, "--format", "json", code=2)
    assert len(done.out.splitlines()) == 1
    assert done.json["error"]["exit_code"] == 2
    assert done.json["error"]["message"]


@pytest.mark.parametrize("place", ["mxfp4.yaml", "/dev/full", "/proc/run", "x" * 300])
def test_a_run_directory_that_cannot_be_is_a_sentence(workspace: Workspace, place: str) -> None:
    done = workspace.publisher("quantize", workspace.recipe(), "--run-dir", place, code=2)
    assert place in done.err.replace("\n", "")
    assert "bug" not in done.err
    assert "→" in done.err
