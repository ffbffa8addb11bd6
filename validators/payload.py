"""SV and NU: what the packed weights themselves tell, and NaN or infinity in what is not packed; without the source.

Rules on payloads judge what holds for every producer and mode, or what the checkpoint's own modules agree on: most
modes are declared nowhere. Weights changed after their scales were chosen (GPTQ) make such agreement vanish, and then
nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from publisher.findings import ERROR, WARNING, Found
from publisher.formats import e2m1, e4m3
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import Packed, Payload, Payloads, Plain, Tally

# What producers write for a block of zeros. NVFP4: modelopt 0x38 and 0x7E, its search 0x01, its four-over-six 0x78,
# compressed-tensors 0x20, and 0. MXFP4: compressed-tensors, modelopt and Quark 0, Quark 0.13 1, Quark's floor 104,
# AutoRound 126.
ZERO_BLOCKS: Mapping[str, frozenset[int]] = {
    "nvfp4": frozenset({0x38, 0x7E, 0x78, 0x01, 0x20, 0x00}),
    "mxfp4": frozenset({0, 1, 104, 126}),
}
# The smallest largest code of a block, 7 being 6.0, 6 being 4.0, 5 being 3.0 and 4 being 2.0.
LOWEST: Mapping[str, tuple[int, ...]] = {"nvfp4": (7, 6, 5, 4), "mxfp4": (6, 5, 4)}
MODES = {"even": 6, "floor": 6, "ceil6": 5, "ceil": 4}
FEW = 0.05  # share of blocks; damage is less, and so is what GPTQ leaves far below the scales
ENOUGH = 1024  # weights from which on a missing sign is no accident


@rule("SV13", "odd-zero-block", severity=WARNING)
def odd_zero_block(payload: Payload) -> Iterator[Found]:
    """A block of zeros has a scale that no producer writes for one.

    Why: its zeros are exact under any scale, but the scale says that weights were there: the payload was lost, or
    belongs to another tensor.
    Fix: compare the block with the source; copy the shard or quantize the tensor again.
    Seen: NVIDIA/Model-Optimizer PR 1397 tells which scales blocks of zeros get.
    """
    form = payload.packed.format
    odd = np.ones(256, np.bool_)
    odd[list(ZERO_BLOCKS[form])] = False
    if not payload.zeros[odd].any():
        return
    odd[_derived(payload)] = False
    count = int(payload.zeros[odd].sum())
    wanted = np.zeros((256, 8), np.bool_)
    wanted[:, 0] = odd
    place = payload.first(wanted) if count else None
    if place is not None:
        code = int(np.flatnonzero(odd & (payload.zeros > 0))[0])
        message = (
            f"{count:,} of {payload.blocks:,} blocks of {payload.packed.module.name} are all zeros under a scale no "
            f"producer gives to zeros, such as {code:#04x}, the first at {list(place)}; compare them with the source."
        )
        yield _at(payload.packed, message, index=place)


def _derived(payload: Payload) -> list[int]:
    """modelopt's static calibration divides 1.0 by the global scale for a block of zeros."""
    scale = payload.global_scale() if payload.packed.format == "nvfp4" else None
    if scale is None or not scale > 0:
        return []
    ratio = np.array([min(1 / scale, e4m3.MAX)], np.float32)
    return [int(e4m3.encode(ratio)[0])]


@rule("SV14", "block-below-its-scale", severity=WARNING, engines=ENGINES)
def block_below_its_scale(payloads: Payloads) -> Iterator[Found]:
    """A block's largest weight lies further below its scale than the quantization's mode can leave it.

    Why: every mode chooses a scale from the block's largest weight, so that weight's code is 6.0 (the largest weight
    decides), at least 4.0 (least error, four-over-six, MX even and floor), 3.0 or 2.0 (MX rounding up). A smaller one
    means bytes that were damaged, or a scale several times too large. Judged is what a declared mode promises, or what
    nine tenths of the modules, or all but one, hold without exception.
    Fix: copy the shard again, or quantize the module again.
    Seen: huggingface/transformers PR 46763 (scales rounded after the weights were divided).
    """
    level, mode = _level(payloads)
    if level is None or (mode is not None and _share(payloads.tallies, level) > FEW):
        yield from _everywhere(payloads, level, mode)
        return
    why = f"scale mode {mode} never leaves" if mode else "the other modules never leave"
    for tally in payloads.tallies:
        low = int(tally.free[1:level].sum())
        place = payloads.first(tally.packed, range(1, level)) if low and not _another_mode(tally, level) else None
        if place is not None:
            message = (
                f"{low:,} of {tally.blocks:,} blocks of {tally.packed.module.name} have no weight of "
                f"{e2m1.MAGNITUDES[level]:g} or more times their scale, which {why} out, the first at {list(place)}; "
                "compare them with the source."
            )
            yield _at(tally.packed, message, index=place)


def _level(payloads: Payloads) -> tuple[int | None, str | None]:
    """What every block's largest code must be, and the declared mode that says so; None where nothing is agreed on.

    Where a mode draws its line many blocks lie right on it. What changes of weights leave thins out instead.
    """
    tallies = [tally for tally in payloads.tallies if tally.free.any()]
    mode = _declared(payloads)
    if mode is not None and not _edited(payloads):
        return MODES[mode], mode
    allowed = max(len(tallies) >= 3, 0.1 * len(tallies))
    for level in LOWEST[payloads.format]:
        if sum(bool(tally.free[1:level].any()) for tally in tallies) <= allowed:
            return (level if _share(tallies, level + 1) - _share(tallies, level) > FEW else None), None
    return None, None


