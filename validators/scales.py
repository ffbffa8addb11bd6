"""SV: the values of block scales, without the source; the weights of a block are read only where its scale is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from publisher.checkpoint.modules import layer_of
from publisher.findings import ERROR, WARNING, Found
from publisher.formats import e4m3
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import BlockScales, ScaleRange, ScaleRanges

E4M3_NAN = (0x7F, 0xFF)
NEGATIVE = tuple(range(0x80, 0xFF))
E8M0_NAN = 0xFF
SUBNORMAL = tuple(range(0x01, 0x08))
IMPLAUSIBLE = (*range(1, 61), *range(150, 255))  # below 2**-66 and above 2**22
LARGEST, HALF, QUARTER = 0x7E, 0x78, 0x70  # 448, 256 and 128
NVFP4 = Scope("NVFP4 block scale", lambda scales: scales.format == "nvfp4")
MX = Scope("MX block scale", lambda scales: scales.format == "mxfp4")


def _first(scales: BlockScales, *codes: int) -> tuple[int, ...]:
    return scales.index(int(next(scales.places(*codes))[0]))


def _with_weights(scales: BlockScales, *codes: int) -> tuple[int, int | None]:
    """How many blocks with one of these scales hold a weight other than zero, and the first of them."""
    total, first = 0, None
    for places in scales.places(*codes):
        count, at = scales.nonzero(places)
        total += count
        first = at if first is None else first
    return total, first


@rule("SV01", "nan-block-scale", severity=ERROR, engines=ENGINES, scope=NVFP4)
def nan_block_scale(scales: BlockScales) -> Iterator[Found]:
    """An NVFP4 block scale is the NaN code (0x7F or 0xFF).

    Why: one such byte turns its block, and through attention every token, into NaN; of a layer that is no expert vLLM
    takes it for a scale that was never loaded, and refuses.
    Fix: quantize the tensor again with scales clamped to the finite range; an all-zero tensor needs a scale by hand.
    Seen: NVIDIA/Model-Optimizer PR 1397; vLLM `modelopt.py`, `process_weights_after_loading`.
    """
    count = scales.count(*E4M3_NAN)
    if count:
        place = _first(scales, *E4M3_NAN)
        message = (
            f"{count:,} of {scales.ref.size:,} block scales of {scales.module.name} are NaN, the first at "
            f"{list(place)}; quantize the tensor again."
        )
        quant = scales.checkpoint.quant
        sentinel = quant is not None and quant.dialect == "modelopt" and scales.module.role != "expert"
        refuses = ("vllm",) if sentinel else ()
        yield Found(message, file=scales.ref.shard, tensor=scales.ref.name, index=place, refuses=refuses)


@rule("SV02", "negative-block-scale", severity=ERROR, engines=ENGINES, scope=NVFP4)
def negative_block_scale(scales: BlockScales) -> Iterator[Found]:
    """An NVFP4 block scale has its sign bit set (0x80 to 0xFE).

    Why: no quantizer writes one. Kernels that take the scale for unsigned read another number, the others turn the
    block's signs around.
    Fix: the bytes are damaged or belong to another tensor; copy the shard again, or export again.
    Seen: vLLM `marlin_utils_fp4.py`, which keeps block scales without their sign and only warns.
    """
    count = scales.count(*NEGATIVE)
    if count:
        place = _first(scales, *NEGATIVE)
        message = (
            f"{count:,} of {scales.ref.size:,} block scales of {scales.module.name} are negative, the first at "
            f"{list(place)}; copy the shard again or quantize the tensor again."
        )
        yield Found(message, file=scales.ref.shard, tensor=scales.ref.name, index=place)


@rule("SV03", "zero-scale-on-weights", severity=ERROR, engines=ENGINES, scope=NVFP4)
def zero_scale_on_weights(scales: BlockScales) -> Iterator[Found]:
    """An NVFP4 block scale is zero while its block holds non-zero codes.

    Why: the block's weights vanish, or were computed as 0/0; the scale has underflowed. A zero scale on an all-zero
    block is exact and passes.
    Fix: quantize again with block scales clamped to at least 2^-9.
    Seen: NVIDIA/Model-Optimizer PR 1397; vllm-project/vllm PR 37464.
    """
    if not scales.count(0):
        return
    lost, first = _with_weights(scales, 0)
    if first is not None:
        place = scales.index(first)
        message = (
            f"{lost:,} of {scales.ref.size:,} blocks of {scales.module.name} have scale 0 and non-zero weights, the "
            f"first at {list(place)}; quantize the tensor again."
        )
        yield Found(message, file=scales.ref.shard, tensor=scales.ref.name, index=place)


@rule("SV11", "nan-mx-scale", severity=ERROR, engines=ENGINES, scope=MX)
def nan_mx_scale(scales: BlockScales) -> Iterator[Found]:
    """An MX block scale is 255, the NaN of E8M0.

    Why: its block becomes NaN in every engine.
    Fix: look for Inf or NaN in the source tensor, then quantize it again.
    Seen: OCP Microscaling Formats 1.0, E8M0; AutoRound clamps to 255, not 254.
    """
    count = scales.count(E8M0_NAN)
    if count:
        place = _first(scales, E8M0_NAN)
        message = (
            f"{count:,} of {scales.ref.size:,} block scales of {scales.module.name} are 255 (NaN), the first at "
            f"{list(place)}; quantize the tensor again."
        )
        yield Found(message, file=scales.ref.shard, tensor=scales.ref.name, index=place)


@rule("SV12", "implausible-mx-scale", severity=WARNING, engines=ENGINES, scope=MX)
def implausible_mx_scale(scales: BlockScales) -> Iterator[Found]:
    """An MX block with non-zero weights has a scale below 2^-66 or above 2^22; no language model's weights do.

    Why: the exponents were converted as numbers, belong to another tensor, or underflowed; the block's weights are
    wrong by orders of magnitude. Blocks of zeros may have any scale.
    Fix: compare with the source, and export again with the exponents copied as bytes.
    Seen: jundot/omlx PR 2159 (E8M0 exponents read as numbers).
    """
    codes = (0, *IMPLAUSIBLE)
    if (scales.low > 60 and scales.high < 150) or not scales.count(*codes):
        return
    count, first = _with_weights(scales, *codes)
    if first is not None:
        place = scales.index(first)
        message = (
            f"{count:,} of {scales.ref.size:,} blocks of {scales.module.name} hold weights under a scale below 2^-66 "
            f"or above 2^22, the first at {list(place)}; compare them with the source."
        )
        yield Found(message, file=scales.ref.shard, tensor=scales.ref.name, index=place)


@rule("SV17", "subnormal-block-scales", severity=WARNING, scope=NVFP4)
def subnormal_block_scales(scales: BlockScales) -> Iterator[Found]:
    """More than 1 % of a tensor's blocks hold weights under a subnormal scale (below 2^-6 of at most 448).

    Why: such scales have one to three bits, so these blocks are wrong by up to a half; the tensor's largest weight lies
    too far above the others for one global scale.
    Fix: leave the module unquantized, or use MXFP4, whose scales have no second level to run out of.
    Seen: NVIDIA/Model-Optimizer PR 1573 (a global maximum more than 28,672 times a block's).
    """
    count, size = scales.count(*SUBNORMAL), scales.ref.size
    if count * 100 <= size:
        return
    held, first = _with_weights(scales, *SUBNORMAL)
    if held * 100 > size and first is not None:
        place = scales.index(first)
        message = (
            f"{held:,} of {size:,} blocks of {scales.module.name} ({held / size:.1%}) hold weights under a subnormal "
            f"scale, the first at {list(place)}; keep the module unquantized."
        )
        yield Found(message, file=scales.ref.shard, tensor=scales.ref.name, index=place)


# --- the largest scale of a tensor ---------------------------------------------------------------------------------


@rule("SV04", "scales-below-their-range", severity=WARNING, engines=ENGINES, scope=NVFP4)
def scales_below_their_range(ranges: ScaleRanges) -> Iterator[Found]:
    """The largest NVFP4 block scale under a global scale is far below 448.

    Why: the global scale maps the largest weight to a block scale of 448, or 256 in the four-over-six mode; a search
    for the least error ends near it. One that stays below 128, or below 256 where others reach 448, belongs to another
    tensor, or was taken over a group it is not stored with.
    Fix: quantize the module, and those fused with it, again.
    Seen: modelopt `nvfp4_tensor.py`, compressed-tensors `generate_gparam`: the block with the largest weight has 0x7E.
    """
    groups: dict[tuple[object, ...], list[ScaleRange]] = {}
    for one in ranges.ranges:
        if one.bits is not None:
            layer = layer_of(one.module.name)
            groups.setdefault((one.module.name if layer is None else layer, one.bits), []).append(one)
    highest = {key: max(one.high for one in group) for key, group in groups.items()}
    reached = Counter(high >= LARGEST for high in highest.values())
    usual = HALF if reached[True] >= 0.9 * len(groups) else QUARTER
    for key, group in groups.items():
        if highest[key] < usual and not _dead(ranges, group):
            yield _low(group, highest[key], reached[True], len(groups))


def _low(group: list[ScaleRange], high: int, reached: int, groups: int) -> Found:
    names = ", ".join(one.module.name for one in group[:3]) + f" and {len(group) - 3:,} more" * (len(group) > 3)
    message = (
        f"The largest block scale of {names} is {e4m3.DECODE[high]:g}, while {reached:,} of {groups:,} global "
        "scales have one of 448 under them; quantize again."
    )
    return Found(message, file=group[0].ref.shard, tensor=group[0].ref.name)


def _dead(ranges: ScaleRanges, group: list[ScaleRange]) -> bool:
    """Whether the group holds nothing but zeros: one scale everywhere and no weight under it."""
    if any(one.low != one.high for one in group):
        return False
    return all(_with_weights(ranges.scales(one), one.low)[1] is None for one in group)
