"""How far a stage is, told to the journal."""

from __future__ import annotations

import time

from publisher.journal import Journal


class Told:
    """Tells the journal how far a stage is: what, of how much, how fast, how long still; twice a second at most."""

    def __init__(self, journal: Journal, stage: str, unit: str) -> None:
        self.journal, self.stage, self.unit = journal, stage, unit
        self.started = self.told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """So much is done of so much."""
        """So much is done of so much."""
        now = time.monotonic()
        if now - self.told < 0.5:
            return
        self.told = now
        rate = done / max(now - self.started, 1e-9)
        left = (total - done) / rate if rate else None
        self.journal.emit(self.stage, "progress", done=done, total=total, unit=self.unit, rate=rate, eta=left)
