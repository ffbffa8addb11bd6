"""Whether any entry of a long list is a part of a name, in a time that does not grow with the list.

A list may hold an entry for every expert of every layer; comparing each with each name would be quadratic. The entries
are kept by length, and every part of the name of such a length is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable

FEW = 64  # entries that are compared one after another


class Substrings:
    """Entries that leave out every name they are a plain substring of.

    Args:
        entries: non-empty strings.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = tuple(dict.fromkeys(entries))
        self._by_length: dict[int, set[str]] = {}
        for entry in self.entries:
            self._by_length.setdefault(len(entry), set()).add(entry)
        self._lengths = sorted(self._by_length)

    def __call__(self, name: str) -> bool:
        """Whether an entry is a part of the name."""
        if len(self.entries) <= FEW:
            return any(entry in name for entry in self.entries)
        size = len(name)
        return any(
            name[start : start + length] in self._by_length[length]
            for length in self._lengths
            if length <= size
            for start in range(size - length + 1)
        )


class DottedRuns:
    """Entries that leave out every name they are one or several whole dotted parts of.

    Args:
        entries: non-empty strings.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = frozenset(entries)

    def __call__(self, name: str) -> bool:
        """Whether an entry is a run of the name's parts."""
        parts = name.split(".")
        count = len(parts)
        if count > FEW:
            padded = f".{name}."
            return any(f".{entry}." in padded for entry in self.entries)
        return any(".".join(parts[i:j]) in self.entries for i in range(count) for j in range(i + 1, count + 1))
