"""One expert's matrix inside a fused tensor, (E, out, in) or (E, in, out), as transformers keeps experts, or in blocks.

Which way the matrices lie is told by the shape, or by the stack beside it where a matrix is square; which row is gate
and which is up by `data/architectures/experts.json`. What neither tells is refused, with the reason. gpt-oss stores its
experts in MXFP4: `_blocks` (E, out, in / 32, 16) of packed E2M1 and `_scales` (E, out, in / 32) of E8M0.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from publisher import jsonio
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import PLAIN, Part, StoredWeight, UnreadableWeight
from publisher.formats.spec import FORMATS

MAX_TRANSPOSED = 1 << 26  # weights of a matrix that has to be turned around in memory
STACKS = ("gate_up_proj", "down_proj")
BLOCKS, SCALES = "_blocks", "_scales"


@functools.cache
def _facts() -> Mapping[str, Any]:
    facts: Mapping[str, Any] = jsonio.data("architectures/experts.json")
    return facts


def fused_expert(checkpoint: Checkpoint, module: str, shape: tuple[int, int] | None) -> StoredWeight:
    """One expert's matrix out of a fused tensor.

    Args:
        checkpoint: where to look.
        module: the expert's own name, such as `model.layers.0.mlp.experts.3.up_proj`.
        shape: (out, in) of the expert's matrix.

    Raises:
        UnreadableWeight: there is none, or its layout cannot be told.
    """
    stack, _, last = module.rpartition(".")
    parent, _, number = stack.rpartition(".")
    known = _facts()["parts"].get(last)
    if known is None or not (number.isascii() and number.isdigit() and len(number) <= 6):
        raise UnreadableWeight("the source has no weight of this name")
    blocks = checkpoint.tensors.get(f"{parent}.{known['tensor']}{BLOCKS}")
    if blocks is not None:
        return _block_matrix(checkpoint, module, blocks, int(number), known["half"])
    ref = _stack(checkpoint, parent, known["tensor"])
    shape = shape or _own_shape(checkpoint, parent, 2 if last == STACKS[0] else known["half"])
    if ref is None or shape is None:
        raise UnreadableWeight("the source has no weight of this name")
    return _matrix(checkpoint, module, ref, int(number), known["half"], shape)


def fused_stack(module: Module) -> tuple[str, ...]:
    """The projections of a layer whose experts lie in one tensor each: `gate_up_proj` and `down_proj`, or neither.

    Args:
        module: any module; what is no stack of experts of known names has none.
    """
    found = []
    for projection in STACKS:
        ref = module.tensors.get(projection)
        if f"{projection}{BLOCKS}" in module.tensors or (
            ref is not None and ref.dtype in PLAIN and len(ref.shape) == 3
        ):
            found.append(projection)
    return tuple(found) if len(found) == len(STACKS) else ()


def stack_experts(checkpoint: Checkpoint, module: Module, parts: Sequence[str]) -> Iterator[StoredWeight]:
    """Every expert of a stack, by number and then as the parts are given.

    Args:
        checkpoint: where.
        module: a stack, for which `fused_stack` found projections.
        parts: names of an expert's matrices, such as gate_proj, up_proj, down_proj.

    Raises:
        UnreadableWeight: how the matrices lie cannot be told, or the two tensors do not belong together.
    """
    counts = {module.tensors[s].shape[:1] for p in STACKS for s in (p, f"{p}{BLOCKS}") if s in module.tensors}
    if len(counts) != 1:
        held = " and ".join(str(count[0]) if count else "no" for count in sorted(counts))
        raise UnreadableWeight(f"its two tensors hold {held} experts")
    for number in range(counts.pop()[0]):
        for part in parts:
            yield fused_expert(checkpoint, f"{module.name}.{number}.{part}", None)


def _own_shape(checkpoint: Checkpoint, parent: str, half: int | None) -> tuple[int, int] | None:
    """(out, in) of an expert's matrix by the two stacks of its layer; `half` 2 asks for gate and up together.

    Straight, gate_up is (2 I, H) and down (H, I); turned, (H, 2 I) and (I, H). Both cannot fit.
    """
    both, down = _stack(checkpoint, parent, "gate_up_proj"), _stack(checkpoint, parent, "down_proj")
    if both is None or down is None or len(both.shape) != 3 or len(down.shape) != 3:
        return None
    for gate_up, out in ((both.shape[1:], down.shape[1:]), (both.shape[:0:-1], down.shape[:0:-1])):
        if gate_up[0] == 2 * out[1] and gate_up[1] == out[0] and out[1]:
            return (out[0], out[1]) if half is None else (gate_up[0] if half == 2 else gate_up[0] // 2, gate_up[1])
    return None


def _block_matrix(
    checkpoint: Checkpoint, module: str, blocks: TensorRef, expert: int, half: int | None
) -> StoredWeight:
    """One expert's matrix in blocks; gate and up rows alternate in them."""
    block = FORMATS["mxfp4"].block
    scales = checkpoint.tensors.get(f"{blocks.name.removesuffix(BLOCKS)}{SCALES}")
    if blocks.dtype != "U8" or len(blocks.shape) != 4 or blocks.shape[3] * 2 != block or 0 in blocks.shape:
        raise UnreadableWeight(f"its blocks are {blocks.dtype[:20]} {list(blocks.shape)[:6]}, not (E, out, in/32, 16)")
    if scales is None:
        raise UnreadableWeight(f"its blocks have no {scales_name(blocks)} beside them")
    if scales.dtype != "U8" or scales.shape != blocks.shape[:3]:
        raise UnreadableWeight(
            f"its scales are {scales.dtype[:20]} {list(scales.shape)[:6]}, its blocks need U8 {list(blocks.shape)[:3]}"
        )
    if expert >= blocks.shape[0]:
        raise UnreadableWeight(f"the source's fused tensor holds {blocks.shape[0]} experts")
    rows = blocks.shape[1] if half is None else blocks.shape[1] // 2
    return StoredWeight(
        checkpoint=checkpoint,
        name=module,
        form="mxfp4",
        rows=rows,
        columns=blocks.shape[2] * block,
        ref=blocks,
        scale=scales,
        block=(1, block),
        part=Part(expert=expert, first=half or 0, step=1 if half is None else 2, transposed=False),
    )


