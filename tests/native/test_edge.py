"""How programs of this package end: exit codes and last events, whatever ends the work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.errors import CheckpointError, EngineError, InterruptedRun, PublisherError
from publisher.native import edge
from publisher.native.events import emit

Write = Callable[..., Path]
PROGRAM = edge.Program(stage="s", module="publisher.native.x", failed="It failed", hint="Read the log.", again="Again.")


def ended(error: BaseException | None, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    def work(path: Path) -> None:
        assert path == Path("job.json")
        if error is not None:
            raise error

    code = edge.run(PROGRAM, ["job.json"], work)
    lines = capsys.readouterr().out.splitlines()
    return code, json.loads(lines[-1]) if lines else {}


@pytest.mark.parametrize(
    ("error", "code", "kind", "message"),
    [
        (KeyboardInterrupt(), 6, "cancelled", "Stopped."),
        (InterruptedRun("Stopped by SIGTERM.", hint="Again."), 6, "cancelled", "Stopped by SIGTERM."),
        (CheckpointError("The shard x is gone.", hint="Again."), 2, "error", "The shard x is gone."),
        (EngineError("No torch.", hint="Again."), 5, "error", "No torch."),
    ],
)
def test_what_ends_the_work_is_the_last_event(
    error: BaseException, code: int, kind: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, event = ended(error, capsys)
    assert (found, event["stage"], event["kind"]) == (code, "s", kind)
    assert event["payload"] == {"message": message, "hint": "Again."}


def test_what_nobody_foresaw_is_told_without_its_whole_length(capsys: pytest.CaptureFixture[str]) -> None:
    code, event = ended(ZeroDivisionError("x" * 5000), capsys)
    assert (code, event["kind"]) == (5, "error")
    assert event["payload"]["message"] == f"It failed: ZeroDivisionError: {'x' * 500}"


def test_work_that_is_done_says_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(None, capsys) == (0, {})


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert edge.run(PROGRAM, arguments, lambda _: pytest.fail("was run")) == 2
    message = json.loads(capsys.readouterr().out)["payload"]["message"]
    assert message == "Usage: python -m publisher.native.x JOB.json"


@pytest.mark.parametrize("last", [None, PublisherError("Bad."), KeyboardInterrupt(), ValueError("unforeseen")])
def test_whoever_reads_may_be_gone(last: BaseException | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the work, or just when the end is told: a stop, and no second failure on the way out."""
    reader, writer = os.pipe()
    os.close(reader)

    def work(_: Path) -> None:
        if last is not None:
            raise last
        emit("s", "progress")

    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        code = edge.run(PROGRAM, ["job.json"], work)
        stream.write("what the interpreter still flushes\n")
        stream.flush()
    assert code == InterruptedRun.exit_code


@pytest.mark.parametrize("error", [EngineError("The disk is full.", hint="Free some."), ValueError("unforeseen")])
def test_a_log_on_a_full_disk_does_not_change_how_it_ended(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(_: Path) -> None:
        raise error

    stream = open("/dev/full", "w")  # noqa: SIM115 - closing it fails too
    monkeypatch.setattr(sys, "stdout", stream)
    assert edge.run(PROGRAM, ["job.json"], work) == EngineError.exit_code
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        stream.close()
    told = capfd.readouterr().err
    assert str(error.args[0]).split(".")[0] in told
    assert "No space left" in told


HANGS = """
import runpy, sys, time
import publisher.native.source as source
source.SourceTensors.load = lambda *_: time.sleep(60)
sys.argv = ["-m", sys.argv[1]]
runpy.run_module("publisher.native", run_name="__main__", alter_sys=True)
"""


def test_a_stop_while_the_disk_hangs_is_a_stop(source: Write, job: Write, tmp_path: Path) -> None:
    """Nobody waits for a read that does not come back, not even the interpreter on its way out."""
    folder = source(tmp_path / "s", [{"a.weight": torch.ones(4, 64).bfloat16()}])
    path = job(tmp_path / "r/job.json", folder, ["a"])
    command = [sys.executable, "-c", HANGS, str(path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["kind"] == "start"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        last = json.loads(process.stdout.read().splitlines()[-1])
    assert time.monotonic() - began < 30
    assert (process.returncode, last["kind"]) == (6, "cancelled")


def test_a_signal_ends_the_work_and_a_second_one_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        edge.interruptible()
        assert edge.run(PROGRAM, ["job.json"], lambda _: os.kill(os.getpid(), signal.SIGTERM)) == 6
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert json.loads(capsys.readouterr().out)["payload"] == {"message": "Stopped.", "hint": "Again."}


def test_paths_of_a_job_file_are_paths_and_every_problem_is_named(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"source": "a", "data": "b", "output": "c", "samples": 3}))
    read = edge.read_fields(job, "calibrate", paths=("source", "data", "output"), hint="Let x write it.")
    assert read == {"source": Path("a"), "data": Path("b"), "output": Path("c"), "samples": 3}
    job.write_text(json.dumps({"source": 1, "data": "b", "samples": "many"}))
    with pytest.raises(PublisherError) as caught:
        edge.read_fields(job, "calibrate", paths=(), hint="Let x write it.")
    assert all(word in caught.value.message for word in ("source", "samples", "output"))
    assert caught.value.hint == "Let x write it."


def test_missing_libraries_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EngineError, match="Calibration needs torch and transformers") as caught:
        edge.require_transformers("Calibration", "calibrate")
    assert "fp4-publisher[calibrate]" in caught.value.hint
