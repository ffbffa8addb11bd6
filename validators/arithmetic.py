"""NU: numbers against the source, all packed weights together: what their global scales and their rounding tell."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.checkpoint.modules import fused_group_of
from publisher.checkpoint.stored import PLAIN
from publisher.findings import ERROR, INFO, WARNING, Found
from publisher.formats.e8m0 import MODES
from publisher.formats.makers import OWN, Verdict
from publisher.formats.spec import NVFP4_DIVISOR
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import Compared, Comparison, Pair
from publisher.subjects.modules import is_packed

EXACT = 1e-5  # relative room for a global scale computed in float32 from the exact maximum
COARSE = 2**-7 * 1.01  # where it was computed in BF16, in two roundings
NEAR = 0.2  # relative RMSE beyond which blocks are not looked at one by one: all of the weight is wrong
LARGER = (1.0, 448 / 256)  # four-over-six maps the largest block scale to 256
_EXPERT = re.compile(r"\.experts\.\d+\.")


def _at(compared: Compared) -> dict[str, Any]:
    ref = compared.module.ref
    return {"file": ref.shard, "tensor": ref.name}


def _implied(compared: Compared) -> float | None:
    """The largest magnitude a global scale was made for; None where it tells nothing."""
    scale = compared.global_scale
    if scale is None or not math.isfinite(scale) or scale <= 0 or not compared.sound or compared.amax <= 0:
        return None
    return NVFP4_DIVISOR / scale if compared.direction == "divide" else scale * NVFP4_DIVISOR


def _scoped(noun: str, holds: Any) -> Scope:
    return Scope(noun, lambda comparison: any(holds(compared) for compared in comparison.modules))


@rule(
    "NU02",
    "wrong-global-scale",
    severity=ERROR,
    engines=ENGINES,
    scope=_scoped("global scale of a known weight", lambda compared: _implied(compared) is not None),
)
def wrong_global_scale(comparison: Comparison) -> Iterator[Found]:
    """A global scale does not belong to its weight's largest magnitude, nor to that of its fused group or layer.

    Why: made for a smaller maximum it clips the largest weights; made for a larger one it pushes block scales into
    the coarse end of E4M3, where they underflow.
    Fix: compute it from the largest magnitude of the fused group and quantize the group again.
    Seen: NVIDIA/Model-Optimizer PR 1573 (the window in which every block scale can be represented).
    """
    known = _maxima(comparison)
    for compared in comparison.modules:
        implied = _implied(compared)
        if implied is None or compared.cause == "other":
            continue
        if compared.stored == "mxfp4" and compared.whole and compared.error == 0:
            continue  # nothing is lost under it, whatever it was made for
        room = EXACT if compared.direction == "multiply" and compared.stored == "BF16" else COARSE
        if implied < compared.amax * (1 - room):
            message = (
                f"The global scale of {compared.name} was made for weights up to {implied:.6g}; the source has "
                f"{compared.amax:.6g}, which is clipped. Quantize it again."
            )
            yield Found(message, **_at(compared), severity=ERROR if _rounded(compared) else WARNING)
        elif compared.whole and not any(
            abs(implied / (maximum * factor) - 1) <= room for maximum in known[compared.name] for factor in LARGER
        ):
            message = (
                f"The global scale of {compared.name} was made for weights up to {implied:.6g}; the source's largest "
                f"is {compared.amax:.6g}, that of its group {max(known[compared.name]):.6g}. Quantize it again."
            )
            yield Found(message, **_at(compared), severity=WARNING)


def _rounded(compared: Compared) -> bool:
    """Whether plain rounding made these codes; what was optimized may clip on purpose."""
    return compared.verdict.maker != OWN


def _maxima(comparison: Comparison) -> Mapping[str, tuple[float, ...]]:
    """Of each module the maxima its global scale may come from: its own, its group's, its layer's experts'."""
    groups: dict[str, float] = defaultdict(float)
    keys: dict[str, set[str]] = {}
    for compared in comparison.modules:
        name, fused = compared.name, fused_group_of(compared.name) or compared.name
        own = {name, fused}
        if _EXPERT.search(name):
            every = _EXPERT.sub(".experts.*.", name)
            own |= {every, _EXPERT.sub(".experts.*.", fused), every.rpartition(".")[0]}
        keys[name] = own
        for key in own:
            groups[key] = max(groups[key], compared.amax)
    return {name: tuple(groups[key] for key in own) for name, own in keys.items()}


