"""Which engines load a checkpoint, with which command, and on which GPUs: read from tables, never run here.

Every command says `untested by the publisher` unless card.toml's `[serving] verified` names the engine; the tables
carry their own sources and dates, which the card prints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.card.metadata import custom_code
from publisher.card.person import part
from publisher.checkpoint.open import Checkpoint

TABLE, HARDWARE = "engines/serving.json", "card/hardware.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How one engine serves the checkpoint.

    Args:
        engine: its name.
        version: from which version on, or which version was read.
        lines: the command, one argument group a line.
        verified: the person's words for where it was tried; None says untested.
        note: what else to know, None where nothing.
    """

    engine: str
    version: str
    lines: tuple[str, ...]
    verified: str | None
    note: str | None

    @property
    def text(self) -> str:
        """The command as it is typed."""
        return " \\\n    ".join(self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What one family of GPUs does with a format: `support` is native, fallback, emulated or not known."""

    gpus: str
    support: str
    note: str


def commands(checkpoint: Checkpoint, model: str, person: Mapping[str, Any]) -> tuple[Command, ...]:
    """One command per engine that loads this layout of this format with these activations."""
    quant = checkpoint.quant
    if quant is None:
        return ()
    verified = tuple(str(line) for line in part(person, "serving").get("verified", ()))
    found = []
    for row in jsonio.data(TABLE)["engines"]:
        if (row["layout"], row["format"]) != (quant.dialect, quant.format):
            continue
        if quant.activations is not None and quant.activations not in row["activations"]:
            continue
        lines = [row["command"].format(model=model)]
        lines += [row["kv_fp8"]] if (quant.kv_cache or "").startswith("fp8") and "kv_fp8" in row else []
        lines += [row["trust"]] if custom_code(checkpoint.config) else []
        found.append(
            Command(
                engine=row["engine"],
                version=row["version"],
                lines=tuple(lines),
                verified=_claim(row["engine"], verified),
                note=row.get("note"),
            )
        )
    return tuple(found)


def refusals(checkpoint: Checkpoint) -> tuple[tuple[str, str], ...]:
    """Engines known not to load this layout of this format, each with why."""
    quant = checkpoint.quant
    if quant is None:
        return ()
    return tuple(
        (row["engine"], row["why"])
        for row in jsonio.data(TABLE)["refuses"]
        if (row["layout"], row["format"]) == (quant.dialect, quant.format)
    )


def hardware(checkpoint: Checkpoint) -> tuple[str, tuple[Hardware, ...]] | None:
    """One sentence and the rows for this format; None for a format the table does not know."""
    quant = checkpoint.quant
    entry = jsonio.data(HARDWARE)["formats"].get(quant.format if quant is not None else None)
    if quant is None or entry is None:
        return None
    kind = "weight_only" if quant.activations == "none" else "full"
    return entry[kind]["short"], tuple(Hardware(**row) for row in entry[kind]["rows"])


def sources(checkpoint: Checkpoint) -> tuple[str, str]:
    """Where the tables' facts come from: engines, hardware of this format."""
    table, chips = jsonio.data(TABLE), jsonio.data(HARDWARE)
    quant = checkpoint.quant
    entry = chips["formats"].get(quant.format if quant is not None else None) or chips
    return f"{table['source']} ({table['date']})", f"{entry['source']} ({chips['date']})"


def _claim(engine: str, verified: tuple[str, ...]) -> str | None:
    """The person's lines that name an engine as a word of its own."""
    pattern = re.compile(rf"(?<![\w-]){re.escape(engine)}(?![\w-])", re.IGNORECASE)
    return "; ".join(line for line in verified if pattern.search(line)) or None
