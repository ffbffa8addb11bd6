"""Start an engine's program as a child process and relay what it tells.

Its events go into the journal; every other line it or a library prints becomes a `log` event and a line of
`engine.log` beside the journal, both bounded. Its exit code becomes the error that a person sees. A stop of this
process is a stop of the child and of all it started: SIGTERM first, SIGKILL when it does not end in time.
No shell is involved, the current folder is not searched for Python modules, and no Hub token is handed down: a
quantizer reads local files only.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from publisher import journal as journals
from publisher.errors import EngineError, InterruptedRun, PublisherError
from publisher.journal import Event, Journal

MAX_LINE = journals.MAX_LINE
LOG_EVENTS = 2_000  # log lines that become events; the rest goes to engine.log only
LOG_TEXT = 1_000  # characters of a log event's message
LOG_FILE = 64 * 1024 * 1024
GRACE = 60.0  # seconds between SIGTERM and SIGKILL: a shard may have to be flushed
LINGER = 2.0  # seconds to wait for pipes that a grandchild keeps open
RESUME = "Run the same command again; it goes on from what is finished."
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "HUGGINGFACE_TOKEN")

_Line = tuple[bytes, bool]  # a line, and whether it came from standard output, where events are


def run_job(command: Sequence[str], journal: Journal, *, stage: str = "quantize", grace: float = GRACE) -> None:
    """Run a program to its end.

    Args:
        command: the program and its arguments; the last one is the job file.
        journal: takes the program's events and log lines.
        stage: the stage of log events.
        grace: seconds a stopped program has before it is killed.

    Raises:
        PublisherError: the program found its input bad (exit code 2); its own words.
        EngineError: it failed, crashed, was killed, or could not be started.
        InterruptedRun: it, or this process, was stopped; running again goes on.
    """
    relay = _Relay(journal, stage)
    try:
        child = _Child(command, relay)
    except OSError as error:
        raise EngineError(
            f"{command[0]} cannot be started: {error.strerror or error}.",
            hint="Check the interpreter that PUBLISHER_<ENGINE>_PYTHON names.",
        ) from None
    try:
        code = child.follow()
    except KeyboardInterrupt:
        child.stop(grace)
        raise InterruptedRun("Stopped on request.", hint=RESUME) from None
    except BaseException:
        child.stop(0)
        raise
    finally:
        child.end_group()
        relay.close()
    _raise_for(code, relay)


def _environment(python: str) -> dict[str, str]:
    """The child's environment: this package importable, nothing secret, nothing fetched, nothing imported from `.`."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    root = Path(__file__).resolve().parents[2]
    if root.name not in ("site-packages", "dist-packages"):
        paths = [str(root), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    if python != sys.executable:
        environment.pop("PYTHONHOME", None)
    return environment | {
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": environment.get("TOKENIZERS_PARALLELISM", "false"),
        "TORCHAO_FORCE_SKIP_LOADING_SO_FILES": "1",
    }


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Relay:
    """Turns lines into events and log lines, and remembers what an error message needs."""

    journal: Journal
    stage: str
    error: Event | None = None
    last: deque[str] = field(default_factory=lambda: deque(maxlen=5))
    _lines: int = 0
    _written: int = 0
    _file: IO[bytes] | None = None

    def line(self, raw: bytes, *, is_event_stream: bool) -> None:
        text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        event = journals.parse(text) if is_event_stream and text.startswith("{") else None
        if event is not None:
            if event.kind == "error":
                self.error = event
            self.journal.record(event)
            return
        text = ANSI.sub("", text.rpartition("\r")[2])  # a progress bar's last state, without colours
        text = journals.mask("".join(c if c.isprintable() else " " for c in text)).rstrip()
        if text:
            self._log(text)

    def _log(self, text: str) -> None:
        self.last.append(text)
        self._append(text)
        self._lines += 1
        if self._lines <= LOG_EVENTS:
            self.journal.emit(self.stage, "log", message=text[:LOG_TEXT])
        elif self._lines == LOG_EVENTS + 1:
            self.journal.emit(self.stage, "log", message=f"More than {LOG_EVENTS:,} lines; the rest is in engine.log.")

    def _append(self, text: str) -> None:
        if self.journal.path is None or self._written > LOG_FILE:
            return
        if self._file is None:
            self.journal.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = (self.journal.path.parent / "engine.log").open("ab", buffering=0)
        self._written += self._file.write(text.encode() + b"\n")

    def where(self) -> str:
        """The last line it printed, or what to say instead."""
        return f"the line {self.last[-1][:300]!r}" if self.last else "no line of output"

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _read(pipe: IO[bytes], is_event_stream: bool, lines: queue.Queue[_Line | None]) -> None:
    """Lines of a pipe, cut at MAX_LINE; ends with None."""
    with pipe:
        while line := pipe.readline(MAX_LINE):
            lines.put((line, is_event_stream))
            while not line.endswith(b"\n") and (line := pipe.readline(MAX_LINE)):
                pass  # the rest of a line nobody should have printed
    lines.put(None)


class _Child:
    """A started program, its two pipes read by a thread each into one bounded queue."""

    def __init__(self, command: Sequence[str], relay: _Relay) -> None:
        self._relay = relay
        self._lines: queue.Queue[_Line | None] = queue.Queue(maxsize=1000)
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=_environment(command[0]),
        )
        self._pipes = 0
        for pipe, is_event_stream in ((self._process.stdout, True), (self._process.stderr, False)):
            if pipe is not None:
                self._pipes += 1
                threading.Thread(target=_read, args=(pipe, is_event_stream, self._lines), daemon=True).start()

    def follow(self, deadline: float = math.inf) -> int | None:
        """Relay lines until the program has ended; its exit code, or None when the deadline passed before.

        A process it left behind may hold its pipes open: they are given up after `LINGER` seconds of silence.
        """
        quiet_since = time.monotonic()
        while self._pipes and time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=0.2)
            except queue.Empty:
                if self._process.poll() is not None and time.monotonic() - quiet_since > LINGER:
                    break
                continue
            quiet_since = time.monotonic()
            if line is None:
                self._pipes -= 1
            else:
                self._relay.line(line[0], is_event_stream=line[1])
        try:
            return self._process.wait(None if deadline == math.inf else max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float) -> None:
        """SIGTERM to the program, SIGKILL to all it started when `grace` seconds were not enough or nobody waits."""
        try:
            if grace > 0 and self._process.poll() is None:
                self._process.terminate()
                self.follow(time.monotonic() + grace)
        except KeyboardInterrupt:
            pass  # a second Ctrl-C: do not wait any longer
        finally:
            self.end_group()
            self._process.wait()

    def end_group(self) -> None:
        """Kill whatever is left of the program's process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


# --- ending --------------------------------------------------------------------------------------------------------


def _raise_for(code: int | None, relay: _Relay) -> None:
    """The error an exit code stands for, in the program's own words where it had some."""
    payload: Mapping[str, Any] = relay.error.payload if relay.error is not None else {}
    message, hint = str(payload.get("message") or ""), str(payload.get("hint") or "")
    if code == 0:
        return
    if code in (InterruptedRun.exit_code, -signal.SIGTERM, -signal.SIGINT):
        raise InterruptedRun("The quantizer was stopped.", hint=RESUME)
    if code == PublisherError.exit_code and message:
        raise PublisherError(message, hint=hint)
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        raise EngineError(
            f"The quantizer was killed by SIGKILL after {relay.where()}: the machine ran out of memory?",
            hint="Use a machine with more memory, or the engine native, which needs that of one layer; then run again.",
        )
    if code == EngineError.exit_code and message:
        raise EngineError(message, hint=hint)
    raise EngineError(f"The quantizer {_ending(code)}: {message or relay.where()}.", hint=hint or "Read engine.log.")


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"crashed with {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
