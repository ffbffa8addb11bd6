"""Evaluation tables of a card recomputed: differences, averages, recoveries, z-scores.

Only what a table itself implies is judged, each figure with the interval its rounding allows. Which column is the
result and which the baseline is read from their heads; where the heads do not tell, the pair that explains most rows
is taken, and a table that no pair explains is not judged.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from publisher.claims.document import Document, Grid, Sentence
from publisher.claims.figures import Figure, Interval, figure, interval
from publisher.claims.finding import NUMBER, Doubt, doubt

MAX_PAIRS = 400  # comparisons of one table
MAX_COLUMNS = 24
_DELTA = re.compile(r"\u0394|\u2206|\bdelta\b|\bdiff(?:erence)?\b|\bchange\b|\bvs\.? base", re.I)
_RECOVERY = re.compile(r"\brecover(?:y|ed)\b", re.I)
_Z = re.compile(r"\s{0,2}(?:z|z[- ]?score|\u0394\s?/\s?(?:SE|\u03c3))\s{0,2}", re.I)
_STATISTIC = re.compile(r"\s{0,2}(?:z\b|p[- ]?value|confidence|significan)", re.I)  # of an error told in words
_AVERAGE = re.compile(
    r"\s{0,2}(?:(?:macro |overall |simple |unweighted )?(?:average|avg\.?|mean)(?: score| accuracy)?|overall)\s{0,2}",
    re.I,
)
_OURS = re.compile(r"\b(?:this|ours?|quantized|NVFP4|MXFP4|FP4|result)\b", re.I)
_BASE = re.compile(r"\b(?:base(?:line)?|source|BF16|FP16|FP8|INT4|reference|upstream|original|unquantized)\b", re.I)
_PROSE_Z = re.compile(r"(?<![\w-])\|?z\|?\s{0,2}[=\u2248~]\s{0,2}[-\u2212+]?(?P<z>\d{1,3}(?:\.\d{1,4})?)(?![\d.]*\d)")
_PROSE_DELTA = re.compile(
    r"(?:\u0394|\u2206"
    r"|\bdelta)\s{0,2}[=\u2248:]\s{0,2}(?P<sign>[+\-\u2212\u2013]?)\s{0,2}(?P<d>\d{1,3}(?:\.\d{1,4})?)\s{0,2}(?:pp"
    r"|%|points?)"
)
_RATIO = re.compile(
    r"(?P<a>\d{1,4}\.\d{1,4})\s{0,2}/\s{0,2}(?P<b>\d{1,4}\.\d{1,4})\s{0,2}[=\u2248]\s{0,2}(?P<c>\d{1,4}(?:\.\d{1,4})?)\s{0,2}%"
)
_RECOVERED = re.compile(
    r"(?P<a>\d{1,3}\.\d{1,4})\s{0,2}% (?:accuracy |average )?recovery\b"
    r"|\brecovery(?: rate)?(?: of|:| is)\s{0,2}(?P<b>\d{1,3}\.\d{1,4})\s{0,2}%"
    r"|\brecovers (?P<c>\d{1,3}\.\d{1,4})\s{0,2}%"
)
_SEEDS = re.compile(r"\b(\d{1,2})[- ]seeds?\b|\bmean (?:of|over) (\d{1,2}) (?:seeds|runs)\b", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of scores.

    Args:
        grid: as printed.
        cells: the figures, row by row, None where a cell holds none.
        deltas: columns of differences.
        scores: columns of scores.
        pair: (result, baseline), None where nothing tells.
    """

    grid: Grid
    cells: tuple[tuple[Figure | None, ...], ...]
    deltas: tuple[int, ...]
    scores: tuple[int, ...]
    pair: tuple[int, int] | None

    def averages(self) -> list[int]:
        """Rows that average others."""
        return [i for i, row in enumerate(self.grid.rows) if any(_AVERAGE.fullmatch(cell) for cell in row[:2])]


def tables(document: Document) -> tuple[Table, ...]:
    """The tables of the card that hold scores."""
    found = (_table(grid) for grid in document.grids)
    return tuple(table for table in found if table is not None)


