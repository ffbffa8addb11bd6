"""How far a push is, in bytes and files, although the client tells nothing while it transfers.

What a file's reader has passed is asked of the kernel: `/proc/self/fdinfo` knows the position of every open file of
this process, whichever library opened it. Where there is no such folder (macOS), a file counts when it is complete.
A transport that reads a file twice, once for its digest and once to send it, counts half for each.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher.manifest import FileEntry

TELL = 0.5  # seconds between two events, at least
DESCRIPTORS = Path("/proc/self/fd")
Tell = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True, kw_only=True)
class Meter:
    """Adds up what is stored of a manifest and tells it now and then.

    Args:
        entries: every file that must be stored.
        tell: told `done`, `total`, `unit`, `files`, `files_total`, `rate` (bytes a second) and `eta` (seconds).
        clock: seconds.
        passes: how often the transport reads a file.
    """

    entries: Mapping[str, FileEntry]
    tell: Tell
    clock: Callable[[], float] = time.monotonic
    passes: int = 1
    stored: set[str] = field(default_factory=set)
    _moving: dict[str, int] = field(default_factory=dict)
    _began: float | None = None
    _skipped: int = 0
    _last: float = -TELL
    _shown: int = -1
    _lock: Any = field(default_factory=threading.Lock)

    def found(self, stored: set[str]) -> None:
        """Files that are there without being sent now."""
        with self._lock:
            self.stored |= stored & self.entries.keys()
            if self._began is None:
                self._began, self._skipped = self.clock(), self._stored_bytes()

    def __call__(self, path: str, transferred: int) -> None:
        """So many bytes of a file have been transferred."""
        with self._lock:
            if transferred >= self.entries[path].size:
                self.stored.add(path)
                self._moving.pop(path, None)
            else:
                self._moving[path] = max(transferred, self._moving.get(path, 0))
        self.say(final=len(self.stored) == len(self.entries))

    def say(self, *, final: bool = False) -> None:
        """Tell where it stands, at most twice a second, and the end always."""
        with self._lock:
            now = self.clock()
            done = max(self._stored_bytes() + sum(self._moving.values()), self._shown, 0)
            if not final and (now - self._last < TELL or done == self._shown):
                return
            self._last, self._shown = now, done
            total = sum(entry.size for entry in self.entries.values())
            seconds = now - (now if self._began is None else self._began)
            rate = (done - self._skipped) / seconds if seconds > 0 else None
            event = {
                "done": done,
                "total": total,
                "unit": "bytes",
                "files": len(self.stored),
                "files_total": len(self.entries),
                "rate": rate,
                "eta": (total - done) / rate if rate else None,
            }
        self.tell(event)

    def _stored_bytes(self) -> int:
        return sum(self.entries[path].size for path in self.stored)

    @contextlib.contextmanager
    def watching(self, files: Mapping[str, Path]) -> Iterator[None]:
        """Tell how far the readers of these files are while something else transfers them."""
        if not DESCRIPTORS.is_dir():
            yield
            return
        ended = threading.Event()
        names = {str(place.resolve()): path for path, place in files.items()}
        thread = threading.Thread(target=self._watch, args=(names, ended), name="push progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch(self, names: Mapping[str, str], ended: threading.Event) -> None:
        before: dict[str, int] = {}
        turns: dict[str, int] = {}
        while not ended.wait(TELL):
            for path, position in positions(names).items():
                if position < before.get(path, 0):
                    turns[path] = min(turns.get(path, 0) + 1, self.passes - 1)
                before[path] = position
                size = self.entries[path].size
                passed = (turns.get(path, 0) * size + position) // self.passes
                with self._lock:
                    if path not in self.stored:
                        self._moving[path] = min(max(passed, self._moving.get(path, 0)), size)
            self.say()


def positions(names: Mapping[str, str]) -> dict[str, int]:
    """How far open files have been read, in bytes, by what `names` calls their resolved paths."""
    found: dict[str, int] = {}
    try:
        descriptors = os.listdir(DESCRIPTORS)
    except OSError:
        return found
    for descriptor in descriptors:
        try:
            path = names.get(os.readlink(DESCRIPTORS / descriptor))
            if path is not None:
                text = (DESCRIPTORS.parent / "fdinfo" / descriptor).read_text()
                found[path] = max(int(text.split(None, 2)[1]), found.get(path, 0))
        except (OSError, ValueError, IndexError):
            continue  # closed meanwhile
    return found
