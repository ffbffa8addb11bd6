"""Tensors that were not quantized, beside their source: byte for byte, or value for value where the dtype changed.

All of every such tensor is read, in pieces. A source that is itself quantized (INT4, FP8) is decoded where the result
keeps the layer in 16 bits. Pairs with different shapes are handed out uncompared; tensors the source does not have are
nobody's business here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import PLAIN, StoredWeight, UnreadableWeight
from publisher.checkpoint.weights import locate
from publisher.errors import CheckpointError
from publisher.formats import floats
from publisher.formats.blocks import Float32Array
from publisher.subjects.evidence import PIECE, Meter
from publisher.subjects.modules import SCALE_SUFFIXES, is_packed
from publisher.subjects.reading import readable

OF_PACKED = frozenset({"weight", "weight_packed", "weight_shape", "weight_zero_point", *SCALE_SUFFIXES})
ROWS = 1 << 20  # weights decoded at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Untouched:
    """A tensor beside its source, compared.

    Args:
        ref: the tensor.
        original: the source's; of a decoded layer, its payload.
        elements: how many were compared; 0 where the shapes differ.
        different: how many are not the source's value, rounded to the dtype here.
        first: position of the first of them.
        zeroed: whether all of it is zero while the source is not.
        flaw: why it could not be compared.
        misshapen: whether that is because the shapes differ.
    """

    ref: TensorRef
    original: TensorRef
    elements: int = 0
    different: int = 0
    first: tuple[int, ...] | None = None
    zeroed: bool = False
    flaw: str | None = None
    misshapen: bool = False


def read_untouched(checkpoint: Checkpoint, source: Checkpoint, meter: Meter) -> Iterator[Untouched]:
    """Every unquantized tensor that the source has too, in file order.

    Raises:
        CheckpointError: a shard cannot be read, or is shorter than its header says.
    """
    refs = [ref for name, ref in checkpoint.tensors.items() if _is_plain(checkpoint, name)]
    refs.sort(key=lambda ref: (ref.shard, ref.begin))
    meter.total += sum(ref.size for ref in refs)
    for ref in refs:
        found = _compare(checkpoint, source, ref, meter)
        if found is not None and found.flaw is not None and not found.misshapen:
            meter.leave(Untouched, found.flaw)
        elif found is not None:
            yield found
        meter.step(ref.size)


def _is_plain(checkpoint: Checkpoint, name: str) -> bool:
    module, _, suffix = name.rpartition(".")
    return suffix not in OF_PACKED or not is_packed(checkpoint.modules[module])


def _compare(checkpoint: Checkpoint, source: Checkpoint, ref: TensorRef, meter: Meter) -> Untouched | None:
    other = source.tensors.get(ref.name)
    if other is not None and other.dtype != ref.dtype and not {ref.dtype, other.dtype} <= set(PLAIN):
        other = None
    if other is None:
        return _decoded(checkpoint, source, ref, meter)
    if other.shape != ref.shape:
        unlike = f"{list(ref.shape)[:6]} is not {list(other.shape)[:6]}"
        return Untouched(ref=ref, original=other, flaw=unlike, misshapen=True)
    if ref.dtype not in DTYPE_BITS or not (readable(checkpoint, ref) and readable(source, other)):
        return Untouched(ref=ref, original=other, flaw="its bytes are not those the header describes")
    tally = _Tally(ref)
    for mine, theirs in _values(checkpoint, source, (ref, other), meter):
        tally.add(mine, theirs)
    return tally.done(other)


def _decoded(checkpoint: Checkpoint, source: Checkpoint, ref: TensorRef, meter: Meter) -> Untouched | None:
    """A layer kept in floating point whose source is stored another way: INT4, FP8, or fused with others."""
    name, _, suffix = ref.name.rpartition(".")
    if suffix != "weight" or ref.dtype not in PLAIN or len(ref.shape) != 2 or not readable(checkpoint, ref):
        return None
    rows, columns = ref.shape
    try:
        original = locate(source, name, (rows, columns))
    except UnreadableWeight as error:
        table = source.modules.get(name)
        other = table.weight if table is not None else None
        return Untouched(ref=ref, original=other, flaw=str(error)) if other is not None else None
    if (original.rows, original.columns) != ref.shape:
        unlike = f"{[rows, columns]} is not {[original.rows, original.columns]}"
        return Untouched(ref=ref, original=original.ref, flaw=unlike, misshapen=True)
    tally = _Tally(ref)
    for mine, theirs in _rows(checkpoint, original, ref, meter):
        tally.add(mine, theirs)
    return tally.done(original.ref)


class _Tally:
    """Counts differences piece by piece."""

    def __init__(self, ref: TensorRef) -> None:
        self.ref = ref
        self.at = self.different = 0
        self.first: int | None = None
        self.mine = self.theirs = False  # whether anything but zero was seen

    def add(self, mine: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
        """Take the next elements of both, flat; as bits."""
        if not np.array_equal(mine, theirs):
            unlike = np.flatnonzero(mine != theirs)
            self.different += len(unlike)
            self.first = self.at + int(unlike[0]) if self.first is None else self.first
        self.mine = self.mine or bool(mine.any())
        self.theirs = self.theirs or bool(theirs.any())
        self.at += len(mine)

    def done(self, original: TensorRef) -> Untouched:
        """The outcome."""
        first = None
        if self.first is not None:
            first = tuple(int(n) for n in np.unravel_index(self.first, self.ref.shape)) if self.ref.shape else ()
        return Untouched(
            ref=self.ref,
            original=original,
            elements=self.at,
            different=self.different,
            first=first,
            zeroed=self.theirs and not self.mine,
        )


def _values(
    checkpoint: Checkpoint, source: Checkpoint, pair: tuple[TensorRef, TensorRef], meter: Meter
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Pieces of both, as integers where the dtypes agree and as bits of the dtype here where they do not."""
    ref, other = pair
    width, wide = DTYPE_BITS[ref.dtype] // 8 or 1, DTYPE_BITS[other.dtype] // 8 or 1
    kind = np.dtype(f"<u{width}")
    total = ref.size // width  # elements; bytes where several share one
    step = PIECE // max(width, wide)
    for at in range(0, total, step):
        count = min(step, total - at)
        mine = _read(checkpoint, ref, at * width, count * width, meter)
        theirs = _read(source, other, at * wide, count * wide, meter)
        if ref.dtype == other.dtype:
            yield np.frombuffer(mine, kind), np.frombuffer(theirs, kind)
        else:
            values = floats.decode(theirs, other.dtype, (count,))
            yield _quiet(floats.decode(mine, ref.dtype, (count,))), _quiet(_rounded(values, ref.dtype))


