"""One number per module: global scales, activation scales, scales of the key-value cache, and smoothing vectors.

Scalars are kept, a few bytes each, until all of a kind are there; of a smoothing vector only digest and extremes are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import fused_group_of, fused_groups
from publisher.checkpoint.open import Checkpoint
from publisher.formats import floats
from publisher.subjects.modules import SCALARS
from publisher.subjects.reading import Codes, Piece

SMOOTHING = "pre_quant_scale"
FLOATS = ("F32", "BF16", "F16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalars:
    """All scalars of one kind.

    Args:
        checkpoint: where they belong.
        suffix: such as `weight_scale_2`, `input_scale` or `k_scale`.
        refs: their tensors, in file order.
        values: float32, shape (n,).
    """

    checkpoint: Checkpoint
    suffix: str
    refs: tuple[TensorRef, ...]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedGroup:
    """Modules that become one layer in the engines, with one kind of scalar they must share.

    Args:
        checkpoint: where they belong.
        name: the fused layer.
        kind: its last name part: qkv_proj, gate_up_proj, fused_qkv_a_proj or w13.
        role: the members' role.
        suffix: the scalar's name: weight_scale_2, weight_global_scale, input_scale, ...
        refs: the members' scalars; members without one are not here.
        values: the same as numbers.
        bits: the same as bit patterns.
    """

    checkpoint: Checkpoint
    name: str
    kind: str
    role: str
    suffix: str
    refs: tuple[TensorRef, ...]
    values: tuple[float, ...]
    bits: tuple[int, ...]

    @property
    def of_weights(self) -> bool:
        """Whether the scalar belongs to the weights; otherwise to the activations."""
        return self.suffix.startswith("weight_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """What is kept of one module's `pre_quant_scale`, a vector its activations are multiplied by.

    Args:
        ref: the tensor.
        digest: equal exactly where the bytes are.
        low: the smallest element that is not NaN.
        high: the largest.
        bad: how many elements are not finite and positive.
        first: flat index of the first of them.
    """

    ref: TensorRef
    digest: bytes
    low: float
    high: float
    bad: int
    first: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothings:
    """Every module's smoothing vector, by module name, in file order."""

    checkpoint: Checkpoint
    vectors: Mapping[str, Smoothing]


def scalar_of(dtype: str, codes: Codes) -> np.float32:
    """The one number a tensor of one element holds."""
    return np.float32(floats.decode(codes.data, dtype, (1,))[0])


class Vector:
    """Takes a smoothing vector piece by piece."""

    def __init__(self, ref: TensorRef) -> None:
        self.ref, self._hash = ref, hashlib.blake2b(digest_size=16)
        self._low, self._high, self._bad = float("inf"), float("-inf"), 0
        self._first: int | None = None

    def add(self, piece: Piece) -> None:
        """The next bytes."""
        self._hash.update(piece.codes.data)
        width = 4 if self.ref.dtype == "F32" else 2
        values = floats.decode(piece.codes.data, self.ref.dtype, (len(piece.codes) // width,))
        with np.errstate(invalid="ignore"):
            bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        self._bad += len(bad)
        if self._first is None and len(bad):
            self._first = piece.offset // width + int(bad[0])
        known = values[~np.isnan(values)]
        if len(known):
            self._low = min(self._low, float(known.min()))
            self._high = max(self._high, float(known.max()))

    def done(self) -> Smoothing:
        """What was found."""
        digest = self._hash.digest()
        return Smoothing(ref=self.ref, digest=digest, low=self._low, high=self._high, bad=self._bad, first=self._first)


def fused(every: Mapping[str, Scalars]) -> Iterator[FusedGroup]:
    """The fused groups of every kind of weight and activation scalar, by suffix and name."""
    for suffix in SCALARS:
        if suffix in every:
            yield from _groups(every[suffix])


def _groups(scalars: Scalars) -> Iterator[FusedGroup]:
    checkpoint, suffix = scalars.checkpoint, scalars.suffix
    places = {ref.name.rpartition(".")[0]: at for at, ref in enumerate(scalars.refs)}
    for name, members in fused_groups(sorted(places)).items():
        own = tuple(scalars.refs[places[member]] for member in members)
        numbers = scalars.values[[places[member] for member in members]]
        yield FusedGroup(
            checkpoint=checkpoint,
            name=name,
            kind=(fused_group_of(members[0]) or name).rpartition(".")[2],
            role=checkpoint.modules[members[0]].role,
            suffix=suffix,
            refs=own,
            values=tuple(float(number) for number in numbers),
            bits=tuple(int(bit) for bit in numbers.view(np.uint32)),
        )
