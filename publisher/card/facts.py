"""Every value of a card that was computed, with the file it was computed from: `facts` of `publish.json`.

A reader who doubts a number of the card finds here where it comes from without reading this program.
"""

from __future__ import annotations

from collections.abc import Iterator

from publisher.card.context import CardContext
from publisher.card.value import Row, Table, Value

MAX_FACTS = 2000
MAX_TEXT = 500


def facts(card: CardContext) -> list[dict[str, str]]:
    """One entry per value: the part of the card it stands in, its label, its text and its origin."""
    found: list[dict[str, str]] = []
    for group, label, value in _values(card):
        if len(found) == MAX_FACTS:
            break
        found.append({"part": group, "label": label, "text": value.text[:MAX_TEXT], "origin": value.origin})
    return found


def _values(card: CardContext) -> Iterator[tuple[str, str, Value]]:
    yield "title", "base_model", card.upstream.repo
    for name, rows in card.rows.items():
        yield from _rows(name, rows)
    yield from _table("coverage", card.coverage)
    if card.exclude is not None and card.exclude.patterns is not None:
        yield from _table("exclude list", card.exclude.patterns)
    if card.keys is not None:
        yield from _table("stored keys", card.keys)
    if card.memory is not None:
        yield from _table("memory", card.memory)
    if card.validation is not None:
        yield from _rows("validation", card.validation.rows)
    if card.evaluation is not None:
        for label in ("source", "result", "change"):
            yield "perplexity", label, getattr(card.evaluation, label)
        yield from _rows("perplexity", card.evaluation.rows)
    if card.benchmarks is not None:
        for cells in card.benchmarks.rows:
            for head, cell in zip(card.benchmarks.head, cells, strict=True):
                yield "benchmarks", f"{cells[0].text}: {head.text}", cell
        yield from _rows("benchmarks", card.benchmarks.facts)
    for sentence in card.limitations:
        yield "limitations", "limitation", sentence


def _rows(group: str, rows: tuple[Row, ...]) -> Iterator[tuple[str, str, Value]]:
    for row in rows:
        yield group, row.label, row.value


def _table(group: str, table: Table) -> Iterator[tuple[str, str, Value]]:
    """Cells by what their row is about: the first cell that is code, or the first at all."""
    for cells in table.rows:
        about = next((cell for cell in cells if cell.code), cells[0]).text
        for head, cell in zip(table.head, cells, strict=True):
            yield group, f"{about}: {head}", cell
