"""FU: what an engine builds as one layer must be quantized alike: experts, merged projections, the indexer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.checkpoint.modules import Module
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import PLAIN, Modules

FUSED = frozenset({"qkv_proj", "gate_up_proj", "query_key_value", "W_pack", "c_attn", "Wqkv", "fused_qkv_a_proj"})
GLOBALS = ("weight_scale_2", "weight_global_scale", "input_scale", "input_global_scale")


def _scheme(module: Module) -> str:
    """How a layer is stored: its payload's dtype and the scales beside it."""
    weight = module.weight
    if weight is None or weight.dtype in PLAIN:
        return "16 bits" if weight is not None else "no weight"
    four = weight.dtype in {"U8", "F4", "I8"}
    second = "weight_scale_2" in module.tensors or "weight_global_scale" in module.tensors
    form = ("NVFP4" if second else "MXFP4") if four else weight.dtype[:20]
    inputs = any(suffix.startswith("input_") for suffix in module.tensors)
    return f"{form} with activation scales" if inputs else form


def _compressed(modules: Modules) -> bool:
    return bool(modules.experts) and modules.quant is not None and modules.quant.dialect == "compressed-tensors"


@rule(
    "FU07",
    "experts-unlike-the-first",
    severity=ERROR,
    engines=("vllm",),
    scope=Scope("numbered expert of a compressed-tensors checkpoint", _compressed),
)
def experts_unlike_the_first(modules: Modules) -> Iterator[Found]:
    """Experts of a layer are stored otherwise than expert 0.

    Why: vLLM looks at expert 0 and builds all of the layer like it; the others' tensors are converted or stay
    uninitialised.
    Fix: quantize all experts of a layer alike, or none of them.
    Seen: vLLM `compressed_tensors_moe.py` (the scheme of expert 0's three projections).
    """
    for name, experts in modules.experts.items():
        first = {_scheme(module) for module in experts.get(0, {}).values()}
        other = [n for n, projections in experts.items() if {_scheme(m) for m in projections.values()} != first]
        if first and (other or len(first) > 1):
            odd = min(other) if other else 0
            schemes = ", ".join(sorted({_scheme(module) for module in experts[odd].values()}))
            message = (
                f"{len(other):,} of {len(experts):,} experts of {name} are stored otherwise than expert 0 "
                f"({', '.join(sorted(first))}), such as {odd} ({schemes}); quantize them alike."
            )
            if not other:
                message = f"The projections of {name}.0 are stored in several ways ({schemes}); quantize them alike."
            module = next(iter(experts[odd].values()))
            yield Found(message, file=module.ref.shard, tensor=module.name)


def _mixed(modules: Modules) -> bool:
    quant = modules.quant
    return bool(modules.experts) and quant is not None and quant.dialect == "modelopt" and quant.format == "mixed"


@rule(
    "FU10",
    "experts-of-several-formats",
    severity=ERROR,
    engines=("vllm", "sglang", "tensorrt-llm"),
    scope=Scope("numbered expert of a mixed-precision checkpoint", _mixed),
)
def experts_of_several_formats(modules: Modules) -> Iterator[Found]:
    """A mixed-precision checkpoint gives the routed experts of one layer several algorithms.

    Why: engines look the layer up by its prefix, take the first entry they find and build all experts for it.
    Fix: give all experts of a layer one algorithm.
    Seen: vLLM `modelopt.py` (prefix lookup in `quantized_layers`); vllm-project/vllm PR 57071.
    """
    declared = _declared(modules.quant.raw if modules.quant is not None else {})
    for name, experts in modules.experts.items():
        stored = Counter(_scheme(module) for projections in experts.values() for module in projections.values())
        formats = {scheme.partition(" ")[0] for scheme in stored if scheme not in ("16 bits", "no weight")}
        algos = declared.get(name, set())
        if len(algos) > 1:
            message = f"{name} is declared {' and '.join(sorted(algos))}; give all its experts one algorithm."
            yield Found(message, tensor=name)
        elif len(formats) > 1:
            counts = ", ".join(f"{count:,} {scheme}" for scheme, count in stored.most_common())
            yield Found(f"The experts of {name} are stored in several formats ({counts}); use one.", tensor=name)


