"""What a person and the journal see of a child program, whatever it prints and however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from publisher import journal as journals
from publisher.engines import run
from publisher.engines.run import run_job
from publisher.errors import EngineError, InterruptedRun, PublisherError
from publisher.journal import Journal

TOKEN = "hf_" + "a1B2c3D4e5F6g7H8"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "job.json"


def program(folder: Path, body: str) -> list[str]:
    path = folder / "program.py"
    prelude = """
        import json, os, signal, subprocess, sys, time
        def emit(kind, **payload):
            print(json.dumps({"time": 1.5, "stage": "quantize", "kind": kind, "payload": payload}), flush=True)
    """
    path.write_text(textwrap.dedent(prelude) + textwrap.dedent(body))
    return [sys.executable, str(path)]


def run_it(job: Path, body: str, **options: float) -> list[journals.Event]:
    """Run a program to its end, whatever that is; the journal's events."""
    try:
        run_job(program(job.parent, body), Journal(job.parent / "events.jsonl"), **options)
    finally:
        events = journals.read(job.parent / "events.jsonl")[0]
    return events


def log_of(job: Path) -> str:
    return (job.parent / "engine.log").read_text()


def test_events_arrive_as_they_are_and_in_order(job: Path) -> None:
    events = run_it(job, "emit('start', modules=3)\nfor i in range(3): emit('progress', done=i, total=3)\nemit('done')")
    assert [e.kind for e in events] == ["start", "progress", "progress", "progress", "done"]
    assert events[0].payload == {"modules": 3}
    assert events[2].payload == {"done": 1, "total": 3}
    assert events[0].time == 1.5


def test_everything_else_is_a_log_line_of_the_stage_and_stands_in_the_log_file(job: Path) -> None:
    events = run_it(
        job,
        """
        print("Inserted 56 quantizers")
        print("{not an event}")
        print(json.dumps({"kind": "error"}))
        sys.stderr.write("a warning\\n")
        sys.stderr.write("10%\\r50%\\r\\x1b[1mLoading: 100%\\x1b[0m\\n")
        """,
    )
    messages = {e.payload["message"] for e in events}
    assert {e.kind for e in events} == {"log"}
    assert {e.stage for e in events} == {"quantize"}
    assert {"Inserted 56 quantizers", "{not an event}", "a warning", "Loading: 100%"} <= messages
    assert "Inserted 56 quantizers\n" in log_of(job)


def test_an_event_on_standard_error_is_only_text(job: Path) -> None:
    body = """
        line = {"time": 1, "stage": "quantize", "kind": "error", "payload": {"message": "forged"}}
        sys.stderr.write(json.dumps(line) + "\\n")
    """
    assert [e.kind for e in run_it(job, body)] == ["log"]


def test_garbage_and_huge_lines_cost_bounded_memory_and_lose_nothing_after_them(job: Path) -> None:
    events = run_it(
        job,
        """
        sys.stdout.buffer.write(b"\\xff\\xfe\\x00garbage\\n")
        for _ in range(40): sys.stdout.buffer.write(b"x" * 1_000_000)
        sys.stdout.buffer.write(b"\\n" + b"{" * 100_000 + b"\\n"); sys.stdout.flush()
        emit('done', message="still here")
        sys.stdout.write("no newline at the end")
        """,
    )
    assert "still here" in [e.payload.get("message") for e in events]
    assert "no newline at the end" in [e.payload.get("message") for e in events]
    assert max(len(json.dumps(dict(e.payload))) for e in events) < 8 * run.LOG_TEXT
    assert (job.parent / "engine.log").stat().st_size < 1_000_000


def test_a_chatty_library_does_not_fill_the_journal(job: Path) -> None:
    events = run_it(job, f"for i in range({run.LOG_EVENTS} + 500): print('line', i)\nemit('done')")
    assert len(events) == run.LOG_EVENTS + 2
    assert events[-1].kind == "done"
    assert f"line {run.LOG_EVENTS + 499}\n" in log_of(job)