def scales_name(blocks: TensorRef) -> str:
    """The last part of the name of the scales that belong to blocks."""
    return f"{blocks.name.removesuffix(BLOCKS).rpartition('.')[2]}{SCALES}"


def _stack(checkpoint: Checkpoint, parent: str, name: str) -> TensorRef | None:
    return checkpoint.tensors.get(f"{parent}.{name}") or checkpoint.tensors.get(f"{parent}.{name}.weight")


def _matrix(
    checkpoint: Checkpoint, module: str, ref: TensorRef, expert: int, half: int | None, shape: tuple[int, int]
) -> StoredWeight:
    rows, columns = shape
    if ref.dtype not in PLAIN or len(ref.shape) != 3:
        raise UnreadableWeight(f"the source's fused experts are {ref.dtype[:20]} of {len(ref.shape)} dimensions")
    if expert >= ref.shape[0]:
        raise UnreadableWeight(f"the source's fused tensor holds {ref.shape[0]} experts")
    wide = rows * (1 if half is None else 2)
    transposed = _transposed(checkpoint, ref, wide, columns)
    if transposed is None:
        raise UnreadableWeight(f"the source's fused experts of shape {list(ref.shape)} do not tell their layout")
    if transposed and wide * columns > MAX_TRANSPOSED:
        raise UnreadableWeight(f"a transposed matrix of {wide * columns:,} weights is too large to turn around")
    interleaved = half is not None and _interleaved(checkpoint)
    first = 0 if half is None else half if interleaved else half * rows
    step = 2 if interleaved else 1
    return StoredWeight(
        checkpoint=checkpoint,
        name=module,
        form=ref.dtype,
        rows=rows,
        columns=columns,
        ref=ref,
        part=Part(expert=expert, first=first, step=step, transposed=transposed),
    )


def _transposed(checkpoint: Checkpoint, ref: TensorRef, wide: int, columns: int) -> bool | None:
    """Whether the stack is (E, in, out); None when neither fits or nothing tells."""
    straight, turned = ref.shape[1:] == (wide, columns), ref.shape[1:] == (columns, wide)
    if straight is not turned:
        return turned
    if not straight:
        return None
    return _as_beside(checkpoint, ref, columns)


def _as_beside(checkpoint: Checkpoint, ref: TensorRef, columns: int) -> bool | None:
    """A square stack lies as the other one of its layer does: down beside gate_up, gate_up beside down."""
    parent, _, name = ref.name.removesuffix(".weight").rpartition(".")
    down = name == STACKS[1]
    other = _stack(checkpoint, parent, STACKS[0] if down else STACKS[1])
    if other is None or len(other.shape) != 3:
        return None
    # gate_up is (2 I, H) and down (H, I): where one of them is square, the other is not
    straight = (2 * columns, columns) if down else (columns, columns // 2)
    straight_fits, turned_fits = other.shape[1:] == straight, other.shape[1:] == straight[::-1]
    return None if straight_fits is turned_fits else turned_fits


def _interleaved(checkpoint: Checkpoint) -> bool:
    config: Any = checkpoint.config
    text = config.get("text_config")
    kinds = (config.get("model_type"), text.get("model_type") if isinstance(text, Mapping) else None)
    return any(kind in _facts()["interleaved"] for kind in kinds if isinstance(kind, str))
