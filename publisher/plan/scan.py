"""A look at the weights before they are quantized: dead ones (all zero), NaN and infinities.

An all-zero matrix makes modelopt write NaN scales and a global scale of 0; a NaN spreads over its block and an infinity
over its tensor. Weights are read once, in file order, in pieces of bounded size, so that hours are not spent first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.encoded import is_encoded
from publisher.checkpoint.experts import SCALES, STACKS
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.formats import e4m3, e8m0
from publisher.plan.model import Plan
from publisher.plan.obstacles import by_class

PIECE = 8 << 20
CODED = frozenset({"F8_E4M3"})
_SCALES = ("weight_scale", "weight_scale_inv")
# Unsigned type, mask of everything but the sign, and the bit pattern of infinity (IEEE 754; BF16 is F32's upper half).
PATTERNS: Mapping[str, tuple[str, int, int]] = {
    "BF16": ("<u2", 0x7FFF, 0x7F80),
    "F16": ("<u2", 0x7FFF, 0x7C00),
    "F32": ("<u4", 0x7FFFFFFF, 0x7F800000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """What is wrong with one tensor: `kind` is zero, nan or infinite; `count` elements of it."""

    tensor: str
    shard: str
    kind: str
    count: int


def scan(
    checkpoint: Checkpoint, names: Iterable[str], *, progress: Callable[[int, int], None] | None = None
) -> Iterator[Flaw]:
    """Read tensors and yield what is wrong with them.

    Args:
        checkpoint: where they are.
        names: tensor names; those that are not BF16, F16, F32 or FP8, nor E8M0 scales, are passed over.
        progress: called with (bytes read, bytes in all).

    Raises:
        CheckpointError: a shard is shorter than its header says.
    """
    refs = sorted(
        (ref for name in names if _is_read(ref := checkpoint.tensors[name])),
        key=lambda ref: (ref.shard, ref.begin),
    )
    total, done = sum(ref.size for ref in refs), 0
    for ref in refs:
        largest = nans = infinities = 0
        for piece in checkpoint.chunks(ref, PIECE):
            top, nan, infinite = _look(ref, piece)
            largest, nans, infinities = max(largest, top), nans + nan, infinities + infinite
            done += len(piece)
            if progress is not None:
                progress(done, total)
        if ref.size and not largest:
            yield Flaw(tensor=ref.name, shard=ref.shard, kind="zero", count=ref.elements)
        for kind, count in (("nan", nans), ("infinite", infinities)):
            if count:
                yield Flaw(tensor=ref.name, shard=ref.shard, kind=kind, count=count)


def _is_read(ref: TensorRef) -> bool:
    return ref.dtype in PATTERNS or ref.dtype in CODED or _is_power(ref)


def _is_power(ref: TensorRef) -> bool:
    """Whether a tensor holds scales that are powers of two: of MXFP4 blocks, and of FP8 weights that have such."""
    own = ref.name.endswith(SCALES) or ref.name.rpartition(".")[2] in _SCALES
    return own and ref.dtype in ("U8", "F8_E8M0")


def _look(ref: TensorRef, piece: bytes) -> tuple[int, int, int]:
    """Largest magnitude as a bit pattern, number of NaN, number of infinities."""
    if _is_power(ref):  # none is zero, and one code is NaN
        return 1, piece.count(e8m0.NAN_CODE), 0
    if ref.dtype in CODED:  # no infinity, and one code of each sign is NaN
        codes: npt.NDArray[np.uint8] = np.frombuffer(piece, np.uint8) & np.uint8(e4m3.NAN_CODE)
        return int(codes.max(initial=0)), int((codes == e4m3.NAN_CODE).sum()), 0
    kind, mask, infinity = PATTERNS[ref.dtype]
    raw: npt.NDArray[Any] = np.frombuffer(piece, kind)
    bits = raw & raw.dtype.type(mask)
    top = int(bits.max(initial=0))
    if top < infinity:
        return top, 0, 0
    return top, int((bits > infinity).sum()), int((bits == infinity).sum())


def weights_of(plan: Plan, checkpoint: Checkpoint) -> list[str]:
    """The tensors a plan quantizes; of those stored in INT4 the scales, which make or break a group, of FP8 both."""
    names = [name for decision in plan.quantized for name in _read(*_holder(checkpoint, decision.module))]
    return list(dict.fromkeys(names))


def _holder(checkpoint: Checkpoint, name: str) -> tuple[Module, str]:
    """The module a weight lies in, which for an expert out of a stack is the stack, and what it is called there."""
    rest: list[str] = []
    while name not in checkpoint.modules:
        name, _, last = name.rpartition(".")
        rest.append(last)
    return checkpoint.modules[name], rest[0] if rest else ""


def _read(module: Module, part: str) -> list[str]:
    if part:
        stack = part if part in STACKS else STACKS[0]
        return [module.tensors[s].name for s in (stack, f"{stack}{SCALES}") if s in module.tensors]
    if is_encoded(module):
        return [ref.name for suffix, ref in module.tensors.items() if suffix in _SCALES or ref.dtype in CODED]
    return [module.weight.name] if module.weight is not None else []


def sentences(flaws: Iterable[Flaw]) -> Iterator[str]:
    """What was found, one sentence a kind, with the next step."""
    found: dict[str, list[Flaw]] = {}
    for flaw in flaws:
        found.setdefault(flaw.kind, []).append(flaw)
    words = {
        "zero": "hold nothing but zeros; keep them, or fetch the source again: a dead expert is often a lost one",
        "nan": "hold NaN; fetch the source again",
        "infinite": "hold infinities; fetch the source again",
    }
    for kind, own in found.items():
        names = [flaw.tensor for flaw in own]
        yield f"{len(own):,} weights to quantize ({by_class(names, 3)}; first {names[0]}) {words[kind]}"
