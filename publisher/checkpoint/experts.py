"""One expert's matrix inside a fused tensor, (E, out, in) or (E, in, out), as transformers keeps experts.

Which way the matrices lie is told by the shape, or by the stack beside it where a matrix is square; which row is gate
and which is up by `data/architectures/experts.json`. What neither tells is refused, with the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import PLAIN, Part, StoredWeight, UnreadableWeight

MAX_TRANSPOSED = 1 << 26  # weights of a matrix that has to be turned around in memory


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
    if known is None or not (number.isascii() and number.isdigit()) or shape is None:
        raise UnreadableWeight("the source has no weight of this name")
    ref = _stack(checkpoint, parent, known["tensor"])
    if ref is None:
        raise UnreadableWeight("the source has no weight of this name")
    return _matrix(checkpoint, module, ref, int(number), known["half"], shape)


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
    transposed = _transposed(checkpoint, ref, wide, columns, half)
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


def _transposed(checkpoint: Checkpoint, ref: TensorRef, wide: int, columns: int, half: int | None) -> bool | None:
    """Whether the stack is (E, in, out); None when neither fits or nothing tells."""
    straight, turned = ref.shape[1:] == (wide, columns), ref.shape[1:] == (columns, wide)
    if straight is not turned:
        return turned
    if not straight:
        return None
    return _as_beside(checkpoint, ref, columns, half)


def _as_beside(checkpoint: Checkpoint, ref: TensorRef, columns: int, half: int | None) -> bool | None:
    """A square stack lies as the other one of its layer does: down beside gate_up, gate_up beside down."""
    parent = ref.name.removesuffix(".weight").rpartition(".")[0]
    other = _stack(checkpoint, parent, "gate_up_proj" if half is None else "down_proj")
    if other is None or len(other.shape) != 3:
        return None
    # gate_up is (2 I, H) and down (H, I): where one of them is square, the other is not
    straight = (2 * columns, columns) if half is None else (columns, columns // 2)
    straight_fits, turned_fits = other.shape[1:] == straight, other.shape[1:] == straight[::-1]
    return None if straight_fits is turned_fits else turned_fits


def _interleaved(checkpoint: Checkpoint) -> bool:
    config: Any = checkpoint.config
    text = config.get("text_config")
    kinds = (config.get("model_type"), text.get("model_type") if isinstance(text, Mapping) else None)
    return any(kind in _facts()["interleaved"] for kind in kinds if isinstance(kind, str))
