"""KV: what is declared about the key-value cache, and whether the scales stored agree with it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import Modules


def _group(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Quark's `export.kv_cache_group`."""
    export = raw.get("export")
    group = export.get("kv_cache_group") if isinstance(export, Mapping) else None
    return tuple(name for name in group if isinstance(name, str)) if isinstance(group, list) else ()


def _static(modules: Modules) -> bool:
    """Whether the declaration promises scales: Quark and compressed-tensors do, modelopt may have cast."""
    quant = modules.quant
    if quant is None or quant.dialect not in ("quark", "compressed-tensors"):
        return False
    scheme = quant.raw.get("kv_cache_scheme")
    return _group(quant.raw) != () or (isinstance(scheme, Mapping) and scheme.get("dynamic") is not True)


@rule(
    "KV04",
    "kv-scales-undeclared",
    severity=WARNING,
    engines=("vllm", "sglang"),
    scope=Scope("scale of the key-value cache, or promise of one", lambda m: bool(m.cache_scales) or _static(m)),
)
def kv_scales_undeclared(modules: Modules) -> Iterator[Found]:
    """Scales of the key-value cache are stored and no format is declared, or a calibrated one is and none is stored.

    Why: undeclared scales are never used or stop the loader; declared ones that are missing become 1.
    Fix: declare the cache (`kv_cache_scheme`, `kv_cache_quant_algo`, `kv_cache_group`) where its scales are stored.
    Seen: vllm-project/vllm issue 25047; vllm-project/llm-compressor issue 2494 (models with merged qkv get none).
    """
    declarations = modules.checkpoint.declarations
    if not modules.cache_scales:
        yield Found("A calibrated key-value cache is declared and no scale of it is stored; export the scales.")
        return
    silent = [quant.origin for quant in declarations if quant.kv_cache is None and not _group(quant.raw)]
    if silent or not declarations:
        where = " and ".join(silent) or "config.json"
        declare = "declare" if len(silent) > 1 else "declares"
        message = f"Scales of the key-value cache are stored, but {where} {declare} no cache format; declare it."
        first = modules.cache_scales[0]
        yield Found(message, file=first.shard, tensor=first.name)


def _grouped(modules: Modules) -> bool:
    return modules.quant is not None and modules.quant.dialect == "quark" and bool(_group(modules.quant.raw))


@rule(
    "KV06",
    "broken-kv-group",
    severity=ERROR,
    refuses=("vllm", "sglang"),
    scope=Scope("Quark cache group", _grouped),
)
def broken_kv_group(modules: Modules) -> Iterator[Found]:
    """Quark's `kv_cache_group` names no key of `layer_quant_config`, or the outputs there are not alike in FP8.

    Why: loaders take the cache's format from those layers' `output_tensors` and stop when there is none or two.
    Fix: write one entry per name of the group, each with the same `output_tensors`: fp8_e4m3, per_tensor.
    Seen: vLLM `quark/quark.py` and SGLang `quark/quark.py`, `from_config`.
    """
    raw = modules.quant.raw if modules.quant is not None else {}
    layers = raw.get("layer_quant_config")
    layers = layers if isinstance(layers, Mapping) else {}
    group, specs = _group(raw), []
    for name in group:
        if name not in layers:
            loose = any(fnmatch.fnmatchcase(str(key)[:500], name[:500]) for key in layers)
            yield Found(
                f"kv_cache_group names {name[:80]!r}, which is no key of layer_quant_config; add it.",
                file="config.json",
                engines=(),
                refuses=("sglang",) if loose else ("vllm", "sglang"),
            )
            continue
        output = layers[name].get("output_tensors") if isinstance(layers[name], Mapping) else None
        specs.append(output)
        if not (
            isinstance(output, Mapping) and output.get("dtype") == "fp8_e4m3" and output.get("qscheme") == "per_tensor"
        ):
            message = f"layer_quant_config[{name[:80]!r}].output_tensors is not fp8_e4m3 per_tensor; write it so."
            yield Found(message, file="config.json")
    if any(spec != specs[0] for spec in specs):
        yield Found("The output_tensors of the kv_cache_group differ; write them alike.", file="config.json")