def _table(grid: Grid) -> Table | None:
    if not 2 <= len(grid.head) <= MAX_COLUMNS or not grid.rows:
        return None
    cells = tuple(tuple(figure(cell) for cell in row) for row in grid.rows)
    numeric = [
        c for c in range(1, len(grid.head)) if sum(c < len(r) and r[c] is not None for r in cells) * 2 > len(cells)
    ]
    deltas = tuple(c for c in numeric if _DELTA.search(grid.head[c]))
    others = [
        c
        for c in numeric
        if c not in deltas
        and not _RECOVERY.search(grid.head[c])
        and not _Z.fullmatch(grid.head[c])
        and not _STATISTIC.match(grid.head[c])
    ]
    scores = tuple(c for c in others if _is_score(grid.head[c], cells, c))
    if len(scores) < 2 or not (deltas or _spread(cells) or any(_AVERAGE.fullmatch(r[0]) for r in grid.rows if r)
                               or any(_RECOVERY.search(h) for h in grid.head)):  # fmt: skip
        return None
    return Table(grid=grid, cells=cells, deltas=deltas, scores=scores, pair=_pair(grid, cells, scores, deltas))


def _is_score(head: str, cells: Sequence[Sequence[Figure | None]], column: int) -> bool:
    """Whether a column holds scores rather than numbers of shots or samples."""
    return not re.fullmatch(
        r"(?:n|num|number)?[- ]?(?:of )?(?:few)?[- ]?(?:shots?|samples|seeds?|limit|tokens)?", head, re.I
    ) and any(column < len(row) and row[column] is not None for row in cells)


def _spread(cells: Sequence[Sequence[Figure | None]]) -> bool:
    return any(cell is not None and cell.spread is not None for row in cells for cell in row)


def _pair(
    grid: Grid, cells: Sequence[Sequence[Figure | None]], scores: tuple[int, ...], deltas: tuple[int, ...]
) -> tuple[int, int] | None:
    """Result and baseline by their heads; otherwise the pair that explains at least half of the differences."""
    base = [c for c in scores if _BASE.search(grid.head[c])]
    ours = [c for c in scores if _OURS.search(grid.head[c]) and c not in base]
    if len(ours) == 1 and len(base) == 1:
        return ours[0], base[0]
    best: tuple[int, tuple[int, int]] | None = None
    for pair in itertools.islice(itertools.permutations(scores, 2), MAX_PAIRS):
        right = sum(_explains(row, pair, column) is True for row in cells for column in deltas[:1])
        if right * 2 > len(cells) and (best is None or right > best[0]):
            best = (right, pair)
    return best[1] if best is not None else None


def at(row: Sequence[Figure | None], column: int) -> Figure | None:
    """The figure of a column, None where the row is shorter or holds none."""
    return row[column] if column < len(row) else None


def _explains(row: Sequence[Figure | None], pair: tuple[int, int], column: int) -> bool | None:
    """Whether a printed difference follows from its row; None where the row lacks a figure."""
    mine, theirs, delta = at(row, pair[0]), at(row, pair[1]), at(row, column)
    if mine is None or theirs is None or delta is None:
        return None
    return any(delta.value.meets(one) for one in _differences(mine.value, theirs.value, delta.unit))


def _differences(mine: Interval, theirs: Interval, unit: str) -> Iterator[Interval]:
    """What a difference may be printed as: in the scores' unit, in points of fractions, in percent of the baseline."""
    difference = mine - theirs
    yield difference
    if max(abs(mine.high), abs(theirs.high)) <= 1.001:
        yield difference * 100
    if unit == "%" and theirs.low > 0:
        ratio = Interval(mine.low / theirs.high, mine.high / theirs.low)
        yield Interval(ratio.low - 1, ratio.high - 1) * 100


# --- judging -------------------------------------------------------------------------------------------------------


