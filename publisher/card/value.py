"""What a card prints: a text or number ready to print, with the file it came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Value:
    """One fact.

    Args:
        text: ready to print, not yet escaped; where it holds names from a checkpoint they are a stranger's text.
        origin: the file and key it was computed from, such as `config.json: num_hidden_layers`.
        code: whether it is printed as code.
        link: where it leads, a web address or a file of the repository; nowhere when empty.
    """

    text: str
    origin: str
    code: bool = False
    link: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled fact of a table."""

    label: str
    value: Value


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a heading; `more` counts the rows that are not printed."""

    head: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    more: int = 0


def count(number: int) -> str:
    """A whole number with separators: 1,234,567."""
    return f"{number:,}"


def large(number: int) -> str:
    """A number as people say it, three significant digits: 134.5 M, 1.04 T."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return str(number)


def size(number: int) -> str:
    """Bytes in decimal and binary units: 590.6 GB (550.0 GiB)."""
    for decimal, binary, power in (("TB", "TiB", 4), ("GB", "GiB", 3), ("MB", "MiB", 2), ("kB", "KiB", 1)):
        if number >= 1000**power:
            return f"{number / 1000**power:.1f} {decimal} ({number / 1024**power:.1f} {binary})"
    return f"{number} bytes"


def shape(sizes: tuple[int, ...]) -> str:
    """A tensor's shape: 576 × 1,536; scalar."""
    return " × ".join(count(number) for number in sizes) or "scalar"
