"""Runs on this machine: start the publisher's command line detached, see how it goes, stop it.

A run is its directory: the journal tells what happens, `state.json` how it ended, the lock whether a process still
works there. So a run outlives the terminal or tab that started it, and a killed one is recognised.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher import journal, jsonio
from publisher.errors import PublisherError
from publisher.journal import Event, RunDirectory

RUNS = Path(".publisher/runs")
START_TIMEOUT = 30.0  # seconds until a started command must have taken its run directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run as its directory shows it.

    Args:
        name: the directory's name.
        path: the directory.
        status: running, done, findings, failed, interrupted or killed.
        stage: the last stage that told something.
        message: how it ended, or the last thing it told.
        hint: the next step after a failure.
        started: seconds since the epoch; 0 when unknown.
        ended: seconds since the epoch; 0 while it runs.
        command: the command line that started it.
    """

    name: str
    path: Path
    status: str
    stage: str
    message: str
    hint: str
    started: float
    ended: float
    command: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The job as one JSON object."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "path": str(self.path),
            "command": list(self.command),
        }


def start(
    arguments: Sequence[str], run_dir: Path, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> int:
    """Start `publisher <arguments> --run-dir <run_dir>` detached; returns its process id.

    Args:
        arguments: verb and options, without `--run-dir`.
        run_dir: the run's directory; its `console.log` takes what the command prints.
        cwd: where to run.
        env: additions to the environment.

    Raises:
        PublisherError: a process works in that directory already, or the command ended at once.
    """
    directory = RunDirectory(run_dir)
    if directory.busy:
        raise PublisherError(f"{run_dir.name} is already running.", hint="Wait for it, or cancel it first.")
    run_dir.mkdir(parents=True, exist_ok=True)
    directory.state.unlink(missing_ok=True)
    command = [sys.executable, "-m", "publisher", *arguments, "--run-dir", str(run_dir)]
    with (run_dir / "console.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and not directory.state.exists():
        if process.poll() is not None and not directory.state.exists():
            raise PublisherError(
                f"The run ended at once: {_tail(run_dir / 'console.log')}", hint="Mend that and start it again."
            )
        time.sleep(0.05)
    return process.pid


def cancel(run_dir: Path) -> bool:
    """Ask a running command to stop; it keeps what is finished. False when nothing runs there."""
    directory = RunDirectory(run_dir)
    if not directory.busy:
        return False
    pid = _state(directory).get("pid")
    if not isinstance(pid, int) or pid <= 1:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def jobs(root: Path = RUNS) -> list[Job]:
    """Every run below a folder, the newest first."""
    if not root.is_dir():
        return []
    found = [job(path) for path in root.iterdir() if path.is_dir()]
    return sorted(found, key=lambda item: item.started, reverse=True)


def job(run_dir: Path) -> Job:
    """One run as its directory shows it."""
    directory = RunDirectory(run_dir)
    state = _state(directory)
    events, _ = journal.read(directory.events, _tail_offset(directory.events))
    last = events[-1] if events else Event(stage="", kind="")
    told = next((e for e in reversed(events) if e.payload.get("message")), last)
    status = str(state.get("status", "unknown"))
    if status == "running" and not directory.busy:
        status = "killed"
    return Job(
        name=run_dir.name,
        path=run_dir,
        status=status,
        stage=last.stage,
        message=str(state.get("message") or told.payload.get("message", "")),
        hint="Run the same command again to go on." if status == "killed" else str(state.get("hint", "")),
        started=_number(state.get("started")),
        ended=_number(state.get("ended")),
        command=tuple(str(part) for part in state.get("command", [])),
    )


def _tail_offset(events: Path) -> int:
    """Where to start reading a journal for its last events: a run of hours has tens of thousands."""
    try:
        return max(0, events.stat().st_size - 2 * journal.MAX_LINE)
    except OSError:
        return 0


def _state(directory: RunDirectory) -> dict[str, Any]:
    try:
        value = jsonio.load_json(directory.state)
    except jsonio.DocumentError:
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    told = next((line.partition("error: ")[2] for line in reversed(lines) if line.startswith("error: ")), None)
    return journal.mask(told or (lines[-1] if lines else "it printed nothing"))[:500]
