"""Which modules are quantized and which are kept, what one of them is stored as, and what the exclude list says.

The table is read from shard headers, so it lists every kept class whether or not a list names it. A list that names
hundreds of modules one by one is told by its patterns: entries that differ only in numbers are one row, with how many
there are and how many modules of the checkpoint they meet; the entries themselves are folded away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from publisher import jsonio
from publisher.card import headers
from publisher.card.value import Table, Value, count, shape
from publisher.checkpoint.open import Checkpoint
from publisher.errors import PublisherError
from publisher.matching.producers import DIALECTS

MAX_ROWS = 80  # of a table; what is beyond is counted
MAX_ENTRIES = 400  # of the folded list
SHORT = 12  # entries that are printed as they are
EIGHT = frozenset({"F8_E4M3", "F8_E5M2"})
HEADERS = "shard headers"
_NUMBER = re.compile(r"\d+")
_PLAIN = re.compile(r"[A-Za-z0-9_.\-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclude:
    """The exclude list.

    Args:
        origin: where it stands.
        total: entries in all.
        entries: as written, the first of them.
        patterns: entries by pattern with counts; None for a short list.
        matched: what the list meets, in words; empty where it cannot be evaluated.
    """

    origin: str
    total: int
    entries: tuple[str, ...]
    patterns: Table | None
    matched: str

    @property
    def more(self) -> int:
        """Entries that are not printed."""
        return self.total - len(self.entries)


def coverage_table(rows: tuple[headers.CoverageRow, ...], checkpoint: Checkpoint) -> Table:
    """One row per class of modules, quantized ones first, and one for what holds no matrix."""
    cells = [_cells(row) for row in rows[:MAX_ROWS]]
    rest = headers.other_tensors(checkpoint)
    if rest:
        kinds = ", ".join(sorted({ref.dtype for ref in rest}))
        told = ("kept", "all other tensors (norms and the like)", count(len(rest)), "–", kinds, "differs")
        cells.append(tuple(Value(text, HEADERS) for text in (*told, "no weight matrix")))
    head = ("Stored", "Modules", "Count", "Layers", "Dtype", "Shape (out × in)", "Exclude list")
    return Table(head, tuple(cells), max(len(rows) - MAX_ROWS, 0))


def exclude_list(checkpoint: Checkpoint) -> Exclude | None:
    """The list of the declaration engines obey; None where there is none."""
    quant = checkpoint.quant
    if quant is None or not quant.ignore:
        return None
    long = len(quant.ignore) > SHORT
    return Exclude(
        origin=quant.origin,
        total=len(quant.ignore),
        entries=tuple(quant.ignore[:MAX_ENTRIES]),
        patterns=_by_pattern(checkpoint, quant.ignore, quant.origin) if long else None,
        matched=_matched(checkpoint),
    )


def keys_table(keys: tuple[headers.StoredKey, ...]) -> Table:
    """The tensors of one quantized layer and what each holds."""
    meanings: Mapping[str, str] = jsonio.data("card/keys.json")["meanings"]
    rows = tuple(
        (
            Value(key.suffix, HEADERS, code=True),
            Value(key.dtype, HEADERS, code=True),
            Value(shape(key.shape), HEADERS),
            Value(meanings.get(key.suffix, "as in the source"), "card/keys.json"),
        )
        for key in keys
    )
    return Table(("Tensor", "Dtype", "Shape", "What it holds"), rows)


def _cells(row: headers.CoverageRow) -> tuple[Value, ...]:
    return (
        Value("quantized" if row.quantized else "FP8" if row.dtype in EIGHT else "kept", HEADERS),
        Value(row.pattern, HEADERS, code=True),
        Value(count(row.modules), HEADERS),
        Value(row.layers or "–", HEADERS),
        Value(f"FP4 in {row.dtype}" if row.quantized and row.dtype == "U8" else row.dtype, HEADERS),
        Value(shape(row.shape) if row.shape else "differs", HEADERS),
        Value(_listed(row), "exclude list and shard headers"),
    )


def _listed(row: headers.CoverageRow) -> str:
    if row.quantized or row.dtype in EIGHT:
        return "–"
    if row.listed is None:
        return "cannot be read"
    if row.listed == row.modules:
        return "named"
    if not row.listed:
        return "not a linear layer" if row.role in headers.NOT_LINEAR else "not named"
    return f"{count(row.listed)} of {count(row.modules)} named"


def _matched(checkpoint: Checkpoint) -> str:
    """How many modules with a matrix the whole list meets, by its producer's reading."""
    quant = checkpoint.quant
    reading = DIALECTS.get(quant.dialect) if quant is not None else None
    if quant is None or reading is None:
        return ""
    names = [m.name for m in checkpoint.modules.values() if m.weight is not None and len(m.weight.shape) >= 2]
    try:
        found = reading(quant.ignore, names)
    except PublisherError:
        return ""
    return f"{count(len(found))} of the checkpoint's {count(len(names))} modules that have a weight matrix"


def _by_pattern(checkpoint: Checkpoint, entries: tuple[str, ...], origin: str) -> Table:
    """Entries that differ only in numbers, with how many there are and how many of them name a module."""
    grouped: dict[str, list[str]] = {}
    for entry in entries:
        numbered = bool(_PLAIN.fullmatch(entry.rstrip("*")))
        grouped.setdefault(_NUMBER.sub("N", entry) if numbered else entry, []).append(entry)
    known = _known(checkpoint)
    rows = []
    for pattern, members in list(grouped.items())[:MAX_ROWS]:
        exact = [entry for entry in members if not entry.endswith("*") and _PLAIN.fullmatch(entry)]
        named = sum(entry in known for entry in exact)
        text = f"{count(named)} of {count(len(exact))}" if exact else "a pattern"
        rows.append((Value(pattern, origin, code=True), Value(count(len(members)), origin), Value(text, HEADERS)))
    head = ("Entries (N is a number)", "Entries", "Name a module or its parent")
    return Table(head, tuple(rows), max(len(grouped) - MAX_ROWS, 0))


def _known(checkpoint: Checkpoint) -> frozenset[str]:
    """Modules and everything above them."""
    found: set[str] = set()
    for name in checkpoint.modules:
        while name and name not in found:
            found.add(name)
            name = name.rpartition(".")[0]
    return frozenset(found)