@rule(
    "NU03",
    "unexplained-blocks",
    severity=WARNING,
    scope=_scoped("block to quantize again", lambda compared: compared.verdict.blocks > 0),
)
def unexplained_blocks(comparison: Comparison) -> Iterator[Found]:
    """Blocks are not what the arithmetic that made the others makes of the source.

    Why: where most layers are reproduced to the bit, a few blocks that are not were edited or damaged; where none
    are, codes were not rounded to nearest (GPTQ, AutoRound, training), and only the error can be judged.
    Fix: quantize the layer again, or say in the card how the codes were chosen.
    Seen: producers differ by one scale code and in ties, no more: modelopt, compressed-tensors, Quark.
    """
    judged = [c for c in comparison.modules if c.verdict.blocks and c.comparable and c.rel_rmse <= NEAR]
    strange = [c for c in judged if c.verdict.wrong and not c.verdict.before_rounding]
    if len(strange) * 2 > len(judged):
        blocks, wrong = sum(c.verdict.blocks for c in judged), sum(c.verdict.wrong for c in judged)
        message = (
            f"{wrong:,} of {blocks:,} sampled blocks in {len(strange):,} of {len(judged):,} packed weights hold codes "
            "that are not the nearest ones (GPTQ, AutoRound or training); only their error was judged."
        )
        yield Found(message, severity=INFO)
        return
    for compared in strange:
        verdict = compared.verdict
        few = verdict.wrong * 20 <= verdict.blocks
        message = (
            f"{verdict.wrong:,} of {verdict.blocks:,} sampled blocks of {compared.name} are not what {_rule(verdict)} "
            f"makes of the source, while {len(judged) - len(strange):,} of {len(judged):,} weights agree; "
            "quantize it again."
        )
        yield Found(message, **_at(compared), severity=ERROR if few else WARNING, engines=ENGINES if few else None)


def _rule(verdict: Verdict) -> str:
    return "rounding to the nearest code" if verdict.maker == OWN else f"{verdict.maker} scaling"


@rule(
    "NU07",
    "misread-source",
    severity=ERROR,
    engines=ENGINES,
    scope=_scoped("weight made from an INT4 or FP8 source", lambda compared: compared.stored in ("int4", "fp8")),
)
def misread_source(comparison: Comparison) -> Iterator[Found]:
    """A quantized source was decoded in another order, or not rounded to BF16 on the way.

    Why: with the nibbles of an INT4 word taken from the wrong end the result is noise; without the rounding to BF16
    the maxima differ, and who quantizes again gets other bytes.
    Fix: decode with element 0 in the least significant nibble and round to BF16; name the intermediate in the card.
    Seen: amd/Quark PR 30 (linear INT4 packing declared as reordered).
    """
    wide = []
    for compared in comparison.modules:
        if compared.cause == "order":
            message = f"{compared.name} fits its INT4 source only with each word's nibbles reversed; decode it again."
            yield Found(message, **_at(compared))
        elif compared.intermediate == "F32" and compared.stored in ("int4", "fp8"):
            wide.append(compared)
    if wide:
        message = (
            f"{len(wide):,} packed weights such as {wide[0].name} were made from a source that was not rounded to "
            "BF16 after decoding; name the intermediate in the card."
        )
        yield Found(message, **_at(wide[0]), severity=INFO, engines=())


@rule(
    "NU14",
    "beyond-the-source",
    severity=INFO,
    scope=Scope("source that is itself quantized", lambda pair: bool(_quantized(pair))),
)
def beyond_the_source(pair: Pair) -> Iterator[Found]:
    """Layers are quantized that the source, itself a quantized release, keeps in 16 bits.

    Why: who trained the model left them out for a reason, often attention, shared experts or the first layer;
    quantizing them costs quality that a short evaluation may not show.
    Fix: exclude them, or evaluate with and without.
    Seen: 1CatAI/1Cat-vLLM issue 649 (attention in four bits, unlike the reference recipe: answers never end).
    """
    found: Counter[str] = Counter()
    example: dict[str, str] = {}
    for module in pair.checkpoint.modules.values():
        original = pair.source.modules.get(module.name)
        if original is None or original.weight is None or not is_packed(module):
            continue
        if original.weight.dtype in PLAIN and "weight_scale" not in original.tensors:
            found[module.kind] += 1
            example.setdefault(module.kind, module.name)
    for kind, count in found.items():
        more = f" and {count - 1:,} more of its kind" if count > 1 else ""
        message = f"{example[kind]}{more}: packed here, in 16 bits in the source; evaluate with and without."
        yield Found(message, tensor=example[kind])


def _quantized(pair: Pair) -> bool:
    return any(
        module.weight is not None and module.weight.dtype in ("I32", "F8_E4M3") and len(module.tensors) > 1
        for module in pair.source.modules.values()
    )


@rule(
    "NU15",
    "other-scale-mode",
    severity=WARNING,
    scope=Scope("declared MX scale mode", lambda comparison: _declared(comparison) is not None),
)
def other_scale_mode(comparison: Comparison) -> Iterator[Found]:
    """The MX block scales follow another rule than the declared `scale_calculation_mode`.

    Why: nothing breaks, but who requantizes activations or weights by the declared rule gets other scales, and the
    card tells of an accuracy that was not measured.
    Fix: declare the mode that was used.
    Seen: Quark `scale_calculation_mode` (even, floor, ceil).
    """
    declared = _declared(comparison)
    judged = [c for c in comparison.modules if c.verdict.maker in MODES and not c.verdict.before_rounding]
    other = [c for c in judged if c.verdict.maker != declared]
    if other and declared is not None:
        message = (
            f"{len(other):,} packed weights such as {other[0].name} have scales of mode {other[0].verdict.maker}; "
            f"the declaration says {declared}. Declare what was used."
        )
        yield Found(message, **_at(other[0]))


def _declared(comparison: Comparison) -> str | None:
    quant = comparison.checkpoint.quant
    config = quant.raw.get("global_quant_config") if quant is not None and quant.dialect == "quark" else None
    weight = config.get("weight") if isinstance(config, Mapping) else None
    mode = weight.get("scale_calculation_mode") if isinstance(weight, Mapping) else None
    return mode if isinstance(mode, str) and mode in MODES else None
