"""The classes of modules of a checkpoint, stack of layers by stack of layers, in the order a reader looks for them.

A decoder and a vision tower are a stack each; what lies outside layers comes last. Every map of a checkpoint (the
report's page, the model card's images) is drawn from these, so that they show the same rows.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from publisher.checkpoint.census import Census, ClassCensus

COLUMNS = 128  # of one map; more layers share them
ROWS = 64  # of all maps together
_STACK = re.compile(r"^(.*?(?:^|\.)(?:layers|blocks|h)\.\*)(?:\.(.*))?$")
_ROLES = ("attention", "mlp", "router", "expert", "shared_expert", "mtp", "norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Classes that lie in the same layers.

    Args:
        name: what their names begin with; empty for what lies outside layers.
        layers: how many layers there are, by the highest number.
        classes: by the rest of their names.
    """

    name: str
    layers: int
    classes: Mapping[str, ClassCensus]

    @property
    def columns(self) -> int:
        """Columns of the map."""
        return min(max(self.layers, 1), COLUMNS)

    def column(self, layer: int) -> int:
        """The column a layer is drawn in."""
        return layer * self.columns // max(self.layers, 1)

    def said(self, begin: int, end: int) -> str:
        """The layers of columns `begin` up to but not including `end`, in words."""
        first, last = (math.ceil(column * self.layers / self.columns) for column in (begin, end))
        return f"layer {first}" if last - first <= 1 else f"layers {first}–{last - 1}"


def stacks(census: Census) -> list[Stack]:
    """The stacks of layers with a matrix in them, the one with the most bytes first, and what lies outside last."""
    found: dict[str, dict[str, ClassCensus]] = {}
    for item in itertools.islice(matrices(census), ROWS):
        match = _STACK.match(item.pattern)
        name, rest = (match.group(1), match.group(2) or match.group(1)) if match else ("", item.pattern)
        found.setdefault(name, {})[rest] = item
    made = [
        Stack(name=name, layers=_layers(classes.values()), classes=dict(sorted(classes.items(), key=_reading_order)))
        for name, classes in found.items()
    ]
    return sorted(made, key=lambda stack: (not stack.name, -sum(c.tally.bytes for c in stack.classes.values())))


def matrices(census: Census) -> list[ClassCensus]:
    """Classes that hold a matrix, the ones with the most bytes first."""
    return sorted((item for item in census.classes if item.matrix), key=lambda item: -item.tally.bytes)


def _layers(classes: Iterable[ClassCensus]) -> int:
    return 1 + max((layer for item in classes for layer in item.cells if layer is not None), default=-1)


def _reading_order(item: tuple[str, ClassCensus]) -> tuple[int, str]:
    role = item[1].role
    return _ROLES.index(role) if role in _ROLES else len(_ROLES), item[0]
