"""A linear layer's weight as numbers, whatever it is stored as: BF16, F16, F32, INT4 or FP8, alone or fused.

`locate` finds a module's weight in a checkpoint and says how it is stored; `StoredWeight.decode` gives any run of its
rows as float32. Known storages:

| form | tensors |
|---|---|
| BF16, F16, F32 | `weight` |
| int4 | `weight_packed` I32, `weight_scale`, `weight_shape` (compressed-tensors, symmetric) |
| fp8 | `weight` F8_E4M3 beside `weight_scale_inv` (DeepSeek, per block) or `weight_scale` (per tensor, row, block) |
| fused | expert n of `experts.gate_up_proj` or `experts.down_proj`, (E, out, in) or (E, in, out) |

Which way fused experts lie is told by the shape, or by that of the matrix beside them. Refused, with the reason: zero
points and reordered groups, E5M2, a fused matrix that fits both ways, bytes outside the file. Nothing is read but the
rows asked for; of a transposed matrix the whole matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from publisher.checkpoint.experts import fused_expert
from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.checkpoint.stored import MAX_COLUMNS, PLAIN, StoredWeight, UnreadableWeight
from publisher.formats import fp8, int4
from publisher.formats.blocks import Float32Array
from publisher.formats.int4 import Intermediate

_BLOCK = (128, 128)  # DeepSeek's, where nothing declares another


def decoded_rows(
    checkpoint: Checkpoint, module: str, begin: int, end: int, *, intermediate: Intermediate = "BF16"
) -> Float32Array:
    """Rows of a module's weight as float32 (end - begin, in), however it is stored.

    Raises:
        CheckpointError: no such weight, a storage not known here, or a shard that ends early.
    """
    return locate(checkpoint, module).decode(begin, end, intermediate=intermediate)


def locate(
    checkpoint: Checkpoint, module: str, shape: tuple[int, int] | None = None, *, headers_only: bool = False
) -> StoredWeight:
    """A module's weight.

    Args:
        checkpoint: where to look.
        module: its name, such as `model.layers.0.mlp.up_proj`.
        shape: (out, in) as known from elsewhere; fused experts need it.
        headers_only: read no tensor, not even `weight_shape`; INT4 rows then count as whole words.

    Raises:
        UnreadableWeight: it is not there or not known here; the message is a reason without the module's name.
    """
    table = checkpoint.modules.get(module)
    tensors: Mapping[str, TensorRef] = table.tensors if table else {}
    packed, weight = tensors.get("weight_packed"), tensors.get("weight")
    if packed is not None and packed.dtype == "I32":
        found = _int4_weight(checkpoint, module, tensors, packed, headers_only)
    elif weight is not None and weight.dtype == "F8_E4M3":
        found = _fp8_weight(checkpoint, module, tensors, weight)
    elif weight is not None:
        found = _plain_weight(checkpoint, module, weight)
    elif packed is not None:
        raise UnreadableWeight(f"its payload is {packed.dtype}, which is no form of a source")
    else:
        found = fused_expert(checkpoint, module, shape)
    if found.columns > MAX_COLUMNS:
        raise UnreadableWeight(f"rows of {found.columns:,} weights are not read")
    for ref in (found.ref, found.scale):
        if ref is not None and not _readable(checkpoint, ref):
            raise UnreadableWeight(f"the bytes of {ref.name} are not those its header describes")
    return found


def _readable(checkpoint: Checkpoint, ref: TensorRef) -> bool:
    fits = ref.end <= checkpoint.shards[ref.shard].file_size
    return fits and ref.size * 8 == ref.elements * DTYPE_BITS.get(ref.dtype, 0)


def _plain_weight(checkpoint: Checkpoint, module: str, ref: TensorRef) -> StoredWeight:
    if ref.dtype not in PLAIN or len(ref.shape) != 2 or 0 in ref.shape:
        raise UnreadableWeight(f"{ref.dtype[:20]} of {len(ref.shape)} dimensions is no weight known here")
    rows, columns = ref.shape
    return StoredWeight(checkpoint=checkpoint, name=module, form=ref.dtype, rows=rows, columns=columns, ref=ref)


def _int4_weight(
    checkpoint: Checkpoint, module: str, tensors: Mapping[str, TensorRef], packed: TensorRef, headers_only: bool
) -> StoredWeight:
    scale = tensors.get("weight_scale")
    beside = sorted({"weight_zero_point", "weight_g_idx"} & tensors.keys())
    if beside:
        raise UnreadableWeight(f"INT4 with {beside[0]} (asymmetric or reordered) is not decoded here")
    lost = _declared_beside(checkpoint.quant)
    if lost is not None:
        raise UnreadableWeight(f"INT4 that is declared {lost[0]} and has no {lost[1]}")
    if scale is None or scale.dtype not in PLAIN or len(scale.shape) != 2 or len(packed.shape) != 2:
        raise UnreadableWeight("INT4 without a matrix of floating-point scales")
    rows, words = packed.shape
    said = None if headers_only else tensors.get("weight_shape")
    columns = _logical_columns(checkpoint, said, rows, words)
    group = _group(checkpoint.quant, columns, scale.shape[1])
    if group is None or scale.shape[0] != rows or 0 in packed.shape:
        raise UnreadableWeight(f"INT4 of {rows} x {columns} with scales of shape {list(scale.shape)[:3]}")
    return StoredWeight(
        checkpoint=checkpoint,
        name=module,
        form="int4",
        rows=rows,
        columns=columns,
        ref=packed,
        scale=scale,
        block=(1, group),
    )


def _declared_beside(quant: QuantConfig | None) -> tuple[str, str] | None:
    """What a declaration of INT4 says there must be beside the codes: how it says it, and the tensor."""
    groups: Any = quant.raw.get("config_groups") if quant is not None else None
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping) or weights.get("num_bits") != 4 or weights.get("type") != "int":
            continue
        if weights.get("symmetric") is False:
            return "asymmetric", "weight_zero_point"
        if weights.get("actorder") in ("group", "dynamic", True):
            return f"reordered (actorder {weights['actorder']})", "weight_g_idx"
    return None


def _logical_columns(checkpoint: Checkpoint, ref: TensorRef | None, rows: int, words: int) -> int:
    """Input features by `weight_shape`; every nibble is a weight where that is absent."""
    if ref is None:
        return words * int4.PER_WORD
    kinds = {"I64": "<i8", "I32": "<i4"}
    if ref.dtype not in kinds or ref.shape != (2,) or not _readable(checkpoint, ref):
        raise UnreadableWeight(f"INT4 whose weight_shape is {ref.dtype[:20]} {list(ref.shape)[:3]}")
    out, columns = np.frombuffer(checkpoint.read(ref), kinds[ref.dtype]).tolist()
    if out != rows or columns < 1 or int4.words_of(columns) != words:
        raise UnreadableWeight(f"packed weights of {rows} x {words} words that claim to be {out} x {columns} INT4")
    return int(columns)


def _group(quant: QuantConfig | None, columns: int, groups: int) -> int | None:
    """Weights per scale: as declared where that fits, else by the shapes."""
    declared = quant.group_size if quant else None
    if declared and declared > 0 and -(-columns // declared) == groups:
        return declared
    return columns // groups if groups and columns % groups == 0 else None


def _fp8_weight(
    checkpoint: Checkpoint, module: str, tensors: Mapping[str, TensorRef], weight: TensorRef
) -> StoredWeight:
    scale = tensors.get("weight_scale_inv") or tensors.get("weight_scale")
    if scale is None or scale.dtype not in (*PLAIN, "U8", "F8_E8M0") or len(weight.shape) != 2 or 0 in weight.shape:
        raise UnreadableWeight("FP8 without scales of a known type")
    rows, columns = weight.shape
    block = _fp8_block(checkpoint, (rows, columns), scale)
    if block is None:
        raise UnreadableWeight(f"FP8 of {rows} x {columns} with scales of shape {list(scale.shape)[:3]}")
    return StoredWeight(
        checkpoint=checkpoint,
        name=module,
        form="fp8",
        rows=rows,
        columns=columns,
        ref=weight,
        scale=scale,
        block=block,
    )


def _fp8_block(checkpoint: Checkpoint, shape: tuple[int, int], scale: TensorRef) -> tuple[int, int] | None:
    rows, columns = shape
    if scale.elements == 1:
        return rows, columns
    if scale.shape in ((rows,), (rows, 1)) and scale.dtype in PLAIN:
        return 1, columns
    candidates = [_declared_block(checkpoint.quant), _BLOCK]
    if scale.dtype in ("U8", "F8_E8M0"):
        candidates.append((1, 32))  # MXFP8
    fits = (block for block in candidates if block and fp8.blocks_of(rows, columns, block) == scale.shape)
    return next(fits, None)


def _declared_block(quant: QuantConfig | None) -> tuple[int, int] | None:
    raw: Any = quant.raw if quant else {}
    value = raw.get("weight_block_size")
    if isinstance(value, list) and len(value) == 2 and all(type(size) is int and 0 < size < 1 << 20 for size in value):
        return value[0], value[1]
    return None