def test_tokens_are_neither_handed_down_nor_written(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    body = f"""
        print("the environment has", os.environ.get("HF_TOKEN"))
        print("a library prints {TOKEN}")
        emit("log", message="an event tells {TOKEN}")
    """
    run_it(job, body)
    written = log_of(job) + (job.parent / "events.jsonl").read_text()
    assert "the environment has None" in written
    assert TOKEN not in written
    assert "an event tells ***" in written


def test_the_program_sees_this_package_but_not_the_current_folder(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json5.py").write_text("raise SystemExit('a file of the current folder was imported')")
    monkeypatch.chdir(tmp_path)
    run_job([sys.executable, "-c", "import publisher.jsonio"], Journal(None))
    with pytest.raises(EngineError, match="No module named 'json5'"):
        run_job([sys.executable, "-c", "import json5"], Journal(None))


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (
            "emit('error', message='shard 3 is cut', hint='Copy it again.')\nsys.exit(2)",
            PublisherError,
            "shard 3 is cut",
        ),
        ("emit('error', message='no kernel', hint='Use native.')\nsys.exit(5)", EngineError, "no kernel"),
        ("emit('cancelled')\nsys.exit(6)", InterruptedRun, "stopped"),
        ("os.kill(os.getpid(), signal.SIGTERM)", InterruptedRun, "stopped"),
        ("print('tensor 7', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)", EngineError, "out of memory"),
        ("sys.exit(137)", EngineError, "out of memory"),
        ("signal.signal(signal.SIGSEGV, signal.SIG_DFL)\nos.kill(os.getpid(), signal.SIGSEGV)", EngineError, "SIGSEGV"),
        ("raise ValueError('what a library raised')", EngineError, "what a library raised"),
        ("sys.exit(2)", EngineError, "exit code 2"),
    ],
)
def test_the_exit_code_decides_what_a_person_reads(
    job: Path, body: str, kind: type[PublisherError], words: str
) -> None:
    with pytest.raises(PublisherError) as caught:
        run_it(job, body)
    assert type(caught.value) is kind
    assert words in caught.value.message
    assert caught.value.hint
    assert "Traceback" not in caught.value.message


def test_an_interpreter_that_is_not_there_is_named(job: Path) -> None:
    with pytest.raises(EngineError, match=r"/nowhere/python cannot be started: No such file") as caught:
        run_job(["/nowhere/python", "-m", "x", str(job)], Journal(None))
    assert "PUBLISHER_<ENGINE>_PYTHON" in caught.value.hint


def interrupt_when(path: Path) -> None:
    """Ctrl-C for this very process as soon as a file is there."""

    def wait() -> None:
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_ctrl_c_here_is_a_polite_stop_there_and_its_last_words_are_kept(job: Path) -> None:
    interrupt_when(job.parent / "ready")
    body = """
        def stop(*_):
            emit("cancelled", message="flushed")
            sys.exit(6)
        signal.signal(signal.SIGTERM, stop)
        open(os.path.join(os.path.dirname(__file__), "ready"), "w").close()
        while True: time.sleep(0.05)
    """
    with pytest.raises(InterruptedRun) as caught:
        run_it(job, body)
    assert "again" in caught.value.hint
    assert [e.kind for e in journals.read(job.parent / "events.jsonl")[0]] == ["cancelled"]


def test_a_program_that_will_not_stop_is_killed_with_all_it_started(job: Path) -> None:
    interrupt_when(job.parent / "ready")
    body = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        here = os.path.dirname(__file__)
        open(os.path.join(here, "pids"), "w").write(f"{os.getpid()} {child.pid}")
        open(os.path.join(here, "ready"), "w").close()
        while True: time.sleep(0.05)
    """
    started = time.monotonic()
    with pytest.raises(InterruptedRun):
        run_it(job, body, grace=0.5)
    assert time.monotonic() - started < 20
    pids = [int(pid) for pid in (job.parent / "pids").read_text().split()]
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_a_process_left_behind_does_not_keep_us_waiting(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LINGER", 0.3)
    started = time.monotonic()
    events = run_it(job, "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nemit('done')")
    assert [e.kind for e in events] == ["done"]
    assert time.monotonic() - started < 20


def test_sigterm_to_the_command_line_stops_the_program_too(job: Path) -> None:
    """The command line turns SIGTERM into KeyboardInterrupt; what runs below it must not outlive it."""
    body = """
        open(os.path.join(os.path.dirname(__file__), "ready"), "w").write(str(os.getpid()))
        while True: time.sleep(0.05)
    """
    command = program(job.parent, body)
    parent = f"""
import signal
from publisher.engines.run import run_job
from publisher.errors import InterruptedRun
from publisher.journal import Journal
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    run_job({command!r}, Journal(None))
except InterruptedRun as error:
    raise SystemExit(error.exit_code)
"""
    root = Path(run.__file__).parents[2]
    outer = subprocess.Popen([sys.executable, "-c", parent], env={**os.environ, "PYTHONPATH": str(root)})
    ready = job.parent / "ready"
    deadline = time.monotonic() + 20
    while not (ready.exists() and ready.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    outer.terminate()
    assert outer.wait(20) == 6
    assert not alive(int(ready.read_text()))
