"""The source's tensors, read into torch: whole when they are quantized, in pieces when they are copied.

A weight stored in INT4 or FP8 appears as the BF16 matrix it stands for, decoded while it is read; its packed values and
scales do not appear at all, so that nothing of the source's own quantization is carried into a new one. Experts of a
fused tensor that are to be quantized appear one by one (`apart`).

Nothing is read before every shard the index names is there and as long as its header says, so that a truncated
download is found before the work and not hours into it. Where there is an index, files it does not name (a second copy
in another layout) are left alone, as the loaders do.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from publisher import jsonio
from publisher.checkpoint.encoded import SUPERSEDED, decoded_ref, encoded_weights
from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.stored import PLAIN, StoredWeight
from publisher.errors import CheckpointError
from publisher.formats.spec import Layout
from publisher.native.apart import take_apart
from publisher.native.kernels import decoders
from publisher.native.threads import at_once, row_chunks

TORCH_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_STEP = 16 << 20
_RUN = 128 * 1024  # weights decoded at once; their float32 values stay in a cache
_CODED_RUN = 1 << 19  # the same where machine code decodes them; their BF16 values do
_AGAIN = "Copy or download the file again."


class SourceTensors:
    """The tensors of a source folder in the order they lie on the disk.

    Args:
        folder: the source checkpoint.
        quantize: modules that are to be quantized; experts of fused tensors among them are taken out.
        layout: of the result.

    Raises:
        CheckpointError: no checkpoint, a shard missing, truncated or malformed, a tensor the index promises absent, an
            INT4, FP8 or MXFP4 weight that cannot be decoded.
    """

    def __init__(self, folder: Path, quantize: Collection[str] = (), layout: Layout | None = None) -> None:
        checkpoint = open_checkpoint(folder)
        self._folder = folder
        self.shards = shards = _shards(checkpoint)
        _refuse_damage(checkpoint, shards)
        stored = [ref for name in shards for ref in checkpoint.shards[name].tensors]
        _refuse_doubles(stored)
        absent = sorted(set(checkpoint.weight_map) - {ref.name for ref in stored})
        if absent:
            raise CheckpointError(f"{folder}: the index names {len(absent)} tensors no shard holds, first {absent[0]}.")
        apart = take_apart(checkpoint, quantize, layout)
        self.stacks: Mapping[str, tuple[StoredWeight, ...]] = apart.stacks
        self.repacked = frozenset(apart.repacked)
        self.encoded: dict[str, StoredWeight] = dict(apart.weights)
        stored = [ref for ref in stored if ref.name not in apart.gone] + apart.refs
        refs = sorted(self._decoded(checkpoint, stored), key=lambda ref: (ref.shard, ref.begin, ref.name))
        self.refs = {ref.name: ref for ref in refs}

    def _decoded(self, checkpoint: Checkpoint, stored: list[TensorRef]) -> list[TensorRef]:
        """The tensors with every encoded weight as the matrix it stands for."""
        gone: set[str] = set()
        found: list[TensorRef] = []
        for module, weight in encoded_weights(checkpoint):
            self.encoded[f"{module.name}.weight"] = weight
            found.append(decoded_ref(weight))
            gone.update(ref.name for suffix, ref in module.tensors.items() if suffix in SUPERSEDED)
        return [ref for ref in stored if ref.name not in gone] + found

    def pieces(self, ref: TensorRef) -> Iterator[memoryview]:
        """The bytes of a tensor in pieces; a piece is valid until the next one is asked for."""
        if ref.name in self.encoded:
            yield from self._decoded_pieces(self.encoded[ref.name])
            return
        buffer = memoryview(bytearray(min(_STEP, ref.size)))
        for begin in range(ref.begin, ref.end, _STEP):
            piece = buffer[: min(_STEP, ref.end - begin)]
            self._fill(ref, begin, piece)
            yield piece

    def load(self, ref: TensorRef) -> Tensor:
        """A whole tensor, on the CPU; its dtype is one of `TORCH_DTYPES`."""
        if ref.name in self.encoded:
            return self.matrix(self.encoded[ref.name])
        flat = torch.empty(ref.size, dtype=torch.uint8)
        view = memoryview(flat.numpy())
        for begin in range(0, ref.size, _STEP):
            self._fill(ref, ref.begin + begin, view[begin : begin + _STEP])
        return flat.view(TORCH_DTYPES[ref.dtype]).view(ref.shape)

    def matrix(self, weight: StoredWeight) -> Tensor:
        """A weight as the matrix (rows, columns) it stands for: BF16, or its own dtype where it is stored plainly."""
        if weight.form in PLAIN:
            return self._part(weight)
        return torch.from_numpy(self._decode(weight, 0, weight.rows)).view(torch.bfloat16)

    def codes(self, weight: StoredWeight) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """An MXFP4 weight as stored: packed codes (rows, columns / 2) and scale codes (rows, columns / 32)."""
        with self._reader() as read:
            return weight.codes(0, weight.rows, read=read)

    def scale_codes(self, weight: StoredWeight) -> npt.NDArray[np.uint8]:
        """The scale codes of an MXFP4 weight alone."""
        with self._reader() as read:
            return weight.scale_codes(0, weight.rows, read=read)

    def _part(self, weight: StoredWeight) -> Tensor:
        """One matrix out of a plain fused tensor, read once, laid out row by row."""
        ref, part, dtype = weight.ref, weight.part, TORCH_DTYPES[weight.form]
        if part is None:
            return self.load(ref)
        width = DTYPE_BITS[ref.dtype] // 8
        tall, deep = ref.shape[1:]
        straight = part.step == 1 and not part.transposed
        first, count = (part.first, weight.rows) if straight else (0, tall)
        flat = torch.empty(count * deep * width, dtype=torch.uint8)
        self._fill(ref, ref.begin + (part.expert * tall + first) * deep * width, memoryview(flat.numpy()))
        slab = flat.view(dtype).view(count, deep)
        if straight:
            return slab
        chosen = _every(part.first, weight.rows, part.step)
        return (slab[:, chosen].T if part.transposed else slab[chosen]).contiguous()

    def _decoded_pieces(self, weight: StoredWeight) -> Iterator[memoryview]:
        if weight.form in PLAIN:
            yield memoryview(self._part(weight).view(torch.uint8).numpy().reshape(-1))
            return
        step = max(1, _STEP // (2 * weight.columns))
        for begin in range(0, weight.rows, step):
            rows = self._decode(weight, begin, min(begin + step, weight.rows))
            yield rows.view(np.uint8).reshape(-1).data

    def _decode(self, weight: StoredWeight, begin: int, end: int) -> npt.NDArray[Any]:
        """BF16 bit patterns of some rows; runs of rows are decoded at the same time."""
        out = np.empty((end - begin, weight.columns), "<u2")
        coded = weight.form in ("int4", "fp8")

        def work(rows: slice, read: Callable[[str, int, int], bytes]) -> None:
            first, last = begin + rows.start, begin + rows.stop
            if coded:
                _decode_numbers(weight, first, *weight.numbers(first, last, read=read), out[rows])
                return
            values = np.ascontiguousarray(weight.decode(first, last, read=read))  # rounded to BF16 already
            out[rows] = values.view("<u2")[:, 1::2]

        with self._reader() as read:
            chunks = row_chunks(end - begin, weight.columns, _CODED_RUN if coded else _RUN)
            at_once(chunks, functools.partial(work, read=read))
        return out

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Callable[[str, int, int], bytes]]:
        """Reads bytes of shards, each opened once."""
        with contextlib.ExitStack() as stack:

            @functools.cache
            def opened(shard: str) -> int:
                return stack.enter_context((self._folder / shard).open("rb", buffering=0)).fileno()

            def read(shard: str, begin: int, end: int) -> bytes:
                try:
                    return _read_all(opened(shard), begin, end)
                except OSError as error:
                    raise _unreadable(self._folder / shard, error) from error

            yield read

    def _fill(self, ref: TensorRef, position: int, view: memoryview) -> None:
        path = self._folder / ref.shard
        try:
            with path.open("rb", buffering=0) as file:
                while len(view):
                    count = os.preadv(file.fileno(), [view], position)
                    if count == 0:
                        raise CheckpointError(f"{path} ends inside the tensor {ref.name}.", hint=_AGAIN)
                    position += count
                    view = view[count:]
        except OSError as error:
            raise _unreadable(path, error) from error


def _read_all(descriptor: int, begin: int, end: int) -> bytes:
    """Bytes of a file, fewer where it ends; file systems over a network may give less than is asked for at a time."""
    parts = []
    while begin < end and (data := os.pread(descriptor, end - begin, begin)):
        parts.append(data)
        begin += len(data)
    return b"".join(parts)


def _every(first: int, count: int, step: int) -> slice:
    """`count` rows from `first` on, every `step`-th."""
    return slice(first, first + count * step, step)


def _decode_numbers(weight: StoredWeight, first: int, numbers: Any, scales: Any, out: Any) -> None:
    if weight.form == "int4":
        decoders.int4_bits(numbers, scales, weight.columns, weight.block[1], out)
    else:
        decoders.fp8_bits(numbers, scales, weight.block, first, out)


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read: {error.strerror or error}.", hint=_AGAIN)


def _shards(checkpoint: Checkpoint) -> list[str]:
    named = sorted(set(checkpoint.weight_map.values()))
    missing = [name for name in named if name not in checkpoint.shards]
    if missing:
        raise CheckpointError(
            f"{checkpoint.files.label} lacks {len(missing)} of the {len(named)} shards its index names, "
            f"first {missing[0]!r}.",
            hint="Copy or download the missing files.",
        )
    if not named and not checkpoint.shards:
        raise CheckpointError(
            f"{checkpoint.files.label} holds no *.safetensors file.", hint="Convert the source first."
        )
    return named or sorted(checkpoint.shards)


def _refuse_damage(checkpoint: Checkpoint, shards: list[str]) -> None:
    for name in shards:
        header = checkpoint.shards[name]
        if header.flaws:
            raise CheckpointError(f"{checkpoint.files.label}/{name}: {header.flaws[0].message}.", hint=_AGAIN)
        end = max((ref.end for ref in header.tensors), default=header.data_start)
        if end > header.file_size:
            raise CheckpointError(
                f"{checkpoint.files.label}/{name} is truncated: its header describes {end:,} bytes, "
                f"the file has {header.file_size:,}.",
                hint=_AGAIN,
            )
        for ref in header.tensors:
            if not jsonio.is_text(ref.name):
                raise CheckpointError(
                    f"{checkpoint.files.label}/{name}: the tensor name {ascii(ref.name)[:200]} is no text; no "
                    "safetensors reader takes it.",
                    hint=_AGAIN,
                )
            if ref.elements * DTYPE_BITS.get(ref.dtype, 0) != ref.size * 8:
                raise CheckpointError(
                    f"{checkpoint.files.label}/{name}: {ref.name}, {ref.dtype} of shape {list(ref.shape)}, "
                    f"cannot have {ref.size:,} bytes.",
                    hint=_AGAIN,
                )


def _refuse_doubles(refs: list[TensorRef]) -> None:
    seen: dict[str, str] = {}
    for ref in refs:
        if ref.name in seen:
            raise CheckpointError(
                f"The tensor {ref.name} is in two places, {seen[ref.name]} and {ref.shard}.",
                hint="Remove the file that does not belong to the checkpoint.",
            )
        seen[ref.name] = ref.shard
