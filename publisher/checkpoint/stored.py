"""A weight matrix where it is stored, and its rows as float32: plain, INT4, FP8, MXFP4, or one of a fused tensor.

Nothing is read but the rows asked for; of a transposed matrix the whole matrix. `weights.locate` finds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.open import Checkpoint
from publisher.errors import CheckpointError
from publisher.formats import e8m0, floats, fp8, int4, mxfp4
from publisher.formats.blocks import Float32Array, UInt8Array
from publisher.formats.int4 import Intermediate, Order

Reader: TypeAlias = Callable[[str, int, int], bytes]
PLAIN = ("BF16", "F16", "F32")
MAX_COLUMNS = 1 << 22  # weights of a row that is held in memory at once


class UnreadableWeight(CheckpointError):
    """A weight that is not there, or stored in a way not known here; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where a matrix lies in a fused tensor.

    Args:
        expert: which matrix of the stack.
        first: its first row (or column, where transposed) in that matrix.
        step: from one row to the next; 2 where gate and up alternate.
        transposed: stored (in, out).
    """

    expert: int
    first: int
    step: int
    transposed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeight:
    """A weight matrix (rows, columns) = (out, in) as stored.

    Args:
        checkpoint: where.
        name: the module.
        form: BF16, F16, F32, int4, fp8 or mxfp4.
        rows: output features.
        columns: input features.
        ref: the tensor with the values.
        scale: the tensor with their scales (int4, fp8, mxfp4).
        block: rows and columns that share a scale.
        part: where it lies in a fused tensor.
    """

    checkpoint: Checkpoint
    name: str
    form: str
    rows: int
    columns: int
    ref: TensorRef
    scale: TensorRef | None = None
    block: tuple[int, int] = (1, 1)
    part: Part | None = None

    @property
    def turned(self) -> bool:
        """Whether it is stored (in, out): any rows of it take reading all."""
        return self.part is not None and self.part.transposed

    @property
    def size(self) -> int:
        """Bytes that reading all of it takes, about."""
        if self.part is None:
            return self.ref.size + (self.scale.size if self.scale else 0)
        wide = math.prod(self.ref.shape[1:]) * (2 if self.form == "mxfp4" else 1)  # weights of one expert
        stored = sum(ref.size for ref in (self.ref, self.scale) if ref is not None)
        return stored * self.rows * self.columns // max(wide * self.ref.shape[0], 1)

    def decode(
        self,
        begin: int,
        end: int,
        *,
        read: Reader | None = None,
        intermediate: Intermediate = "BF16",
        order: Order = "low",
    ) -> Float32Array:
        """Rows `begin` to `end` as float32 (end - begin, columns).

        Args:
            begin: first row.
            end: row after the last; both inside the matrix.
            read: reads bytes of a shard; the checkpoint's own reader by default.
            intermediate: what int4 and fp8 products are rounded to.
            order: nibble order of int4; anything but `low` is for looking for mistakes.

        Raises:
            CheckpointError: the shard is shorter than its header says.
        """
        if not 0 <= begin <= end <= self.rows:
            raise UnreadableWeight(f"{self.name} has {self.rows} rows; {begin} to {end} are not among them.")
        reader = read or self.checkpoint.files.read
        if self.form == "int4":
            return self._int4(begin, end, reader, intermediate, order)
        if self.form == "fp8":
            return self._fp8(begin, end, reader, intermediate)
        if self.form == "mxfp4":
            return mxfp4.dequantize(*self.codes(begin, end, read=reader))
        return self._plain(begin, end, reader)

    def _plain(self, begin: int, end: int, read: Reader) -> Float32Array:
        part = self.part
        if part is None:
            return floats.decode(
                _bytes(read, self.ref, self.columns, begin, end), self.form, (end - begin, self.columns)
            )
        wide, deep = self.ref.shape[1:]
        if part.transposed:
            raw = _bytes(read, self.ref, deep, part.expert * wide, (part.expert + 1) * wide)
            matrix = floats.decode(raw, self.form, (wide, deep))
            return np.ascontiguousarray(matrix[:, part.first :: part.step][:, begin:end].T)
        first = part.expert * wide + part.first + begin * part.step
        last = first + max(end - begin - 1, 0) * part.step + (end > begin)
        rows = floats.decode(_bytes(read, self.ref, deep, first, last), self.form, (last - first, deep))
        return rows[:: part.step]

    def codes(self, begin: int, end: int, *, read: Reader | None = None) -> tuple[UInt8Array, UInt8Array]:
        """Rows of an MXFP4 weight as stored: payload uint8 (n, columns / 2) and scale codes uint8 (n, columns / 32).

        Raises:
            CheckpointError: the shard is shorter than its header says.
        """
        return self._block_rows(self.ref, self.columns // 2, begin, end, read), self.scale_codes(begin, end, read=read)

    def scale_codes(self, begin: int, end: int, *, read: Reader | None = None) -> UInt8Array:
        """The scale codes alone, uint8 (n, columns / 32)."""
        if self.scale is None:
            raise UnreadableWeight(f"{self.name} has no scales.")
        return self._block_rows(self.scale, self.columns // self.block[1], begin, end, read)

    def _block_rows(self, ref: TensorRef, width: int, begin: int, end: int, read: Reader | None) -> UInt8Array:
        """Rows of one expert's blocks or scales, each of `width` bytes."""
        part, wide = self.part, self.ref.shape[1]
        if self.form != "mxfp4" or part is None:
            raise UnreadableWeight(f"{self.name} is {self.form}, not MXFP4.")
        first = part.expert * wide + part.first + begin * part.step
        last = first + max(end - begin - 1, 0) * part.step + (end > begin)
        raw = _bytes(read or self.checkpoint.files.read, ref, width, first, last)
        return np.frombuffer(raw, np.uint8).reshape(-1, width)[:: part.step]

    def numbers(self, begin: int, end: int, *, read: Reader | None = None) -> tuple[npt.NDArray[Any], Float32Array]:
        """Rows of an int4 or fp8 weight as stored: words (rows, ceil(columns / 8)) or codes (rows, columns); scales.

        Args:
            begin: first row.
            end: row after the last; both inside the matrix.
            read: reads bytes of a shard; the checkpoint's own reader by default.

        Returns:
            The stored numbers, and the scales of the block rows they touch as float32.
        """
        reader, tall = read or self.checkpoint.files.read, self.block[0] if self.form == "fp8" else 1
        scales = self._scales(reader, begin // tall, -(-end // tall))
        width, kind = (self.columns, np.dtype(np.uint8)) if self.form == "fp8" else (self.ref.shape[1], np.dtype("<i4"))
        return np.frombuffer(_bytes(reader, self.ref, width, begin, end), kind).reshape(-1, width), scales

    def _int4(self, begin: int, end: int, read: Reader, intermediate: Intermediate, order: Order) -> Float32Array:
        words, scales = self.numbers(begin, end, read=read)
        return int4.dequantize(words, scales, self.columns, group=self.block[1], intermediate=intermediate, order=order)

    def _fp8(self, begin: int, end: int, read: Reader, intermediate: Intermediate) -> Float32Array:
        codes, scales = self.numbers(begin, end, read=read)
        return fp8.dequantize(codes, scales, block=self.block, first_row=begin, intermediate=intermediate)

    def _scales(self, read: Reader, begin: int, end: int) -> Float32Array:
        """Rows of the scales; a scalar or a vector counts as a matrix."""
        if self.scale is None:
            raise UnreadableWeight(f"{self.name} has no scales.")
        width = -(-self.columns // self.block[1])
        raw = _bytes(read, self.scale, width, begin, end)
        shape = (end - begin, width)
        if self.scale.dtype in ("U8", "F8_E8M0"):
            return e8m0.decode(np.frombuffer(raw, np.uint8).reshape(shape))
        return floats.decode(raw, self.scale.dtype, shape)


def _bytes(read: Reader, ref: TensorRef, width: int, begin: int, end: int) -> bytes:
    """Rows of a row-major tensor, each of `width` elements."""
    row = width * DTYPE_BITS[ref.dtype] // 8
    raw = read(ref.shard, ref.begin + begin * row, ref.begin + end * row)
    if len(raw) != (end - begin) * row:
        raise CheckpointError(
            f"{ref.shard} ends inside the tensor {ref.name}.", hint="Copy or download the shard again."
        )
    return raw
