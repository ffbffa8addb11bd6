"""The order of a card's sections and their names: ours, and those readers know from three vendors' cards.

An order is data (`data/card/orders.json`): a section names the parts it is made of, the groups of rows those print and
the person's Markdown that belongs there. A section with nothing to say is left out with its heading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.card.person import PROSE, part
from publisher.card.prose import ORDERS, tame

LEVEL = 2  # of a section's heading
DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section.

    Args:
        title: its heading, None for what stands below the card's own title.
        parts: templates, in order.
        rows: groups of rows those print.
        words: a person's Markdown, each with its heading or None.
    """

    title: str | None
    parts: tuple[str, ...]
    rows: tuple[str, ...] = ()
    words: tuple[tuple[str | None, str], ...] = ()


def orders() -> tuple[str, ...]:
    """The names of the orders."""
    return tuple(jsonio.data(ORDERS)["orders"])


def sections(person: Mapping[str, Any], order: str | None = None) -> tuple[Section, ...]:
    """The sections in the order that was asked for, else that of card.toml, else ours."""
    document = jsonio.data(ORDERS)
    chosen = document["orders"][order or person.get("order") or DEFAULT]
    return tuple(
        Section(
            title=row["title"],
            parts=tuple(row["parts"]),
            rows=tuple(row.get("rows", ())),
            words=tuple(_words(person, row.get("words", ()), document["words"])),
        )
        for row in chosen
    )


def _words(
    person: Mapping[str, Any], names: tuple[str, ...], labels: Mapping[str, str]
) -> Iterator[tuple[str | None, str]]:
    """The first needs no heading, it is what the section is about; the others have one."""
    written = part(person, PROSE)
    for position, name in enumerate(names):
        if name in written:
            yield (labels[name] if position else None), tame(str(written[name]), LEVEL)
