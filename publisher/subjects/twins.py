"""Whose weight is it really? Another expert, layer or projection of the source that fits where the own one does not.

A handful of rows is enough: two weights of a trained network have a cosine near zero unless they are the same. Looked
at are the experts of the same layer, the same place in other layers, and the projections beside it; after a few
searches none is made any more, because they all have one cause.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

import numpy as np

from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import Reader, UnreadableWeight
from publisher.checkpoint.weights import locate
from publisher.formats.blocks import Float32Array

MAX_SEARCHES = 16
MAX_ROWS = 4
RELATED = 0.9  # cosine from which two weights are the same one
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class Twins:
    """The candidates of every module.

    Args:
        names: the modules compared.
        source: where candidates are looked for.
        read: reads the source's bytes.
    """

    def __init__(self, names: Iterable[str], source: Checkpoint, read: Reader) -> None:
        self._source, self._read = source, read
        self._names = list(names)
        self._left = MAX_SEARCHES
        self._near: dict[str, list[str]] | None = None

    def find(self, name: str, values: Float32Array, run: tuple[int, int], rows: int) -> str | None:
        """The other module whose source these rows fit, or None.

        Args:
            name: the module.
            values: what it stores of the rows, float32 (n, in).
            run: which rows.
            rows: how many the module has.
        """
        if self._left <= 0:
            return None
        self._left -= 1
        begin, end = run[0], min(run[1], run[0] + MAX_ROWS)
        kept = values[: end - begin]
        for other in self._candidates(name):
            try:
                weight = locate(self._source, other, (rows, values.shape[1]))
                if (weight.rows, weight.columns) != (rows, values.shape[1]):
                    continue
            except UnreadableWeight:
                continue
            if cosine(weight.decode(begin, end, read=self._read), kept) >= RELATED:
                return other
        return None

    def _candidates(self, name: str) -> Iterator[str]:
        if self._near is None:
            self._near = {}
            for other in self._names:
                for key in _keys(other):
                    self._near.setdefault(key, []).append(other)
        seen = {name}
        for key in _keys(name):
            for other in self._near.get(key, ()):
                if other not in seen:
                    seen.add(other)
                    yield other


def _keys(name: str) -> Iterator[str]:
    """What a module shares with its candidates: all of its name but one number, or all but the last part."""
    yield name.rpartition(".")[0] + ".*"
    for match in reversed(list(_NUMBER.finditer(name))):
        yield f"{name[: match.start()]}#{name[match.end() :]}"


def cosine(one: Float32Array, other: Float32Array) -> float:
    """Of two arrays of one size; 0 where one of them is zero or not finite."""
    with np.errstate(all="ignore"):
        a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
        norm = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
        return float(a @ b) / norm if norm > 0 and math.isfinite(norm) else 0.0