def _scheme(modules: Modules) -> bool:
    quant = modules.quant
    return quant is not None and quant.dialect == "compressed-tensors" and quant.raw.get("kv_cache_scheme") is not None


@rule(
    "KV07",
    "unsupported-kv-scheme",
    severity=ERROR,
    refuses=("vllm",),
    scope=Scope("compressed-tensors cache scheme", _scheme),
)
def unsupported_kv_scheme(modules: Modules) -> Iterator[Found]:
    """A compressed-tensors `kv_cache_scheme` is not symmetric FP8 per tensor or per attention head.

    Why: vLLM raises for anything else.
    Fix: calibrate the cache as `{"type": "float", "num_bits": 8, "strategy": "tensor", "symmetric": true}`.
    Seen: vLLM `compressed_tensors.py`, `CompressedTensorsKVCacheMethod`.
    """
    scheme = modules.quant.raw.get("kv_cache_scheme") if modules.quant is not None else None
    if not isinstance(scheme, Mapping):
        yield Found(f"kv_cache_scheme is a {type(scheme).__name__}, not an object; write it again.", file="config.json")
        return
    wanted = {"type": ("float",), "num_bits": (8,), "strategy": ("tensor", "attn_head"), "symmetric": (True,)}
    for key, allowed in wanted.items():
        value = scheme.get(key, True if key == "symmetric" else None)
        if not any(type(value) is type(one) and value == one for one in allowed):
            message = (
                f"kv_cache_scheme has {key} {str(value)[:40]!r}; vLLM takes {' or '.join(map(str, allowed))} only."
            )
            yield Found(message, file="config.json")


@rule(
    "KV08",
    "kv-scales-of-latent-attention",
    severity=WARNING,
    engines=("vllm",),
    scope=Scope("scale of a latent attention's cache", lambda modules: bool(modules.cache_scales) and modules.latent),
)
def kv_scales_of_latent_attention(modules: Modules) -> Iterator[Found]:
    """A model with latent attention (MLA) stores cache scales that vLLM does not read under this declaration.

    Why: under mixed precision and compressed-tensors vLLM gives the cache method to ordinary attention only, so the
    scales are dropped and 1 is used.
    Fix: say on the card that the cache is cast, or leave the scales out.
    Seen: vLLM `modelopt.py` and `compressed_tensors.py` (`Attention`, not `MLAAttention`).
    """
    quant = modules.quant
    if quant is not None and (quant.format == "mixed" or quant.dialect == "compressed-tensors"):
        refs = modules.cache_scales
        message = f"vLLM ignores the {len(refs):,} cache scales of this latent attention; say so or leave them out."
        yield Found(message, file=refs[0].shard, tensor=refs[0].name)


def _nvfp4_cache(modules: Modules) -> bool:
    return any(quant.dialect == "modelopt" and quant.kv_cache == "nvfp4" for quant in modules.checkpoint.declarations)


@rule(
    "KV09",
    "nvfp4-kv-cache",
    severity=WARNING,
    engines=("vllm",),
    scope=Scope(
        "declaration of a key-value cache", lambda modules: any(q.kv_cache for q in modules.checkpoint.declarations)
    ),
)
def nvfp4_kv_cache(modules: Modules) -> Iterator[Found]:
    """The key-value cache is declared NVFP4.

    Why: config.json can only say so as a string, which vLLM drops without a word: the cache keeps 16 bits.
    Fix: declare an FP8 cache, or say on the card which engine serves NVFP4.
    Seen: vLLM `modelopt.py` (`kv_cache_scheme` counts as a mapping only).
    """
    if _nvfp4_cache(modules):
        yield Found(
            "The key-value cache is declared NVFP4, which vLLM drops; declare FP8, or name the engine.",
            file="config.json",
        )
