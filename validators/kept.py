"""NM: what must stay as it was: routers, heads, embeddings, norms, towers, biases, prediction layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import PLAIN, SCALE_SUFFIXES, Modules

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
SCALES = frozenset(SCALE_SUFFIXES)


def _at(module: Module) -> dict[str, Any]:
    return {"file": module.ref.shard, "tensor": module.ref.name}


@rule(
    "NM10",
    "quantized-router",
    severity=ERROR,
    refuses=LOADERS,
    scope=Scope("router", lambda modules: any(m.role == "router" for m in modules.checkpoint.modules.values())),
)
def quantized_router(modules: Modules) -> Iterator[Found]:
    """A mixture's router is packed, carries scales, or has not one row per expert.

    Why: every engine builds the router unquantized and cannot load anything else.
    Fix: exclude the routers (`*.mlp.gate`) and quantize again.
    Seen: Quark's file-to-file mode quantizes them unless told not to; vllm-project/llm-compressor issue 2714.
    """
    count = modules.expert_count
    for module in modules.checkpoint.modules.values():
        weight = module.weight
        if module.role != "router" or (weight is None and SCALES.isdisjoint(module.tensors)):
            continue
        scales = sorted(SCALES & module.tensors.keys())
        if weight is None or weight.dtype not in PLAIN or scales:
            stored = f"{weight.dtype}" if weight is not None else "no weight"
            message = f"The router {module.name} is stored as {stored}" + (f" with {', '.join(scales)}" * bool(scales))
            yield Found(message + "; keep it in the source's dtype.", **_at(module))
        elif count is not None and module.name.endswith((".gate", ".router")) and weight.shape[:1] != (count,):
            message = (
                f"The router {module.name} has shape {list(weight.shape)} for {count} experts; compare the source."
            )
            yield Found(message, **_at(module))


KEPT = {
    "head": "output head",
    "embedding": "embedding",
    "norm": "norm",
    "vision": "vision tower",
    "projector": "projector",
}


@rule("NM11", "quantized-by-mistake", severity=ERROR, engines=LOADERS)
def quantized_by_mistake(modules: Modules) -> Iterator[Found]:
    """A head, embedding, norm, bias, vision or projector layer is quantized, or a routing bias lost its precision.

    Why: engines build these layers unquantized; a routing bias rounded to BF16 changes which experts are chosen.
    Fix: exclude the layer, or waive this rule where the recipe means it.
    Seen: sgl-project/sglang issue 35358 (quantized head); NVIDIA-NeMo/Automodel issue 2553 (rounded routing bias).
    """
    for module in modules.packed:
        if module.role in KEPT:
            message = f"The {KEPT[module.role]} {module.name} is quantized; exclude it and quantize again."
            refuses = tuple(engine for engine in LOADERS if (module.role, engine) != ("head", "vllm"))
            yield Found(message, **_at(module), refuses=refuses)
    for module in modules.checkpoint.modules.values():
        bias = module.tensors.get("bias")
        if bias is not None and bias.dtype not in PLAIN:
            yield Found(
                f"{bias.name} is {bias.dtype[:20]}; keep biases unquantized.", file=bias.shard, tensor=bias.name
            )
        routing = module.tensors.get("e_score_correction_bias")
        if routing is not None and routing.dtype != "F32":
            yield from _rounded(modules, routing)


def _rounded(modules: Modules, routing: TensorRef) -> Iterator[Found]:
    """A routing bias in fewer bits than the source has, or than F32 where the source is not at hand to ask."""
    original = modules.source.tensors.get(routing.name) if modules.source is not None else None
    stored = routing.dtype[:20]
    if original is not None and original.dtype != routing.dtype:
        message = f"{routing.name} is {stored}, not {original.dtype[:20]}; copy it from the source."
        yield Found(message, file=routing.shard, tensor=routing.name)
    elif original is None:
        packed = routing.dtype not in PLAIN
        severity, engines = (ERROR, LOADERS) if packed else (WARNING, ())
        message = f"{routing.name} is {stored}, not F32 as most models have it; compare with the source (--source)."
        yield Found(message, file=routing.shard, tensor=routing.name, severity=severity, engines=engines)


# --- heads ---------------------------------------------------------------------------------------------------------


def _generates(modules: Modules) -> bool:
    """Whether config.json says that the model has a head, and whether head and embedding are one."""
    classes = modules.checkpoint.config.get("architectures")
    names = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    return _tied(modules) is not None and any(n.endswith(("ForCausalLM", "ForConditionalGeneration")) for n in names)


def _tied(modules: Modules) -> bool | None:
    """What config.json says; nothing where a wrapper and its language model contradict each other."""
    places = (modules.text, modules.checkpoint.config)
    values = {value for place in places if isinstance(value := place.get("tie_word_embeddings"), bool)}
    return values.pop() if len(values) == 1 else None


@rule(
    "NM16",
    "tied-head-disagrees",
    severity=WARNING,
    engines=("vllm", "sglang"),
    scope=Scope("statement whether head and embedding are tied", _generates),
)
def tied_head_disagrees(modules: Modules) -> Iterator[Found]:
    """config.json ties the head to the embedding and a head is stored, or unties them and none is.

    Why: loaders ignore a stored head they believe tied, or stop at its scales, and gigabytes are carried for nothing;
    a head that is neither tied nor stored is uninitialised memory.
    Fix: leave the head out where it is tied; restore it from the source where it is not.
    Seen: sgl-project/sglang issue 2935; vllm-project/vllm issue 45543; vllm-project/llm-compressor PR 2835.
    """
    table = modules.checkpoint.modules
    heads = [m for m in table.values() if m.role == "head" and m.weight is not None and not modules.predicts(m.name)]
    if _tied(modules):
        for module in heads:
            original = modules.source.modules.get(module.name) if modules.source is not None else None
            if original is None or original.weight is None:
                message = f"{module.name} is stored although tie_word_embeddings is true; leave it out."
                packed = not SCALES.isdisjoint(module.tensors)
                yield Found(message, **_at(module), severity=ERROR if packed else WARNING)
    elif not heads and _stored(modules, "embedding") and (modules.source is None or _stored(modules, "head", True)):
        message = "tie_word_embeddings is false and no output head is stored; copy it from the source."
        yield Found(message, file="config.json", severity=ERROR)


def _stored(modules: Modules, role: str, source: bool = False) -> bool:
    """Whether a module of this role has a weight, here or in the source."""
    table = modules.source.modules if source and modules.source is not None else modules.checkpoint.modules
    return any(module.role == role and module.weight is not None for module in table.values())


# --- prediction layers ---------------------------------------------------------------------------------------------

COUNTS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "mtp_num_layers")
# Engines build these parts of a prediction layer unquantized whatever the list says.
UNLISTED = frozenset({"eh_proj", "e_proj", "h_proj", "head", "embed_tokens"})


def _promised(modules: Modules) -> int:
    counts = (modules.text.get(key) for key in COUNTS)
    return next((count for count in counts if type(count) is int and 0 < count < 1000), 0)


@rule(
    "NM17",
    "prediction-layer-undeclared",
    severity=WARNING,
    engines=("vllm", "sglang"),
    scope=Scope("prediction layer", lambda modules: bool(_promised(modules) or modules.predicting)),
)
def prediction_layer_undeclared(modules: Modules) -> Iterator[Found]:
    """A prediction layer (MTP, nextn) is promised and not stored, or holds plain linears that nothing excludes.

    Why: speculative decoding accepts nothing without its layer; with one that is plain but not excluded the engine
    builds packed weights and stops at a size mismatch, though the model alone loads.
    Fix: copy the layer from the source and exclude all of it (`model.layers.61*`, `mtp*`), or quantize all of it.
    Seen: vllm-project/vllm PR 49187 (size mismatch), PR 35548 (tensors dropped), issue 35031 (`mtp.fc` not covered).
    """
    if not modules.predicting:
        source = Modules(modules.source).predicting if modules.source is not None else None
        if source is None or source:
            layers = f"{_promised(modules):,} prediction layer" + "s" * (_promised(modules) > 1)
            message = f"config.json promises {layers} and no tensor of one is stored; copy them from the source."
            yield Found(message, file="config.json")
        return
    table = modules.checkpoint.modules.values()
    plain = [module for module in table if _buildable(module) and modules.predicts(module.name)]
    excluded = modules.excluded([module.name for module in plain])
    left = [module for module in plain if module.name not in excluded]
    if left and modules.quant is not None:
        message = (
            f"{len(left):,} linear layers of prediction layers are plain and not excluded, such as {left[0].name}; "
            "exclude the whole layer."
        )
        yield Found(message, **_at(left[0]))


def _buildable(module: Module) -> bool:
    """Whether an engine would build this plain layer packed unless it is excluded."""
    weight, last = module.weight, module.name.rpartition(".")[2]
    plain = weight is not None and weight.dtype in PLAIN and len(weight.shape) == 2
    return plain and module.role not in {"norm", "embedding", "head", "router"} and last not in UNLISTED


# --- vectors -------------------------------------------------------------------------------------------------------


@rule("NM18", "quantized-vector", severity=ERROR, refuses=ENGINES)
def quantized_vector(modules: Modules) -> Iterator[Found]:
    """A tensor of one dimension is quantized.

    Why: norms and biases are added or multiplied as they stand; no engine unpacks them.
    Fix: exclude the layer by name; a tool that goes by the suffix `.weight` takes norms with unusual names for linears.
    Seen: Quark's file-to-file mode before 0.13 looked at names only (`norm0`, `ln_1`).
    """
    for module in modules.packed:
        weight = module.weight
        original = modules.source.modules.get(module.name) if modules.source is not None else None
        flat = original is not None and original.weight is not None and len(original.weight.shape) == 1
        if weight is not None and weight.dtype not in PLAIN and (len(weight.shape) == 1 or flat):
            message = f"{weight.name} is a quantized vector of shape {list(weight.shape)}; copy it from the source."
            yield Found(message, **_at(module))


# --- smoothing -----------------------------------------------------------------------------------------------------


@rule(
    "NM22",
    "uneven-smoothing",
    severity=ERROR,
    engines=("sglang", "tensorrt-llm"),
    scope=Scope(
        "smoothing vector", lambda modules: any("pre_quant_scale" in module.tensors for module in modules.packed)
    ),
)
def uneven_smoothing(modules: Modules) -> Iterator[Found]:
    """Some layers of a class have a `pre_quant_scale` and others of the same class have none.

    Why: an engine builds a mixture's experts alike and leaves a missing vector uninitialised; the weights it belongs
    to were divided by it.
    Fix: export again; a smoothing vector is folded into the layer before everywhere or nowhere.
    Seen: vllm-project/vllm-omni PR 5087; NVIDIA/Model-Optimizer PR 1354.
    """
    smooth: dict[str, list[Module]] = {}
    bare: dict[str, list[Module]] = {}
    for module in modules.packed:
        (smooth if "pre_quant_scale" in module.tensors else bare).setdefault(module.kind, []).append(module)
    for kind in sorted(smooth.keys() & bare.keys()):
        lost, total = bare[kind], len(bare[kind]) + len(smooth[kind])
        message = (
            f"{len(lost):,} of {total:,} layers {kind} have no pre_quant_scale, the first is {lost[0].name}; export "
            "them again."
        )
        yield Found(message, **_at(lost[0]))