def _share(tallies: Sequence[Tally], level: int) -> float:
    """Of all blocks with weights, those whose largest code is below `level`."""
    total = sum((tally.free for tally in tallies), np.zeros(8, np.int64))
    return float(total[1:level].sum() / max(1, total.sum()))


def _another_mode(tally: Tally, level: int) -> bool:
    """Whether too many blocks are below for damage, and none as far as to be wrong in every mode."""
    return _share([tally], level) > FEW and _share([tally], min(LOWEST[tally.packed.format])) <= FEW


def _everywhere(payloads: Payloads, level: int | None, mode: str | None) -> Iterator[Found]:
    """One finding where blocks are below their scales all over: not the mode declared, or scales of something else."""
    share = _share(payloads.tallies, level or min(LOWEST[payloads.format]))
    if mode is not None and level is not None:
        message = (
            f"{share:.1%} of all blocks have no weight of {e2m1.MAGNITUDES[level]:g} or more times their scale, which "
            f"scale mode {mode} never leaves out; declare the mode that was used."
        )
        yield _at(payloads.tallies[0].packed, message)
    elif share > FEW:
        message = (
            f"{share:.1%} of all blocks have no weight of 2.0 or more times their scale, which no mode leaves out; the "
            "scales are several times too large. Quantize again."
        )
        yield _at(payloads.tallies[0].packed, message)


def _declared(payloads: Payloads) -> str | None:
    """Quark's scale mode, where one is declared for all modules."""
    weight = _path(payloads, "global_quant_config", "weight")
    layers = _path(payloads, "layer_quant_config"), _path(payloads, "layer_type_quant_config")
    mode = weight.get("scale_calculation_mode") if isinstance(weight, Mapping) else None
    return mode if isinstance(mode, str) and mode in MODES and payloads.format == "mxfp4" and not any(layers) else None


def _edited(payloads: Payloads) -> bool:
    """Whether an algorithm is declared that changes weights after their scales."""
    return bool(_path(payloads, "algo_config"))


def _path(payloads: Payloads, *keys: str) -> Any:
    value: Any = payloads.checkpoint.quant.raw if payloads.checkpoint.quant else None
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@rule("SV15", "payload-without-weights", severity=ERROR, engines=ENGINES)
def payload_without_weights(payloads: Payloads) -> Iterator[Found]:
    """One byte makes up half of a payload, all its weights have one sign, or all are zero.

    Why: memory or disk space that was never written looks like this, and loads. All zeros in one module may be meant
    and is a warning, as is a single sign; in every module of a shard it is an error.
    Fix: copy the shard again, or export again; keep a module that is really dead unquantized.
    Seen: vLLM leaves what it does not load as it was in memory.
    """
    dead = _dead_shards(payloads)
    for shard, count in dead.items():
        message = f"All {count:,} packed modules of {shard} are nothing but zeros; copy the shard again."
        yield Found(message, file=shard)
    for tally in payloads.tallies:
        text = _emptiness(tally)
        if text is not None and tally.packed.weight.shard not in dead:
            severity = ERROR if tally.share > 0.5 else WARNING
            yield _at(tally.packed, f"{tally.packed.weight.name} {text}", severity=severity)


def _emptiness(tally: Tally) -> str | None:
    if tally.dead:
        return "holds nothing but zeros; keep a dead module unquantized, or quantize it again."
    if tally.share > 0.5:
        return f"is {tally.share:.0%} the byte {tally.top:#04x}; no weights look like this. Export it again."
    if tally.positive + tally.negative >= ENOUGH and not (tally.positive and tally.negative):
        sign = "positive" if tally.positive else "negative"
        return (
            f"holds {tally.positive + tally.negative:,} {sign} weights and no other sign; compare it with the source."
        )
    return None


def _dead_shards(payloads: Payloads) -> dict[str, int]:
    """Shards of several packed modules, none of which holds a weight, with their number."""
    shards: dict[str, list[bool]] = {}
    for tally in payloads.tallies:
        shards.setdefault(tally.packed.weight.shard, []).append(tally.dead)
    return {shard: len(states) for shard, states in shards.items() if len(states) > 1 and all(states)}


@rule("NU10", "nan-in-plain-tensor", severity=ERROR, engines=ENGINES,
      scope=Scope("floating-point tensor", lambda plain: plain.ref.elements > 0))  # fmt: skip
def nan_in_plain_tensor(plain: Plain) -> Iterator[Found]:
    """A tensor that is not quantized, a bias or an FP8 weight holds NaN or infinity.

    Why: one such number reaches every token through attention and normalization.
    Fix: copy the tensor from the source; where the source has it too, the model itself is broken.
    Seen: intel/auto-round issue 1908 (NaN from blocks of padded vocabulary rows).
    """
    if plain.bad and plain.first is not None:
        place = tuple(int(n) for n in np.unravel_index(plain.first, plain.ref.shape)) if plain.ref.shape else ()
        message = (
            f"{plain.bad:,} of {plain.ref.elements:,} numbers of {plain.ref.name} are NaN or infinite, the first at "
            f"{list(place)}; copy the tensor from the source."
        )
        yield Found(message, file=plain.ref.shard, tensor=plain.ref.name, index=place)


def _at(packed: Packed, message: str, **more: Any) -> Found:
    return Found(message, file=packed.weight.shard, tensor=packed.weight.name, **more)
