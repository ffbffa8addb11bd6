"""The source's tensors, read into torch: whole when they are quantized, in pieces when they are copied.

Nothing is read before every shard the index names is there and as long as its header says, so that a truncated
download is found before the work and not hours into it. Where there is an index, files it does not name (a second copy
in another layout) are left alone, as the loaders do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.errors import CheckpointError

TORCH_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_STEP = 16 << 20
_AGAIN = "Copy or download the file again."


class SourceTensors:
    """The tensors of a source folder in the order they lie on the disk.

    Args:
        folder: the source checkpoint.

    Raises:
        CheckpointError: no checkpoint, a shard missing, truncated or malformed, a tensor the index promises absent.
    """

    def __init__(self, folder: Path) -> None:
        checkpoint = open_checkpoint(folder)
        self._folder = folder
        shards = _shards(checkpoint)
        _refuse_damage(checkpoint, shards)
        refs = [ref for name in shards for ref in checkpoint.shards[name].tensors]
        self.refs = {ref.name: ref for ref in sorted(refs, key=lambda ref: (ref.shard, ref.begin, ref.name))}
        _refuse_doubles(refs)
        absent = sorted(set(checkpoint.weight_map) - self.refs.keys())
        if absent:
            raise CheckpointError(f"{folder}: the index names {len(absent)} tensors no shard holds, first {absent[0]}.")

    def pieces(self, ref: TensorRef) -> Iterator[memoryview]:
        """The bytes of a tensor in pieces; a piece is valid until the next one is asked for."""
        buffer = memoryview(bytearray(min(_STEP, ref.size)))
        for begin in range(ref.begin, ref.end, _STEP):
            piece = buffer[: min(_STEP, ref.end - begin)]
            self._fill(ref, begin, piece)
            yield piece

    def load(self, ref: TensorRef) -> Tensor:
        """A whole tensor, on the CPU; its dtype is one of `TORCH_DTYPES`."""
        flat = torch.empty(ref.size, dtype=torch.uint8)
        view = memoryview(flat.numpy())
        for begin in range(0, ref.size, _STEP):
            self._fill(ref, ref.begin + begin, view[begin : begin + _STEP])
        return flat.view(TORCH_DTYPES[ref.dtype]).view(ref.shape)

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
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.", hint=_AGAIN) from error


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
