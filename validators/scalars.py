"""SV: one number per module: global weight scales, activation scales, smoothing vectors; without the source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from publisher.findings import ERROR, INFO, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import BLOCK, Scalars, Smoothings

TINY = float(np.finfo(np.float32).tiny)
COMPRESSED = ("vllm", "sglang", "tensorrt-llm", "transformers")
SMOOTHERS = ("sglang", "tensorrt-llm")
BACKSTOP = np.float32(0.5) / np.float32(2688)  # what modelopt writes for a module that saw no activations
PINNED = np.float32(1)  # recipes that fix the largest activation at 2688
_EXPERT = re.compile(r"(.*\.experts)\.\d+\.(.+)\.[^.]+")


def _kind(*suffixes: str) -> Scope:
    return Scope(" or ".join(suffixes), lambda scalars: scalars.suffix in suffixes)


def _good(values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Finite, positive and normal."""
    with np.errstate(invalid="ignore"):
        good: npt.NDArray[np.bool_] = np.isfinite(values) & (values >= TINY)
    return good


def _judge(scalars: Scalars, low: float, high: float) -> Iterator[Found]:
    """Errors for what is not finite, positive and normal, warnings for what is out of the usual range."""
    values, good = scalars.values, _good(scalars.values)
    odd = good & ((values < low) | (values > high))
    yield from _each(scalars, ~good, lambda value: f"is {value}, not a positive normal number; export it again", True)
    usual = f"[{low:g}, {high:g}]"
    yield from _each(scalars, odd, lambda value: f"is {value}, outside the usual {usual}; compare the source", False)


def _each(scalars: Scalars, mask: npt.NDArray[np.bool_], text: Callable[[str], str], bad: bool) -> Iterator[Found]:
    for at in np.flatnonzero(mask):
        ref, value = scalars.refs[at], scalars.values[at]
        message = f"{ref.name} {text(f'{value:.6g}')}."
        yield Found(message, file=ref.shard, tensor=ref.name, severity=ERROR if bad else WARNING)


@rule("SV05", "bad-global-scale", severity=ERROR, engines=ENGINES, scope=_kind("weight_scale_2"))
def bad_global_scale(scalars: Scalars) -> Iterator[Found]:
    """A global weight scale is zero, negative, subnormal, infinite or NaN; outside 1e-7 to 0.1 it is a warning.

    Why: it multiplies every weight of its module, so the module is lost.
    Fix: quantize the module again; a dead module (all weights zero) is better kept unquantized.
    Seen: modelopt 0.47 writes 0 for an all-zero weight, and NaN block scales with it.
    """
    yield from _judge(scalars, 1e-7, 1e-1)


@rule(
    "SV06",
    "bad-divisor-scale",
    severity=ERROR,
    engines=COMPRESSED,
    scope=_kind("weight_global_scale", "input_global_scale"),
)
def bad_divisor_scale(scalars: Scalars) -> Iterator[Found]:
    """A global scale of compressed-tensors is zero, negative, subnormal, infinite or NaN, or out of its usual range.

    Why: the engines divide by it, so a zero becomes infinity, and in a mixture of experts the extreme one serves the
    whole layer. Usual are 10 to 1e8 for weights and 0.01 to 1e7 for activations; outside it is a warning.
    Fix: calibrate again with data that reaches the module; keep a dead module unquantized.
    Seen: NVIDIA/TensorRT-LLM PR 16447 and vllm-project/vllm PR 32080 (zero for experts calibration never reached).
    """
    yield from _judge(scalars, *((10, 1e8) if scalars.suffix == "weight_global_scale" else (1e-2, 1e7)))


@rule("SV07", "reciprocal-global-scale", severity=ERROR, engines=ENGINES,
      scope=_kind("weight_scale_2", "weight_global_scale"))  # fmt: skip
def reciprocal_global_scale(scalars: Scalars) -> Iterator[Found]:
    """Global weight scales are the reciprocal of what their name means.

    Why: `weight_scale_2` is multiplied by and far below 1, `weight_global_scale` is divided by and far above 1. A
    mix-up is a factor of millions, and no loader notices.
    Fix: invert the numbers, or export again in one layout.
    Seen: modular/modular issue 6600; ggml-org/llama.cpp PR 21095; FlashML-org/FreeToken PR 430.
    """
    good = _good(scalars.values)
    if not good.any():
        return
    small = scalars.suffix == "weight_scale_2"
    logs = np.where(good, np.log2(np.where(good, scalars.values, 1).astype(np.float64)), 0) * (1 if small else -1)
    middle = float(np.median(logs[good]))
    side = "below" if small else "above"
    if middle >= 0:
        ref = scalars.refs[int(np.argmax(good))]
        median = 2 ** (middle if small else -middle)
        message = (
            f"The median of {len(scalars.refs):,} {scalars.suffix} is {median:.6g} and must lie far {side} 1; write "
            "their reciprocals."
        )
        yield Found(message, file=ref.shard, tensor=ref.name)
        return
    turned = good & (logs > 0) & (np.abs(logs + middle) < 10)
    for at in np.flatnonzero(turned):
        ref, value = scalars.refs[at], float(scalars.values[at])
        message = f"{ref.name} is {value:.6g}; its reciprocal {1 / value:.6g} is what the others are like. Write that."
        yield Found(message, file=ref.shard, tensor=ref.name)


