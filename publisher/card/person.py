"""card.toml and `card/*.md`: what only a person can say.

Unknown keys and files for no section are refused by name, so that a typo never drops a sentence. Benchmark results are
named there too, by paths that begin where the file lies. Nothing here is ever written: rendering a card again, from a
changed checkpoint too, keeps every word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.card.prose import read_prose
from publisher.evals.sides import split

MAX_FILE = 1 << 20
PROSE = "prose"  # of the parsed document: Markdown by section; no key of card.toml


def read_person(path: Path | None) -> dict[str, Any]:
    """Parse card.toml and the Markdown beside it; no path is an empty one.

    Raises:
        DocumentError: missing, not TOML, or holding what the schema does not know, all problems at once.
        PublisherError: a file of the folder `card` is for no section.
    """
    if path is None:
        return {}
    document = jsonio.loads_toml(jsonio.read_bytes(path, MAX_FILE), str(path))
    jsonio.require(document, "card", str(path), hint="Mend it and run the same command again.")
    folder = path.absolute().parent
    words = read_prose(folder)
    return _located(document, folder) | ({PROSE: words} if words else {})


def _located(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The document with the places of its benchmark results made absolute."""
    named = document.get("evaluation")
    if isinstance(named, dict):
        for side in ("baseline", "results"):
            places = (split(place, folder) for place in named[side])
            named[side] = [f"{label}={path}" if label else str(path) for label, path in places]
    return document


def part(person: Mapping[str, Any], table: str) -> Mapping[str, Any]:
    """A table of card.toml, empty where it is not there."""
    value = person.get(table)
    return value if isinstance(value, Mapping) else {}


def entries(person: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """A list of card.toml, empty where it is not there."""
    value = person.get(key)
    return tuple(value) if isinstance(value, list | tuple) else ()
