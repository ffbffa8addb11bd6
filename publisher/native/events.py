"""How a program tells what it does: one JSON object a line on standard output, the journal's event schema.

Anything a library prints there by itself is no event and is logged as text by whoever started the program.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

_LINE = threading.Lock()  # a line of one thread is not cut by another's


def emit(stage: str, kind: str, /, **payload: Any) -> None:
    """Print one event; flushed, so that a reader at the other end of a pipe sees it now."""
    event = {"time": time.time(), "stage": stage, "kind": kind, "payload": payload}
    line = json.dumps(event, ensure_ascii=False, default=str) + "\n"
    with _LINE:
        sys.stdout.write(line)
        sys.stdout.flush()


class Progress:
    """Progress of one stage: what is done, of how much, how fast, how long still.

    Prints at most every `interval` seconds, and once at the end.

    Args:
        stage: the stage's name.
        total: how much there is, in `unit`.
        unit: what is counted: bytes, tensors, tokens.
    """

    def __init__(self, stage: str, total: float, unit: str, interval: float = 0.5) -> None:
        self.stage, self.total, self.unit, self.interval = stage, total, unit, interval
        self.done = 0.0
        self._started = time.monotonic()
        self._printed = 0.0

    def add(self, amount: float, **payload: Any) -> None:
        """Count `amount` more as done; `payload` says what (a tensor's name, a shard)."""
        self.done += amount
        now = time.monotonic()
        if now - self._printed >= self.interval or self.done >= self.total:
            self._printed = now
            elapsed = max(now - self._started, 1e-9)
            rate = self.done / elapsed
            eta = (self.total - self.done) / rate if rate else None
            emit(
                self.stage,
                "progress",
                done=self.done,
                total=self.total,
                unit=self.unit,
                rate=rate,
                eta=eta,
                **payload,
            )


class Sized(Protocol):
    """A tensor, as far as progress goes."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def size(self) -> int:
        """Its bytes."""
        ...


class TensorProgress:
    """Progress in bytes and in tensors.

    Args:
        stage: the stage's name.
        tensors: what is still to be done.
        total: how many tensors there are, those of earlier runs included.
    """

    def __init__(self, stage: str, tensors: Sequence[Sized], total: int) -> None:
        self._progress = Progress(stage, sum(tensor.size for tensor in tensors), "bytes")
        self._done, self._total = total - len(tensors), total

    def wrote(self, tensor: Sized) -> None:
        """Count one."""
        self.count(1, tensor.size, tensor.name)

    def count(self, tensors: int, size: int, name: str) -> None:
        """Count some, of which this is the last."""
        self._done += tensors
        self._progress.add(size, tensor=name, tensors=self._done, tensors_total=self._total)