@rule("SV08", "bad-input-scale", severity=ERROR, engines=ENGINES, scope=_kind("input_scale", "input_scale_2"))
def bad_input_scale(scalars: Scalars) -> Iterator[Found]:
    """An activation scale is zero, negative, subnormal, infinite or NaN; outside 1e-7 to 100 it is a warning.

    Why: the engines divide activations by it; in a mixture of experts the largest one serves the whole layer.
    Fix: calibrate again with data that reaches the module.
    Seen: vllm-project/vllm issue 45212 (experts that calibration never reached).
    """
    yield from _judge(scalars, 1e-7, 1e2)


@rule("SV09", "never-calibrated", severity=WARNING, engines=("vllm", "sglang", "tensorrt-llm"),
      scope=_kind("input_scale"))  # fmt: skip
def never_calibrated(scalars: Scalars) -> Iterator[Found]:
    """An activation scale is 0.5/2688, what modelopt writes where no activation was seen; above 1 % it is an error.

    Why: activations above 0.5 are cut off in these modules, mostly experts that the calibration data never reached.
    Fix: calibrate with more and more varied text, or route all tokens to all experts while calibrating.
    Seen: modelopt `export/layer_utils.py`; NVIDIA/Model-Optimizer PR 785 (Kimi K2 calibrated with 20 samples).
    """
    places = np.flatnonzero(scalars.values == BACKSTOP)
    if len(places):
        ref, share = scalars.refs[places[0]], len(places) / len(scalars.refs)
        message = (
            f"{len(places):,} of {len(scalars.refs):,} modules ({share:.2%}) have the input_scale of a module that was "
            f"never calibrated, {BACKSTOP:.8g}, the first is {ref.name}; calibrate with more data."
        )
        yield Found(message, file=ref.shard, tensor=ref.name, severity=ERROR if share > 0.01 else None)


@rule("SV10", "one-input-scale-for-all-experts", severity=INFO,
      scope=Scope("input_scale of an expert", lambda scalars: scalars.suffix == "input_scale"
                  and any(".experts." in ref.name for ref in scalars.refs)))  # fmt: skip
def one_input_scale_for_all_experts(scalars: Scalars) -> Iterator[Found]:
    """All experts of a layer have the same activation scale, bit for bit.

    Why: the producer has set one for all, as engines would; how well each expert was calibrated can no longer be seen.
    A scale of exactly 1.0, which some recipes fix, is not reported.
    Fix: nothing, where that was intended.
    Seen: modelopt `export/layer_utils.py` (the largest of the layer's experts, or a substitute, for all).
    """
    layers: dict[tuple[str, str], list[int]] = {}
    for at, ref in enumerate(scalars.refs):
        match = _EXPERT.fullmatch(ref.name)
        if match is not None:
            layers.setdefault((match[1], match[2]), []).append(at)
    several = [places for places in layers.values() if len(places) > 1]
    same = [places for places in several if _equal(scalars.values[places])]
    if same:
        ref = scalars.refs[same[0][0]]
        message = (
            f"In {len(same):,} of {len(several):,} layers and projections all experts share one input_scale, such as "
            f"{scalars.values[same[0][0]]:.6g} of {ref.name}; nothing needs to be done where that is meant."
        )
        yield Found(message, file=ref.shard, tensor=ref.name)


def _equal(values: npt.NDArray[np.float32]) -> bool:
    return values[0] not in (PINNED, BACKSTOP) and len(np.unique(values.view(np.uint32))) == 1


@rule("SV16", "bad-pre-quant-scale", severity=ERROR, engines=SMOOTHERS)
def bad_pre_quant_scale(smoothings: Smoothings) -> Iterator[Found]:
    """A `pre_quant_scale` holds a number that is not finite and positive, or has not one number per input.

    Why: activations are multiplied by it before they are quantized; one bad number spoils its input for every token.
    Fix: quantize again with AWQ's smoothing bounded away from zero.
    Seen: SGLang `modelopt_quant.py` takes the vector as it is.
    """
    for name, vector in smoothings.vectors.items():
        ref = vector.ref
        if vector.bad:
            message = (
                f"{vector.bad:,} of {ref.elements:,} numbers of {ref.name} are not finite and positive, the first at "
                f"[{vector.first}]; quantize again."
            )
            yield Found(message, file=ref.shard, tensor=ref.name, index=(vector.first or 0,))
        inputs = _inputs(smoothings, name)
        if inputs is not None and ref.shape != (inputs,):
            message = f"{ref.name} has shape {list(ref.shape)} and the module {inputs:,} inputs; export it again."
            yield Found(message, file=ref.shard, tensor=ref.name)


def _inputs(smoothings: Smoothings, name: str) -> int | None:
    """A module's input length by its block scales, or by its payload."""
    module = smoothings.checkpoint.modules[name]
    scales, weight = module.tensors.get("weight_scale"), module.weight
    if scales is not None and scales.dtype == "F8_E4M3" and len(scales.shape) == 2:
        return scales.shape[1] * BLOCK["nvfp4"]
    return weight.shape[1] * (2 if weight.dtype == "U8" else 1) if weight and len(weight.shape) == 2 else None