def _rows(
    checkpoint: Checkpoint, original: StoredWeight, ref: TensorRef, meter: Meter
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    rows, columns = ref.shape
    step = rows if original.turned else max(1, ROWS // columns)
    width = DTYPE_BITS[ref.dtype] // 8
    for begin in range(0, rows, step):
        end = min(begin + step, rows)
        raw = _read(checkpoint, ref, begin * columns * width, (end - begin) * columns * width, meter)
        mine = floats.decode(raw, ref.dtype, ((end - begin) * columns,))
        read = lambda path, first, last: meter.read(original.checkpoint.files, path, first, last)  # noqa: E731
        theirs = original.decode(begin, end, read=read).reshape(-1)
        yield _quiet(mine), _quiet(_rounded(theirs, ref.dtype))


def _rounded(values: Float32Array, dtype: str) -> Float32Array:
    """The values a tensor of this dtype can hold of these."""
    if dtype == "BF16":
        return floats.round_to_bf16(values)
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float16).astype(np.float32) if dtype == "F16" else values


def _quiet(values: Float32Array) -> npt.NDArray[Any]:
    """Bits, with every NaN the same and one zero."""
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.uint32)
    return np.where(np.isnan(values), np.uint32(0x7FC00000), bits)


def _read(checkpoint: Checkpoint, ref: TensorRef, begin: int, size: int, meter: Meter) -> bytes:
    data = meter.read(checkpoint.files, ref.shard, ref.begin + begin, ref.begin + begin + size)
    if len(data) != size:
        raise CheckpointError(
            f"{ref.shard} ends inside the tensor {ref.name}.", hint="Copy or download the shard again."
        )
    return data
