"""KV: scales of the key-value cache as they are stored: complete, sound, named as engines look for them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from publisher import jsonio
from publisher.checkpoint.header import TensorRef
from publisher.findings import ERROR, INFO, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import CACHE_SCALARS, Modules, Scalars

CACHE = frozenset(CACHE_SCALARS)
LATENT = "kv_a_proj_with_mqa"
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class _Attention:
    """One attention layer: its projections by last name part, and the tensors of its cache's scales by key or value."""

    projections: set[str] = field(default_factory=set)
    keys: list[TensorRef] = field(default_factory=list)
    values: list[TensorRef] = field(default_factory=list)


def _facts() -> Mapping[str, Any]:
    facts: Mapping[str, Any] = jsonio.data("architectures/kvscales.json")
    return facts


@functools.cache
def _pattern() -> re.Pattern[str]:
    stems = "|".join(map(re.escape, _facts()["attention"]))
    return re.compile(rf"(.*?\.(?:{stems}))(?:\.(.+))?$")


def _split(module: str) -> tuple[str, str] | None:
    """The attention layer a module belongs to, and the rest of its name; None for other modules."""
    match = _pattern().match(module)
    return (match.group(1), match.group(2) or "") if match else None


def _attentions(modules: Modules) -> dict[str, _Attention]:
    """Attention layers by name, in name order; a scale under a name nobody reads belongs to none."""
    found: dict[str, _Attention] = {}
    keys, values = frozenset(_facts()["keys"]), frozenset(_facts()["values"])
    for name, module in modules.checkpoint.modules.items():
        place = _split(name) if module.role == "attention" else None
        if place is None:
            continue
        layer, part = found.setdefault(place[0], _Attention()), place[1]
        if module.weight is not None:
            layer.projections.add(part)
        for suffix in sorted(CACHE & module.tensors.keys()):
            layer.keys.extend([module.tensors[suffix]] * (f"{part}.{suffix}" in keys))
            layer.values.extend([module.tensors[suffix]] * (f"{part}.{suffix}" in values))
    return found


STORED = Scope("scale of the key-value cache", lambda modules: bool(modules.cache_scales))


# --- completeness ---------------------------------------------------------------------------------------------------


@rule("KV01", "incomplete-kv-scales", severity=ERROR, engines=("vllm", "sglang"), scope=STORED)
def incomplete_kv_scales(modules: Modules) -> Iterator[Found]:
    """A layer has a key scale and no value scale or the other way round, or some layers have both and others none.

    Why: vLLM stops at a value scale without a key scale, TensorRT-LLM at a key scale without a value scale; a layer
    without any runs with scale 1 and says so in one log line.
    Fix: export the cache's scales of every layer, or remove them all and declare nothing calibrated.
    Seen: vLLM `layers/quantization/kv_cache.py`; vllm-project/vllm issue 54623 (32 scales dropped).
    """
    layers = _attentions(modules)
    scaled = {name for name, layer in layers.items() if layer.keys or layer.values}
    for name in sorted(scaled):
        layer = layers[name]
        if not (layer.keys and layer.values):
            have, lost = ("key", "value") if layer.keys else ("value", "key")
            ref = (layer.keys or layer.values)[0]
            yield Found(
                f"{name} has a {have} scale and no {lost} scale; export the layer's scales again.",
                file=ref.shard,
                tensor=ref.name,
                engines=("sglang",) if lost == "key" else ("vllm", "sglang"),
                refuses=("vllm",) if lost == "key" else ("tensorrt-llm",),
            )
    caching = frozenset(_facts()["caching"])
    bare = [n for n, layer in layers.items() if n not in scaled and layer.projections & caching]
    bare = [name for name in bare if not modules.predicts(name)]
    if scaled and bare:
        total = len(scaled) + len(bare)
        message = f"{len(bare):,} of {total:,} attention layers have no scales of their cache, the first is {bare[0]}"
        yield Found(f"{message}; export all or none.", tensor=bare[0])


def _suffixes(*suffixes: str) -> Scope:
    return Scope("scale of the key-value cache", lambda scalars: scalars.suffix in suffixes)


@rule("KV02", "bad-kv-scale", severity=ERROR, refuses=("vllm",), engines=("sglang",), scope=_suffixes(*CACHE_SCALARS))
def bad_kv_scale(scalars: Scalars) -> Iterator[Found]:
    """A scale of the key-value cache is zero, negative, subnormal, infinite or NaN.

    Why: vLLM stops at it; elsewhere every cached key or value is divided by it.
    Fix: calibrate the cache again, or remove all its scales and let the engines use 1.
    Seen: vLLM `layers/quantization/kv_cache.py` (both above zero or both absent).
    """
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(scalars.values) & (scalars.values >= TINY))
    for at in np.flatnonzero(bad):
        ref = scalars.refs[at]
        message = f"{ref.name} is {scalars.values[at]:.6g}, not a positive normal number; calibrate the cache again."
        yield Found(message, file=ref.shard, tensor=ref.name)


LARGE = 0.5


