"""The run directory's log: one event a line, the same schema for the command line, the pages and a remote runner.

An event has a time (seconds since the epoch), a stage, a kind and a payload. Writers append whole lines, so a reader
that polls sees complete events; a line cut by a kill is passed over. Nothing secret is written: the writer masks what
looks like a token and the values of this process's secret environment variables.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.secrets import mask as mask

MAX_LINE = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    Args:
        stage: plan, quantize, validate, evaluate, card, manifest or push.
        kind: start, progress, log, warning, done, skip, error or cancelled.
        payload: `done`/`total`/`unit`/`rate`/`eta` for progress, `message` for the rest, and what else the stage tells.
        time: seconds since the epoch.
    """

    stage: str
    kind: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    time: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The event as one JSON object."""
        return {"time": self.time, "stage": self.stage, "kind": self.kind, "payload": dict(self.payload)}


def parse(line: str) -> Event | None:
    """The event a line holds, or None for anything else (a foreign line, a cut line)."""
    try:
        raw = json.loads(line)
        return Event(
            time=float(raw["time"]),
            stage=str(raw["stage"]),
            kind=str(raw["kind"]),
            payload=dict(raw["payload"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


class Journal:
    """Appends events to a file and hands them to listeners.

    Args:
        path: the `events.jsonl` to append to; None keeps no file.
        listener: called with every event, for a progress display.
    """

    def __init__(self, path: Path | None, listener: Any = None) -> None:
        self.path = path
        self.last_error: Any = None
        self._listener = listener

    def emit(self, stage: str, kind: str, /, **payload: Any) -> None:
        """Record an event now."""
        self.record(Event(stage=stage, kind=kind, payload=payload, time=time.time()))

    def record(self, event: Event) -> None:
        """Record an event that a program printed."""
        if event.kind == "error":
            self.last_error = event.payload.get("message")
        if self.path is not None:
            line = mask(json.dumps(event.to_json(), ensure_ascii=False, default=str)) + "\n"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        if self._listener is not None:
            self._listener(event)


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Complete events after a byte offset, and the offset to go on from.

    A missing file holds no events. Lines that are no events are passed over.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    return list(_events(data[:end])), offset + end


def _events(data: bytes) -> Iterator[Event]:
    for line in data.splitlines():
        event = parse(line[:MAX_LINE].decode("utf-8", errors="replace"))
        if event is not None:
            yield event


class RunDirectory:
    """One run's folder: the frozen values of each stage, the log of all of them, and who is working on it.

    Args:
        path: the folder; created when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.plan = path / "plan.json"
        self.job = path / "job.json"
        self.checkpoint = path / "checkpoint"
        self.staging = path / "checkpoint.partial"
        self.quantize = path / "checkpoint.quantize.json"
        self.report = path / "report.json"
        self.evaluation = path / "evaluation.json"
        self.publication = path / "publication.json"
        self.push = path / "push.json"
        self.state = path / "state.json"
        self.events = path / "events.jsonl"
        self._stamps = path / "stamps.json"
        self._lock: int | None = None

    def stamp(self, stage: str) -> str | None:
        """The digest of the inputs a finished stage was made from, None when it is not finished."""
        value = self._read_stamps().get(stage)
        return value if isinstance(value, str) else None

    def set_stamp(self, stage: str, digest: str) -> None:
        """Record that a stage is finished."""
        jsonio.write_atomic(self._stamps, jsonio.dump_json({**self._read_stamps(), stage: digest}))

    def _read_stamps(self) -> dict[str, Any]:
        """The stamps; a damaged file holds none, so that the stages are done again."""
        try:
            found = jsonio.load_json(self._stamps)
        except jsonio.DocumentError:
            return {}
        return found if isinstance(found, dict) else {}

    def lock(self) -> None:
        """Keep others out while this process works here; released when the process ends, however it ends.

        Raises:
            PublisherError: another process works here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise PublisherError(
                f"Another publisher is working in {self.path}.", hint="Wait for it, or see `publisher jobs`."
            ) from None
        self._lock = descriptor

    def unlock(self) -> None:
        """Let others in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def busy(self) -> bool:
        """Whether a process is working here now."""
        if self._lock is not None:
            return True
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False
