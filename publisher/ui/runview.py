"""A run, read from its directory: the state of every stage, how far it is, what it told, what it left.

Reading is incremental, because a run of hours writes tens of thousands of events and the page asks every second. A
run belongs to its directory and not to a tab, so any number of tabs may look.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from publisher import journal, jsonio
from publisher.errors import PublisherError
from publisher.journal import Event, RunDirectory
from publisher.licence import licence_paths
from publisher.manifest import parse
from publisher.pipeline import STAGES
from publisher.runners import local
from publisher.runners.local import Job
from publisher.units import format_bytes, format_duration

WAITING, RUNNING, DONE, SKIPPED, FAILED, STOPPED = "waiting", "running", "done", "skipped", "failed", "stopped"
LINES = 200
MAX_CARD = 1 << 20
ENDS = {"done": DONE, "skip": SKIPPED, "error": FAILED, "cancelled": STOPPED}
MARKS = {"start": "▸", "done": "✓", "skip": "–", "warning": "!", "error": "✕", "cancelled": "■", "log": "·"}


@dataclass(slots=True)
class StageState:
    """One stage: its state, the last thing it told, when it began and ended (seconds since the epoch, 0 unknown)."""

    name: str
    state: str = WAITING
    message: str = ""
    began: float = 0.0
    ended: float = 0.0


@dataclass(slots=True)
class Told:
    """What a journal amounts to; `hear` takes its events in order."""

    stages: dict[str, StageState] = field(default_factory=lambda: {name: StageState(name) for name in STAGES})
    progress: Event | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    events: int = 0

    def hear(self, events: Iterable[Event]) -> None:
        """Take more events."""
        for event in events:
            self.events += 1
            stage = self.stages.get(event.stage)
            if stage is None:
                continue
            if event.kind == "progress":
                self.progress = event
            else:
                self.lines.append(line(event))
            self._note(stage, event)

    def _note(self, stage: StageState, event: Event) -> None:
        if event.kind not in ("progress", "log"):
            self.progress = None
            if stage.state not in (WAITING, RUNNING):
                self._again(stage.name)
                stage = self.stages[stage.name]
        if stage.state == WAITING:
            stage.state, stage.began = RUNNING, event.time
        stage.message = str(event.payload.get("message") or stage.message)
        part = (
            event.kind in ("done", "skip") and "step" in event.payload
        )  # a step of the push; its end carries the record
        if event.kind in ENDS and not part:
            stage.state, stage.ended = ENDS[event.kind], event.time

    def _again(self, name: str) -> None:
        """The same directory is worked on once more: a stage and those after it begin anew."""
        for later in STAGES[STAGES.index(name) :]:
            self.stages[later] = StageState(later)


class Watch:
    """Follows the journals of runs, each read once however many tabs look."""

    def __init__(self) -> None:
        self._told: dict[Path, tuple[int, Told]] = {}
        self._lock = threading.Lock()

    def told(self, path: Path) -> Told:
        """What the journal of a run tells so far."""
        file = RunDirectory(path).events
        with self._lock:
            offset, told = self._told.get(path, (0, Told()))
            if file.exists() and file.stat().st_size < offset:  # another journal under the same name
                offset, told = 0, Told()
            events, offset = journal.read(file, offset)
            told.hear(events)
            self._told[path] = (offset, told)
            return told


def line(event: Event) -> str:
    """An event as a line of the log."""
    when = datetime.fromtimestamp(event.time).strftime("%H:%M:%S")
    message = str(event.payload.get("message") or event.payload.get("step") or "")
    return f"{when}  {event.stage:9} {MARKS.get(event.kind, '·')} {message}".rstrip()


def stages(told: Told, job: Job) -> list[StageState]:
    """The stages as they stand: one left behind by a finished run was not asked for, one of a dead run stopped."""
    found = [told.stages[name] for name in STAGES]
    last = max((i for i, stage in enumerate(found) if stage.state != WAITING), default=-1)
    shown = []
    for position, stage in enumerate(found):
        state, message = stage.state, stage.message
        if state == WAITING and (position < last or job.status == "done"):
            state, message = SKIPPED, "not asked for"
        elif state == RUNNING and job.status != "running":
            state = {"done": DONE, "failed": FAILED, "findings": FAILED}.get(job.status, STOPPED)
        shown.append(StageState(stage.name, state, message, stage.began, stage.ended))
    return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the stage at work is: what it does, how much, how fast, how long still; `share` from 0 to 1."""

    stage: str
    text: str
    share: float | None


