"""card.toml: what only a person can say. Unknown keys are refused by name, so that a typo never drops a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publisher import jsonio

MAX_FILE = 1 << 20


def read_person(path: Path | None) -> dict[str, Any]:
    """Parse card.toml; no path is an empty one.

    Raises:
        DocumentError: missing, not TOML, or holding what the schema does not know, all problems at once.
    """
    if path is None:
        return {}
    document = jsonio.loads_toml(jsonio.read_bytes(path, MAX_FILE), str(path))
    jsonio.require(document, "card", str(path), hint="Mend it and run the same command again.")
    return document


def part(person: Mapping[str, Any], table: str) -> Mapping[str, Any]:
    """A table of card.toml, empty where it is not there."""
    value = person.get(table)
    return value if isinstance(value, Mapping) else {}
