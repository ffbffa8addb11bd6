"""How a program tells what it does: one JSON object a line on standard output, the journal's event schema.

Anything a library prints there by itself is no event and is logged as text by whoever started the program.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def emit(stage: str, kind: str, /, **payload: Any) -> None:
    """Print one event; flushed, so that a reader at the other end of a pipe sees it now."""
    event = {"time": time.time(), "stage": stage, "kind": kind, "payload": payload}
    sys.stdout.write(json.dumps(event, ensure_ascii=False, default=str) + "\n")
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