def progress(told: Told) -> Progress | None:
    """How far the run is, None between measurable pieces of work."""
    event = told.progress
    if event is None:
        return None
    amounts = {key: _number(event.payload.get(key)) for key in ("done", "total", "rate", "eta")}
    done, total, rate = amounts["done"] or 0.0, amounts["total"] or 0.0, amounts["rate"]
    unit = str(event.payload.get("unit") or "")

    def amount(value: float) -> str:
        return format_bytes(int(value)) if unit == "bytes" else f"{value:,.0f}"

    parts = [f"{amount(done)} of {amount(total)}" + ("" if unit == "bytes" else f" {unit}")]
    if rate:
        parts.append(f"{amount(rate)}/s" if unit == "bytes" else f"{rate:,.1f} {unit}/s")
    if amounts["eta"] is not None and done < total:
        parts.append(f"{format_duration(amounts['eta'])} left")
    what = event.payload.get("tensor") or event.payload.get("file") or event.payload.get("what")
    if what:
        parts.append(str(what))
    return Progress(stage=event.stage, text=" · ".join(parts), share=min(1.0, done / total) if total else None)


def find(root: Path, name: object) -> Path:
    """The directory of a run by its name, which a browser sent.

    Raises:
        PublisherError: no run of that name.
    """
    if isinstance(name, str) and name and name == Path(name).name and name not in (".", ".."):
        path = root / name
        if path.is_dir() and not path.is_symlink():
            return path
    raise PublisherError(f"There is no run {str(name)[:100]!r} here.", hint="Choose one from the list.")


def resume_arguments(job: Job) -> list[str]:
    """The command that goes on with a run: the one that started it, without its directory.

    Raises:
        PublisherError: what started it is not known.
    """
    kept: list[str] = []
    skip = False
    for part in job.command:
        if skip or part.startswith("--run-dir="):
            skip = False
        elif part == "--run-dir":
            skip = True
        else:
            kept.append(part)
    if not kept or kept[0] not in ("push", "quantize"):
        raise PublisherError(f"It is not known what started {job.name}.", hint="Make the plan again and start it.")
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a run has left so far.

    Args:
        reports: of the checkpoint and of the publication, as far as they exist.
        front: the card's front matter.
        card: the card's text.
        licences: path and sha256 of every file of terms.
        push: the record of the push, empty before.
    """

    reports: tuple[Mapping[str, Any], ...]
    front: str
    card: str
    licences: tuple[tuple[str, str], ...]
    push: Mapping[str, Any]


def left(path: Path) -> Left:
    """Read what a run has left; what is missing or half-made is passed over."""
    directory = RunDirectory(path)
    found = [_document(file) for file in (directory.report, directory.publication)]
    manifest = _document(directory.checkpoint / "publish.json") or {}
    front, card = split_card(_text(directory.checkpoint / "README.md"))
    return Left(
        reports=tuple(report for report in found if report is not None),
        front=front,
        card=card,
        licences=tuple(_licences(manifest)),
        push=_document(directory.push) or {},
    )


def marks(path: Path) -> tuple[int, ...]:
    """When the files `left` reads were last written; equal marks mean there is nothing new."""
    directory = RunDirectory(path)
    checkpoint = directory.checkpoint
    files = (directory.report, directory.publication, directory.push)
    return tuple(map(_written, (*files, checkpoint / "README.md", checkpoint / "publish.json")))


def split_card(text: str) -> tuple[str, str]:
    """Front matter and text of a model card."""
    if text.startswith("---\n"):
        front, mark, body = text[4:].partition("\n---\n")
        if mark:
            return front, body.lstrip("\n")
    return "", text


def _licences(manifest: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    try:
        digests = {entry.path: entry.sha256 for entry in parse(manifest, "publish.json").files}
    except PublisherError:
        return
    for path in licence_paths(digests):
        yield path, digests[path]


def _document(path: Path) -> dict[str, Any] | None:
    try:
        value = jsonio.load_json(path)
    except PublisherError:
        return None
    return value if isinstance(value, dict) else None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_CARD).decode(errors="replace")
    except OSError:
        return ""


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def listed(root: Path) -> list[tuple[str, str]]:
    """Label and name of every run, the newest first."""
    return [(_label(job), job.name) for job in local.jobs(root)]


def _label(job: Job) -> str:
    """Name and start; how a run ended too, which does not change any more."""
    when = datetime.fromtimestamp(job.started).strftime("%d %b %H:%M") if job.started else "not started"
    return f"{job.name} — {when}" + ("" if job.status in ("running", "unknown") else f", {job.status}")


def elapsed(job: Job) -> str:
    """How long a run has taken, empty when it never started."""
    return format_duration((job.ended or time.time()) - job.started) if job.started else ""
