"""One global scale for the members of a fused layer, by rescaling their block scales; the payload stays as it is.

Engines apply one member's global scale to all of them. With the largest amax's scale g for all, a block scale S of a
member with its own scale s becomes E4M3(S·s/g) (compressed-tensors stores divisors: E4M3(S·g/s)), so that S·s is kept
up to the rounding of E4M3: at most 1/16, more where it becomes subnormal. The policy is that of vLLM PR 55073. Scales
are never raised above 448 and a non-zero scale never becomes zero. Opt-in, with the numbers shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import fused_groups
from publisher.checkpoint.open import Checkpoint
from publisher.formats import e4m3
from publisher.repair.change import Draft, Patch

DIRECTION = {"weight_scale_2": 1, "weight_global_scale": -1}  # a multiplier, a divisor


def equalize(checkpoint: Checkpoint, draft: Draft) -> None:
    """Add patches for every fused layer whose members' global scales differ."""
    for suffix, direction in DIRECTION.items():
        names = sorted(name for name, module in checkpoint.modules.items() if _has(module.tensors, suffix))
        for fused, members in fused_groups(names).items():
            refs = [checkpoint.tensors[f"{member}.{suffix}"] for member in members]
            values = [_number(checkpoint, ref) for ref in refs]
            if len(set(values)) > 1:
                _group(checkpoint, fused, refs, values, direction, draft)


def _has(tensors: Mapping[str, TensorRef], suffix: str) -> bool:
    ref = tensors.get(suffix)
    return ref is not None and ref.dtype == "F32" and ref.size == 4 and "weight_scale" in tensors


def _number(checkpoint: Checkpoint, ref: TensorRef) -> float:
    return float(np.frombuffer(checkpoint.read(ref), "<f4")[0])


def _group(
    checkpoint: Checkpoint, fused: str, refs: list[TensorRef], values: list[float], direction: int, draft: Draft
) -> None:
    file = refs[0].shard
    if not all(np.isfinite(value) and value > 0 for value in values):
        draft.refuse("equalize", file, f"{fused}: a global scale is not a positive number; quantize its members again.")
        return
    target = max(values) if direction > 0 else min(values)
    blocks = [checkpoint.tensors[ref.name.rpartition(".")[0] + ".weight_scale"] for ref in refs]
    if any(block.dtype != "F8_E4M3" for block in blocks):
        draft.refuse("equalize", file, f"{fused}: block scales are not F8_E4M3.")
        return
    worst = mean = 0.0
    small = count = 0
    for ref, block, value in zip(refs, blocks, values, strict=True):
        if value == target:
            continue
        ratio = np.float32(value / target if direction > 0 else target / value)
        table = rescaled(ratio)
        histogram = np.zeros(256, np.int64)
        for piece in checkpoint.chunks(block):
            histogram += np.bincount(np.frombuffer(piece, np.uint8), minlength=256)
        change = relative_change(table, ratio)
        used = histogram[1 : e4m3.MAX_CODE + 1]
        worst = max(worst, float(change[used > 0].max(initial=0.0)))
        mean, count = mean + float((change * used).sum()), count + int(used.sum())
        small += int(used[table[1 : e4m3.MAX_CODE + 1] < 8].sum())
        draft.patches.setdefault(block.shard, []).append(Patch(ref=block, convert=_through(table)))
        draft.patches.setdefault(ref.shard, []).append(Patch(ref=ref, convert=_constant(target)))
    message = (
        f"{fused}: {len(refs)} global scales up to {max(values) / min(values):.4g} times apart become {target:.6g}; "
        f"{count:,} block scales move by {mean / max(count, 1):.2%} on average, {worst:.2%} at most"
    )
    draft.say("equalize", file, message + (f", {small:,} of them become subnormal." if small else "."))


def rescaled(ratio: np.float32) -> npt.NDArray[np.uint8]:
    """New code of each of the 256 codes when scales shrink by `ratio` (0 < ratio <= 1); NaN codes stay.

    A non-zero scale stays at least 2^-9, the smallest E4M3 number.
    """
    codes = np.arange(256, dtype=np.uint8)
    values = e4m3.decode(codes)
    table = e4m3.encode(np.nan_to_num(values * ratio), nan="code")
    magnitude = codes & 0x7F
    table = np.where((magnitude > 0) & (table & 0x7F == 0), (codes & 0x80) | 1, table)
    return np.where(magnitude == e4m3.NAN_CODE, codes, table).astype(np.uint8)


def relative_change(table: npt.NDArray[np.uint8], ratio: np.float32) -> npt.NDArray[np.float64]:
    """|new - exact| / exact of codes 1 to 0x7E, shape (126,)."""
    codes = np.arange(1, e4m3.MAX_CODE + 1)
    exact = e4m3.DECODE[codes].astype(np.float64) * float(ratio)
    change: npt.NDArray[np.float64] = np.abs(e4m3.DECODE[table[codes]].astype(np.float64) - exact) / exact
    return change


def _through(table: npt.NDArray[np.uint8]) -> Callable[[bytes], bytes]:
    return lambda data: table[np.frombuffer(data, np.uint8)].tobytes()


def _constant(value: float) -> Callable[[bytes], bytes]:
    return lambda _: np.float32(value).astype("<f4").tobytes()