def judge(document: Document) -> Iterator[Doubt]:
    """Every figure of an evaluation that does not follow from the card's own tables."""
    found = tables(document)
    for table in found:
        yield from _deltas(table)
        yield from _averages(table)
        yield from _recoveries(table)
        yield from _column_z(table)
    for sentence in document.sentences:
        yield from _ratios(sentence)
        above = _nearest(found, sentence.line)
        if above is not None:
            yield from _prose(document, sentence, above)


def _nearest(found: Sequence[Table], line: int) -> Table | None:
    before = [table for table in found if table.grid.line < line]
    return before[-1] if before else None


def _row(table: Table, number: int) -> str:
    return " | ".join(table.grid.rows[number])


def _deltas(table: Table) -> Iterator[Doubt]:
    if table.pair is None:
        return
    heads = f"{table.grid.head[table.pair[0]]} and {table.grid.head[table.pair[1]]}"
    for number, row in enumerate(table.cells):
        for column in table.deltas[:1]:
            mine, theirs = at(row, table.pair[0]), at(row, table.pair[1])
            if _explains(row, table.pair, column) is False and mine is not None and theirs is not None:
                delta = at(row, column)
                unit = delta.unit if delta is not None else ""
                one = _closest(list(_differences(mine.value, theirs.value, unit)), delta)
                fact = f"{heads[:80]} differ by {middle(one):+.2f}"
                yield doubt(
                    NUMBER, table.grid.lines[number], _row(table, number), fact, "Correct the difference or its sign"
                )


def _closest(choices: list[Interval], delta: Figure | None) -> Interval:
    """Of the ways to print a difference the one nearest to what is printed."""
    if delta is None:
        return choices[0]
    return min(choices, key=lambda one: abs(abs(middle(one)) - abs(middle(delta.value))))


def middle(one: Interval) -> float:
    """The value a figure was most likely rounded from."""
    return (one.low + one.high) / 2


def _averages(table: Table) -> Iterator[Doubt]:
    begin = 0
    for number in table.averages():
        rows = table.cells[begin:number]
        begin = number + 1
        for column in table.scores:
            printed = at(table.cells[number], column)
            values = [value for row in rows if (value := at(row, column)) is not None]
            if printed is None or len(values) < 2 or len(values) != len(rows):
                continue
            mean = Interval(
                sum(v.value.low for v in values) / len(values), sum(v.value.high for v in values) / len(values)
            )
            if not printed.value.meets(mean):
                fact = f"the {len(values)} rows above average {middle(mean):.2f} in {quoted_head(table, column)}"
                yield doubt(NUMBER, table.grid.lines[number], _row(table, number), fact, "Correct the average")


def quoted_head(table: Table, column: int) -> str:
    """A column's head for a message."""
    return f"the column {table.grid.head[column][:40] or column + 1}"


def _recoveries(table: Table) -> Iterator[Doubt]:
    columns = [c for c, head in enumerate(table.grid.head) if _RECOVERY.search(head)]
    if table.pair is None or len(columns) != 1:
        return
    for number, row in enumerate(table.cells):
        mine, theirs, printed = at(row, table.pair[0]), at(row, table.pair[1]), at(row, columns[0])
        if mine is None or theirs is None or printed is None:
            continue
        ratio = mine.value.over(theirs.value)
        if ratio is not None and not printed.value.meets(ratio * 100) and not printed.value.meets(ratio):
            fact = f"the two scores give {middle(ratio) * 100:.2f}%"
            yield doubt(NUMBER, table.grid.lines[number], _row(table, number), fact, "Correct the recovery")


def _column_z(table: Table) -> Iterator[Doubt]:
    columns = [c for c, head in enumerate(table.grid.head) if _Z.fullmatch(head)]
    if table.pair is None or len(columns) != 1:
        return
    for number, row in enumerate(table.cells):
        mine, theirs, printed = at(row, table.pair[0]), at(row, table.pair[1]), at(row, columns[0])
        z = errors_apart(mine, theirs) if mine is not None and theirs is not None else None
        if z is not None and printed is not None and not z.meets(printed.value.size):
            fact = f"the scores and their errors give {z.low:.2f} to {z.high:.2f}"
            yield doubt(NUMBER, table.grid.lines[number], _row(table, number), fact, "Correct the z-score")


