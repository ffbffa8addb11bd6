"""Mean squares of every input of every layer, the long part of the activation statistics: kept or read one by one.

A model of 70,000 matrices has gigabytes of them, so nothing here holds more than it is given: what is stored is read
when a module is asked for. Files hold F32; the state of a calibration that goes on holds sums, in F64.
Refused: a row that cannot be read, and numbers that are negative or not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.header import TensorRef
from publisher.errors import CheckpointError

MEAN_SQUARE = "input_mean_square"
MAX_INPUTS = 1 << 24
_F32: np.dtype[Any] = np.dtype("<f4")
DTYPES: dict[np.dtype[Any], str] = {_F32: "F32", np.dtype("<f8"): "F64"}
_STORED = {name: dtype for dtype, name in DTYPES.items()}
_AGAIN = "Make it again with `publisher calibrate --second-moments`."

Row = npt.NDArray[Any]


class Moments(Protocol):
    """Rows of numbers by module."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What all of them are: F32, or F64 for sums."""
        ...

    def length(self, module: str) -> int | None:
        """How many inputs a module has; None where it has no row."""
        ...

    def get(self, module: str) -> Row | None:
        """A module's row."""
        ...


@dataclass(frozen=True, slots=True)
class InMemory:
    """Rows that are there."""

    rows: Mapping[str, Row] = field(default_factory=dict)
    dtype: np.dtype[Any] = _F32

    def length(self, module: str) -> int | None:
        """How many inputs a module has."""
        row = self.rows.get(module)
        return None if row is None else len(row)

    def get(self, module: str) -> Row | None:
        """A module's row."""
        return self.rows.get(module)


def fits(ref: TensorRef) -> bool:
    """Whether a tensor can be such a row."""
    sized = ref.dtype in _STORED and len(ref.shape) == 1 and 0 < ref.elements <= MAX_INPUTS
    return sized and ref.size == ref.elements * _STORED[ref.dtype].itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Rows of a file of statistics.

    Args:
        path: the file.
        refs: where each module's row lies; tensors that `fits`.
    """

    path: Path
    refs: Mapping[str, TensorRef]

    @property
    def dtype(self) -> np.dtype[Any]:
        """F64 for the state of a calibration, else F32."""
        return next((_STORED[ref.dtype] for ref in self.refs.values()), _F32)

    def length(self, module: str) -> int | None:
        """How many inputs a module has."""
        ref = self.refs.get(module)
        return None if ref is None else ref.elements

    def get(self, module: str) -> Row | None:
        """A module's row, read now.

        Raises:
            CheckpointError: it cannot be read, or a number in it is negative or not finite.
        """
        ref = self.refs.get(module)
        if ref is None:
            return None
        try:
            row = np.fromfile(self.path, _STORED[ref.dtype], ref.elements, offset=ref.begin)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error.strerror or error}.", hint=_AGAIN) from None
        if len(row) != ref.elements or not (np.isfinite(row) & (row >= 0)).all():
            raise CheckpointError(f"{self.path}: {ref.name} holds what no mean square is.", hint=_AGAIN)
        return row