@rule("KV03", "unusual-kv-scale", severity=WARNING, scope=_suffixes("k_scale", "v_scale", "kv_scale", "output_scale"))
def unusual_kv_scale(scalars: Scalars) -> Iterator[Found]:
    """A scale of the key-value cache is above 0.5, or all of them are exactly 1.

    Why: 0.5 stands for values up to 224, which keys and values hardly reach; 1 everywhere means that nothing was
    calibrated (information only), and the card should say so.
    Fix: look at what calibration saw; leave scales that are all 1 out.
    Seen: modelopt `export/quant_utils.py` warns above 0.5; modelopt 0.41 writes 1.0 where 0.47 writes what it measured.
    """
    if len(scalars.values) and (scalars.values == 1).all():
        message = f"All {len(scalars.values):,} {scalars.suffix} are 1, so the cache is cast, not calibrated; say so."
        yield Found(message, file=scalars.refs[0].shard, tensor=scalars.refs[0].name, severity=INFO)
        return
    cached = np.array([not ref.name.endswith(".q_proj.output_scale") for ref in scalars.refs])  # queries are not
    with np.errstate(invalid="ignore"):
        large = np.flatnonzero(np.isfinite(scalars.values) & (scalars.values > LARGE) & cached)
    if len(large):
        at = int(large[scalars.values[large].argmax()])
        message = (
            f"{len(large):,} of {len(scalars.values):,} {scalars.suffix} are above {LARGE}, the largest is "
            f"{scalars.refs[at].name} with {scalars.values[at]:.4g}; look at the calibration data."
        )
        yield Found(message, file=scalars.refs[at].shard, tensor=scalars.refs[at].name)


# --- names and shapes ------------------------------------------------------------------------------------------


@rule("KV05", "unmapped-kv-scale", severity=ERROR, engines=("vllm", "sglang", "tensorrt-llm"), scope=STORED)
def unmapped_kv_scale(modules: Modules) -> Iterator[Found]:
    """A scale of the key-value cache has a name that engines do not map to their attention layer.

    Why: loaders look for `self_attn.k_proj.k_scale`, `self_attn.k_scale` or Quark's `k_proj.output_scale`; any other
    name is dropped with a warning, and the scale is 1.
    Fix: rename the tensor as the declared method writes it.
    Seen: vLLM `model_loader/weight_utils.py` `maybe_remap_kv_scale_name`; vllm-project/vllm PR 54705.
    """
    facts = _facts()
    known = frozenset((*facts["keys"], *facts["values"], *facts["others"]))
    for ref in modules.cache_scales:
        module, _, suffix = ref.name.rpartition(".")
        place = _split(module)
        if place is None or f"{place[1]}.{suffix}" not in known:
            message = f"{ref.name} is no name an engine looks for; write it as the declared method does."
            yield Found(message, file=ref.shard, tensor=ref.name)


@rule("KV10", "dangling-kv-scale", severity=WARNING, engines=("vllm", "sglang", "tensorrt-llm"), scope=STORED)
def dangling_kv_scale(modules: Modules) -> Iterator[Found]:
    """A scale of the key-value cache stands under a projection that the model does not have.

    Why: engines that look the projection up drop the scale. Latent attention (MLA) has no key projection and its
    scales are named after one all the same; vLLM and SGLang map those names, so they pass.
    Fix: remove the scale, or restore the projection it belongs to.
    Seen: modelopt 0.47 writes `self_attn.k_proj.k_scale` whether the model has a k_proj or not.
    """
    dangling = []
    for name, layer in _attentions(modules).items():
        for ref in (*layer.keys, *layer.values) if LATENT not in layer.projections else ():
            parent = ref.name[len(name) + 1 :].rpartition(".")[0]
            if parent and parent != "attn" and parent not in layer.projections:
                dangling.append(ref)
    if dangling:
        message = (
            f"{len(dangling):,} cache scales stand under projections the model does not have, such as "
            f"{dangling[0].name}; remove them or restore the projections."
        )
        yield Found(message, file=dangling[0].shard, tensor=dangling[0].name)


@rule("KV11", "misshapen-kv-scale", severity=ERROR, refuses=("vllm",), scope=STORED)
def misshapen_kv_scale(modules: Modules) -> Iterator[Found]:
    """A scale of the key-value cache is not one F32 number.

    Why: vLLM asserts a single element, per attention head only where compressed-tensors declares it.
    Fix: store one F32 number with shape [] or [1].
    Seen: vLLM `layers/quantization/kv_cache.py`.
    """
    scheme = modules.quant.raw.get("kv_cache_scheme") if modules.quant is not None else None
    heads = isinstance(scheme, Mapping) and scheme.get("strategy") == "attn_head"
    for ref in modules.cache_scales:
        if ref.dtype != "F32" or (ref.shape not in ((), (1,)) and not heads):
            message = f"{ref.name} is {ref.dtype[:20]} of shape {list(ref.shape)[:8]}, not one F32 number; store one."
            yield Found(message, file=ref.shard, tensor=ref.name)
