"""Which tensor goes to which byte of which shard, decided before the first byte is written.

Specs of all tensors in, shard names, headers and offsets out, so a checkpoint does not depend on the order or the
speed of its writing. Shards follow the safetensors README ("Format"): eight bytes of header length, JSON padded with
spaces to a multiple of eight, tensors without holes. Within a shard the widest elements come first, so that every
tensor is aligned. Refused: a name twice, a header longer than loaders read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher.checkpoint.header import DTYPE_BITS, MAX_HEADER
from publisher.checkpoint.open import MAX_SHARDS
from publisher.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor to be written.

    Args:
        name: full tensor name.
        dtype: safetensors dtype string.
        shape: sizes, outermost first; () for a scalar.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes stored."""
        return math.prod(self.shape) * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """One shard, decided up front: `header` are its first bytes, `offsets` the file offset of each tensor."""

    name: str
    specs: tuple[TensorSpec, ...]
    header: bytes
    offsets: Mapping[str, int]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + sum(spec.size for spec in self.specs)


def plan_shards(bundles: Iterable[Sequence[TensorSpec]], shard_size: int) -> tuple[ShardLayout, ...]:
    """Spread tensors over shards of at most `shard_size` tensor bytes.

    Args:
        bundles: tensors that must lie in one shard (a layer's payload and scales), in writing order; a bundle larger
            than `shard_size` gets a shard of its own.
        shard_size: largest sum of tensor bytes of a shard.

    Raises:
        CheckpointError: no tensor, a name twice, an unknown dtype, a header longer than loaders read, too many shards.
    """
    groups: list[list[TensorSpec]] = []
    seen: set[str] = set()
    filled = 0
    for bundle in bundles:
        _refuse_bad(bundle, seen)
        size = sum(spec.size for spec in bundle)
        if not groups or filled + size > max(shard_size, 1):
            groups.append([])
            filled = 0
        groups[-1].extend(bundle)
        filled += size
    if not seen:
        raise CheckpointError("There is no tensor to write.", hint="Check that the source holds weights.")
    if len(groups) > MAX_SHARDS:
        raise CheckpointError(
            f"The result would have {len(groups):,} shards; at most {MAX_SHARDS:,} are written.",
            hint="Raise shard_size in the recipe.",
        )
    total = len(groups)
    return tuple(_layout(f"model-{i:05d}-of-{total:05d}.safetensors", group) for i, group in enumerate(groups, 1))


def _refuse_bad(bundle: Sequence[TensorSpec], seen: set[str]) -> None:
    for spec in bundle:
        if spec.dtype not in DTYPE_BITS or math.prod(spec.shape) * DTYPE_BITS[spec.dtype] % 8:
            raise CheckpointError(f"{spec.name}: {spec.dtype} of shape {list(spec.shape)} cannot be stored.")
        if spec.name in seen or spec.name == "__metadata__":
            raise CheckpointError(f"The tensor name {spec.name[:200]!r} cannot be written twice or is reserved.")
        seen.add(spec.name)


def _layout(name: str, specs: list[TensorSpec]) -> ShardLayout:
    ordered = tuple(sorted(specs, key=lambda spec: (-DTYPE_BITS[spec.dtype], spec.name)))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for spec in ordered:
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [position, position + spec.size],
        }
        position += spec.size
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise CheckpointError(
            f"The header of {name} would have {len(text):,} bytes; loaders read at most {MAX_HEADER:,}.",
            hint="Lower shard_size in the recipe.",
        )
    header = len(text).to_bytes(8, "little") + text
    offsets = {spec.name: len(header) + entries[spec.name]["data_offsets"][0] for spec in ordered}
    return ShardLayout(name, ordered, header, offsets)
