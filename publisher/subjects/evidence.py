"""What a validation is given, and the meter that counts what it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from publisher.checkpoint.files import Files
from publisher.checkpoint.open import Checkpoint

LEVELS = ("headers", "scales", "full")
PIECE = 8 << 20  # bytes of one read
CARD = "README.md"
PICTURES = ("images/coverage.svg", "images/error.svg")  # what the card shows, written with it
MAX_MEASURED = 100_000  # modules whose numbers a report carries


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything one validation may look at.

    Args:
        checkpoint: the result, opened.
        source: what it was made from, opened; None when not at hand.
        base_model: `org/name` of the source on the Hub, where it is known.
        card: None judges README.md when there is one, False leaves it alone, True expects it.
        gate: the gate the publication asks for: auto, manual or off.
        settings: the repository's settings as read back (`gated`, `private`), where they are known.
        repo: `org/name` under which it is, or will be, published.
        source_gate: the gate of the source's repository: auto, manual or off; off too where only owners see the result.
        sample: blocks per module that payload rules read, chosen with a fixed seed; None reads every one.
    """

    checkpoint: Checkpoint
    source: Checkpoint | None = None
    base_model: str | None = None
    card: bool | None = None
    gate: str | None = None
    settings: Mapping[str, Any] | None = None
    repo: str | None = None
    source_gate: str | None = None
    sample: int | None = None

    @property
    def has_card(self) -> bool:
        """Whether the card is judged."""
        return CARD in self.checkpoint.files.sizes if self.card is None else self.card


@dataclass(slots=True, kw_only=True)
class Meter:
    """What a run has read: bytes, tensors it could not read (by what they cost: scales or payload), how far it is."""

    progress: Callable[[int, int], None] | None = None
    bytes_read: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    done: int = 0
    total: int = 0
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    left: dict[type, Counter[str]] = field(default_factory=dict)

    def read(self, files: Files, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Read and count."""
        data = files.read(path, begin, end)
        self.bytes_read += len(data)
        return data

    def step(self, size: int) -> None:
        """`size` more bytes of the planned reading are done."""
        self.done += size
        if self.progress is not None:
            self.progress(self.done, self.total)

    def leave(self, kind: type, reason: str) -> None:
        """A subject of a kind could not be made; its rules are not finished, for this reason."""
        self.left.setdefault(kind, Counter())[reason] += 1

    def measure(self, module: str, numbers: dict[str, float]) -> None:
        """Keep what was measured of a module for the report; beyond `MAX_MEASURED` modules no more is kept."""
        if len(self.measured) < MAX_MEASURED:
            self.measured[module] = {name: float(f"{number:.6g}") for name, number in numbers.items()}