def _declared(raw: Mapping[str, Any]) -> dict[str, set[str]]:
    """The algorithms `quantized_layers` names below each `experts` module."""
    body = raw.get("quantization")
    layers = (body if isinstance(body, Mapping) else raw).get("quantized_layers")
    found: dict[str, set[str]] = {}
    for name, spec in layers.items() if isinstance(layers, Mapping) else ():
        head, mark, _ = str(name).rpartition(".experts.")
        algo = spec.get("quant_algo") if isinstance(spec, Mapping) else None
        if mark and isinstance(algo, str):
            found.setdefault(f"{head}.experts", set()).add(algo[:40])
    return found


def _merged(modules: Modules) -> Iterator[Module]:
    for module in modules.packed:
        if module.name.rpartition(".")[2] in FUSED:
            yield module


@rule(
    "FU12",
    "merged-with-one-scale",
    severity=WARNING,
    engines=("sglang",),
    scope=Scope("projection stored merged", lambda modules: next(_merged(modules), None) is not None),
)
def merged_with_one_scale(modules: Modules) -> Iterator[Found]:
    """A projection that the model stores merged (`qkv_proj`, `gate_up_proj`) has one global scale for its parts.

    Why: SGLang before June 2026 wrote that scale into the first part's slot and left the others at their start value.
    Fix: name a newer SGLang on the card, or store the parts apart, each with the same scale.
    Seen: sgl-project/sglang PR 29151 (nvidia/Phi-4-reasoning-plus-NVFP4: GSM8K 0.005 before, 0.945 after).
    """
    merged = [module for module in _merged(modules) if not module.tensors.keys().isdisjoint(GLOBALS)]
    if merged:
        message = (
            f"{len(merged):,} merged projections have one global scale, such as {merged[0].name}; older SGLang reads "
            "it for the first part only."
        )
        yield Found(message, file=merged[0].ref.shard, tensor=merged[0].ref.name)


def _indexers(modules: Modules) -> Iterator[tuple[Module, Module]]:
    """The pairs of indexer projections that engines fuse."""
    for name, module in modules.checkpoint.modules.items():
        peer = modules.checkpoint.modules.get(f"{name[:-3]}.weights_proj") if name.endswith(".indexer.wk") else None
        if peer is not None:
            yield module, peer


@rule(
    "FU13",
    "half-quantized-indexer",
    severity=WARNING,
    engines=("vllm", "tensorrt-llm"),
    scope=Scope("sparse-attention indexer", lambda modules: next(_indexers(modules), None) is not None),
)
def half_quantized_indexer(modules: Modules) -> Iterator[Found]:
    """Of an indexer's `wk` and `weights_proj`, which engines fuse, one is quantized and the other is not.

    Why: the fused layer has one format; a scale without a slot is a KeyError or is dropped.
    Fix: exclude both, or leave both as the source has them.
    Seen: NVIDIA/TensorRT-LLM issue 18658; vllm-project/vllm PR 38870.
    """
    for one, two in _indexers(modules):
        kept = modules.source is not None and all(_same(modules, module) for module in (one, two))
        if _scheme(one) != _scheme(two) and not kept:
            message = f"{one.name} is stored in {_scheme(one)}, {two.name} in {_scheme(two)}; keep both in one format."
            yield Found(message, file=one.ref.shard, tensor=one.name)


def _same(modules: Modules, module: Module) -> bool:
    """Whether the source stores a module the same way."""
    original = modules.source.modules.get(module.name) if modules.source is not None else None
    return original is not None and _scheme(original) == _scheme(module)