def errors_apart(mine: Figure, theirs: Figure) -> Interval | None:
    """|difference| over the pooled error, in the units of the table; None where an error is missing or may be zero."""
    if mine.spread is None or theirs.spread is None:
        return None
    low = math.hypot(max(mine.spread.low, 0), max(theirs.spread.low, 0))
    high = math.hypot(mine.spread.high, theirs.spread.high)
    difference = (mine.value - theirs.value).size
    return Interval(difference.low / high, difference.high / low) if low > 0 else None


def _compared(table: Table) -> Iterator[tuple[Figure, Figure]]:
    """Figures that the table sets against each other: of one row, or of one column."""
    rows = [[cell for c in table.scores if (cell := at(row, c)) is not None] for row in table.cells]
    columns = [[cell for row in table.cells if (cell := at(row, c)) is not None] for c in table.scores]
    pairs = (pair for group in (*rows, *columns) for pair in itertools.combinations(group, 2))
    yield from itertools.islice(pairs, MAX_PAIRS)


def _prose(document: Document, sentence: Sentence, table: Table) -> Iterator[Doubt]:
    """Differences, z-scores and recoveries in the words around a table."""
    whole = sentence.whole
    if table.grid.heading != sentence.heading:
        return
    seeds = _seeds(document, table)
    match = _PROSE_Z.search(whole)
    scores = [z for pair in _compared(table) if (z := errors_apart(*pair)) is not None]
    if match is not None and scores:
        said = interval(match.group("z"))
        widened = [Interval(z.low, z.high) * factor for z in scores for factor in {1.0, *(math.sqrt(n) for n in seeds)}]
        if not any(said.meets(z) for z in widened):
            likely = max(z.high for z in widened)
            fact = f"the table's figures and errors give at most {likely:.2f}" + (
                " (errors over seeds)" if seeds else ""
            )
            yield doubt(NUMBER, sentence.line, whole, fact, "Compute it again and say from which errors")
    match = _PROSE_DELTA.search(whole)
    if match is not None:
        said = interval(match.group("d"))
        choices = [one.size for a, b in _compared(table) for one in _differences(a.value, b.value, "%")]
        if choices and not any(said.meets(one) for one in choices):
            nearest = min(choices, key=lambda one: abs(middle(one) - middle(said)))
            fact = f"no two figures of the table differ by that; the nearest difference is {middle(nearest):.2f}"
            yield doubt(NUMBER, sentence.line, whole, fact, "Correct the difference")
    match = _RECOVERED.search(whole)
    if match is not None and not _RATIO.search(whole):
        said = interval(match.group("a") or match.group("b") or match.group("c"))
        ratios = [r * 100 for a, b in _compared(table) for r in (a.value.over(b.value), b.value.over(a.value)) if r]
        if ratios and not any(said.meets(ratio) for ratio in ratios):
            yield doubt(NUMBER, sentence.line, whole, "no two figures of the table give it", "Correct the recovery")


def _seeds(document: Document, table: Table) -> set[int]:
    """Numbers of seeds that the card speaks of under the table's heading: errors may be of one run or of their mean."""
    found = set()
    for sentence in document.sentences:
        if sentence.heading == table.grid.heading:
            for match in _SEEDS.finditer(sentence.whole):
                found.add(int(match.group(1) or match.group(2)))
    return {n for n in found if n > 1}


def _ratios(sentence: Sentence) -> Iterator[Doubt]:
    for match in itertools.islice(_RATIO.finditer(sentence.whole), 20):
        ratio = interval(match.group("a")).over(interval(match.group("b")))
        if ratio is not None and not interval(match.group("c")).meets(ratio * 100):
            fact = f"the quotient is {middle(ratio) * 100:.2f}%"
            yield doubt(NUMBER, sentence.line, sentence.whole, fact, "Correct the quotient")
