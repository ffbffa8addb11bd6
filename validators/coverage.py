"""NM: names, sets, shapes and dtypes of the tensors, and what must never be quantized."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.modules import Module, layer_of
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import BLOCK, SCALARS, SCALE_SUFFIXES, Headers, Modules

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
PLAIN = frozenset({"BF16", "F16", "F32"})
# What may stand beside a quantized weight in any layout.
KV_SCALES = ("k_scale", "v_scale", "k_bias", "v_bias", "q_scale", "output_scale", "prob_output_scale")
BESIDE = frozenset({"bias", "e_score_correction_bias", *KV_SCALES})


def _dialect(name: str) -> Scope:
    return Scope(f"{name} declaration", lambda modules: modules.quant is not None and modules.quant.dialect == name)


PACKED = Scope("FP4 module", lambda modules: bool(modules.packed))


def _at(module: Module) -> dict[str, Any]:
    """Where to point: the weight, or whatever the module has."""
    ref = module.weight or next(iter(module.tensors.values()))
    return {"file": ref.shard, "tensor": ref.name}


def _set(module: Module, needed: set[str], allowed: set[str]) -> Iterator[Found]:
    """A module must have what is needed and may have what is allowed; a surplus input scale is only a warning."""
    have = set(module.tensors)
    lost, surplus = sorted(needed - have), sorted(have - needed - allowed - BESIDE)
    if lost:
        message = f"{module.name} lacks {', '.join(lost)}; write or export the module again."
        yield Found(message, file=_at(module)["file"], tensor=f"{module.name}.{lost[0]}")
    if surplus:
        mild = set(surplus) <= {"input_scale", "input_scale_2"}
        message = f"{module.name} has {', '.join(surplus)}, which its declared format does not use; remove or declare."
        ref = module.tensors[surplus[0]]
        yield Found(message, file=ref.shard, tensor=ref.name, severity=WARNING if mild else ERROR)


@rule("NM01", "broken-modelopt-set", severity=ERROR, engines=LOADERS, scope=_dialect("modelopt"))
def broken_modelopt_set(modules: Modules) -> Iterator[Found]:
    """A quantized module of a modelopt checkpoint lacks a tensor of its set, or has one too many.

    Why: engines do not check that a quantized layer was loaded completely; a missing scale is whatever the memory
    held before.
    Fix: export again; where activations were not calibrated declare W4A16_NVFP4.
    Seen: vllm-project/vllm issue 45212 (input scales missing for four experts of one layer).
    """
    quant = modules.quant
    algo = ((quant.algo if quant else None) or "").upper()
    extra = {"pre_quant_scale"} if algo in ("NVFP4_AWQ", "NVFP4_SVD") else set()
    beside = {"svdquant_lora_a", "svdquant_lora_b"} if algo == "NVFP4_SVD" else set()
    for module in modules.packed:
        form = modules.format_of(module)
        needed = {"weight", "weight_scale"} | extra
        if form == "nvfp4":
            needed |= {"weight_scale_2"} | ({"input_scale"} if quant and quant.activations == "static" else set())
        loose = {"input_scale"} if quant is not None and quant.activations is None else set()
        yield from _set(module, needed, beside | loose)


@rule("NM02", "broken-quark-set", severity=ERROR, engines=("vllm", "sglang", "atom"), scope=_dialect("quark"))
def broken_quark_set(modules: Modules) -> Iterator[Found]:
    """A quantized module of a Quark checkpoint lacks a tensor of its set, or has one too many.

    Why: engines fill what is missing with defaults or with whatever the memory held before.
    Fix: export again.
    Seen: vLLM `quark/schemes/quark_nvfp4.py` and `quark_ocp_mx.py`.
    """
    quant = modules.quant
    for module in modules.packed:
        needed = {"weight", "weight_scale"}
        if modules.format_of(module) == "nvfp4":
            needed |= {"weight_scale_2"} | ({"input_scale_2"} if quant and quant.activations != "none" else set())
        yield from _set(module, needed, set())


@rule("NM04", "wrong-shape", severity=ERROR, engines=ENGINES, scope=PACKED)
def wrong_shape(modules: Modules) -> Iterator[Found]:
    """A packed weight is not (out, in/2), or its block scales are not (out, in/block) in plain rows.

    Why: engines expect unpadded scales in row order and swizzle them themselves; out and in are those of the source,
    or of the configuration where the source is not at hand.
    Fix: export again without padding or swizzling; for a wrong weight compare with the source.
    Seen: NVIDIA/Model-Optimizer PR 2038 (scales computed from packed nibbles had half the columns).
    """
    geometry = _geometry(modules.checkpoint.config)
    for module in modules.packed:
        yield from _shapes(modules, module, geometry)


def _shapes(modules: Modules, module: Module, geometry: Mapping[re.Pattern[str], tuple[int, int]]) -> Iterator[Found]:
    weight, scale, form = module.weight, module.tensors.get("weight_scale"), modules.format_of(module)
    if weight is None:
        return
    if len(weight.shape) != 2:
        message = f"{weight.name} has shape {list(weight.shape)}; a packed weight has two dimensions. Export it again."
        yield Found(message, file=weight.shard, tensor=weight.name)
        return
    rows, columns = weight.shape[0], weight.shape[1] * 2
    expected = _expected(modules, module, geometry)
    if expected is not None and expected[0] != (rows, columns):
        (out, width), where = expected
        message = (
            f"{weight.name} unpacks to {[rows, columns]}, {where} says {[out, width]}; quantize it from the source."
        )
        yield Found(message, file=weight.shard, tensor=weight.name)
    block = BLOCK.get(form or "")
    if scale is None or block is None:
        return
    if columns % block:
        message = f"{weight.name} has {columns:,} inputs, which blocks of {block} do not divide; keep it unquantized."
        yield Found(message, file=weight.shard, tensor=weight.name)
    elif scale.shape != (rows, columns // block):
        message = f"{scale.name} is {list(scale.shape)}, not {[rows, columns // block]}; export it plain and unpadded."
        yield Found(message, file=scale.shard, tensor=scale.name)


def _expected(
    modules: Modules, module: Module, geometry: Mapping[re.Pattern[str], tuple[int, int]]
) -> tuple[tuple[int, ...], str] | None:
    """(out, in) and who says so."""
    original = modules.source.modules.get(module.name) if modules.source else None
    plain = original.weight if original else None
    if plain is not None and len(plain.shape) == 2:
        factor = {"I32": 8, "U8": 2}.get(plain.dtype, 1)
        return (plain.shape[0], plain.shape[1] * factor), "the source"
    for pattern, shape in geometry.items():
        if pattern.search(module.name):
            return shape, "config.json"
    return None


def _geometry(config: Mapping[str, Any]) -> dict[re.Pattern[str], tuple[int, int]]:
    """(out, in) by name pattern, for the model types whose modules are known."""
    data = jsonio.data("architectures/geometry.json")
    text = _text_config(config)
    found: dict[re.Pattern[str], tuple[int, int]] = {}
    for family in data["model_types"].get(str(text.get("model_type")), ()):
        for row in data["linears"][family]:
            out, width = _size(text, row["out"]), _size(text, row["in"])
            if out and width:
                found[re.compile(row["pattern"])] = out, width
    return found


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def _size(config: Mapping[str, Any], keys: list[str]) -> int | None:
    """The product of config keys; None when one is no positive integer."""
    product = 1
    for key in keys:
        value = config.get(key)
        if value is None and key == "num_key_value_heads":
            value = config.get("num_attention_heads")
        if value is None and key == "head_dim":
            hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
            value = hidden // heads if type(hidden) is int and type(heads) is int and heads else None
        if type(value) is not int or value <= 0:
            return None
        product *= value
    return product


@rule("NM05", "wrong-dtype", severity=ERROR, engines=ENGINES, scope=PACKED)
def wrong_dtype(modules: Modules) -> Iterator[Found]:
    """A payload is not U8, a block scale not F8_E4M3 (NVFP4) or U8 (MX), or a scalar not F32.

    Why: loaders convert numbers, so an E4M3 scale typed U8 turns 0x38 into 56.0 without an error. A BF16 global scale,
    as old exports carry, is a warning.
    Fix: write the same bytes under the right dtype, or export again.
    Seen: jundot/omlx PR 2159 (E8M0 scales read as numbers: weights 450,000 times too large).
    """
    for module in modules.packed:
        form = modules.format_of(module)
        wanted = {"weight": "U8", "weight_packed": "U8", **dict.fromkeys(SCALARS, "F32")}
        if form is not None:
            wanted["weight_scale"] = "F8_E4M3" if form == "nvfp4" else "U8"
        for suffix, dtype in wanted.items():
            ref = module.tensors.get(suffix)
            if ref is not None and ref.dtype != dtype:
                mild = suffix == "weight_scale_2" and ref.dtype == "BF16"
                message = f"{ref.name} is {ref.dtype[:20]}, not {dtype}; write it as {dtype}."
                yield Found(message, file=ref.shard, tensor=ref.name, severity=WARNING if mild else ERROR)


@rule("NM06", "scalar-with-shape", severity=ERROR, engines=("vllm",), scope=PACKED)
def scalar_with_shape(modules: Modules) -> Iterator[Found]:
    """A per-tensor scale has more than one element.

    Why: vLLM refuses it; other loaders take the first element.
    Fix: store one number with shape [] or [1].
    Seen: vLLM `model_executor/parameter.py`, `PerTensorScaleParameter`.
    """
    for module in modules.packed:
        for suffix in SCALARS:
            ref = module.tensors.get(suffix)
            if ref is not None and ref.shape not in ((), (1,)):
                message = f"{ref.name} has shape {list(ref.shape)}, not []; store one number."
                yield Found(message, file=ref.shard, tensor=ref.name)


# --- experts -------------------------------------------------------------------------------------------------------

_EXPERT = re.compile(r"^(.*\.experts)\.(\d{1,6})\.(.+)$")
_COUNTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
Experts = dict[str, dict[int, set[str]]]


def _experts(modules: Modules) -> Experts:
    """For each `experts` module, the projections of every expert number."""
    found: Experts = {}
    for name, module in modules.checkpoint.modules.items():
        match = _EXPERT.match(name) if module.weight is not None or "weight_scale" in module.tensors else None
        if match is not None:
            found.setdefault(match.group(1), {}).setdefault(int(match.group(2)), set()).add(match.group(3))
    return found


@rule(
    "NM09",
    "missing-expert",
    severity=ERROR,
    engines=LOADERS,
    scope=Scope("numbered expert", lambda modules: any(".experts." in name for name in modules.checkpoint.modules)),
)
def missing_expert(modules: Modules) -> Iterator[Found]:
    """Experts or their projections are missing: layers, experts and projections do not form a full grid.

    Why: vLLM and SGLang leave an absent expert as uninitialised memory and say nothing.
    Fix: export the missing experts; a shard may not have been written.
    Seen: vllm-project/vllm PR 57108 (load checks are off for quantized models).
    """
    layers, text = _experts(modules), _text_config(modules.checkpoint.config)
    count = next((text[key] for key in _COUNTS if type(text.get(key)) is int and 0 < text[key] < 1 << 20), None)
    for name, experts in layers.items():
        total = count if count is not None else max(experts) + 1
        projections = set().union(*experts.values())
        if len(experts) != total or max(experts) >= total:
            gap = next(number for number in range(len(experts) + 1) if number not in experts)
            message = f"{name} holds {len(experts):,} of {total:,} experts, up to number {max(experts)}"
            message += f"; number {gap} is missing" * (gap < total)
            yield Found(f"{message}. Export the layer again.", tensor=name)
        for number in sorted(experts):
            if experts[number] != projections:
                gone = ", ".join(sorted(projections - experts[number]))
                yield Found(f"{name}.{number} has no {gone}; export it again.", tensor=f"{name}.{number}")
    for layer in _absent_layers(set(layers), text):
        yield Found(f"Layer {layer} should have experts by config.json and has none; export it again.")


def _absent_layers(names: set[str], text: Mapping[str, Any]) -> Iterator[int]:
    """Layers between the first and the last that config.json makes sparse and that hold no expert."""
    depth, dense = text.get("num_hidden_layers"), text.get("first_k_dense_replace", 0)
    step = text.get("moe_layer_freq", text.get("decoder_sparse_step", 1))
    skip = text.get("mlp_only_layers")
    dense_only = skip if isinstance(skip, list) else []
    if not (names and type(depth) is int and type(dense) is int and type(step) is int and step > 0 and depth < 10_000):
        return
    shift = 0 if "moe_layer_freq" in text else 1  # DeepSeek counts from 0, Qwen from 1
    present = {layer_of(name) for name in names}
    for layer in range(dense, depth):
        if (layer + shift) % step == 0 and layer not in dense_only and layer not in present:
            yield layer


# --- what stays as it was ------------------------------------------------------------------------------------------


@rule(
    "NM10",
    "quantized-router",
    severity=ERROR,
    engines=LOADERS,
    scope=Scope("router", lambda modules: any(m.role == "router" for m in modules.checkpoint.modules.values())),
)
def quantized_router(modules: Modules) -> Iterator[Found]:
    """A mixture's router is packed, carries scales, or has not one row per expert.

    Why: every engine builds the router unquantized and cannot load anything else.
    Fix: exclude the routers (`*.mlp.gate`) and quantize again.
    Seen: Quark's file-to-file mode quantizes them unless told not to; vllm-project/llm-compressor issue 2714.
    """
    text = _text_config(modules.checkpoint.config)
    count = next((text[key] for key in _COUNTS if type(text.get(key)) is int), None)
    for module in modules.checkpoint.modules.values():
        weight = module.weight
        if module.role != "router" or (weight is None and not set(SCALE_SUFFIXES) & set(module.tensors)):
            continue
        scales = sorted(set(SCALE_SUFFIXES) & set(module.tensors))
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
    packed = {module.name for module in modules.packed}
    for name, module in modules.checkpoint.modules.items():
        if name in packed and module.role in KEPT:
            message = f"The {KEPT[module.role]} {name} is quantized; exclude it and quantize again."
            yield Found(message, **_at(module))
        bias = module.tensors.get("bias")
        if bias is not None and bias.dtype not in PLAIN:
            yield Found(
                f"{bias.name} is {bias.dtype[:20]}; keep biases unquantized.", file=bias.shard, tensor=bias.name
            )
        routing = module.tensors.get("e_score_correction_bias")
        if routing is not None and routing.dtype != (wanted := _routing_dtype(modules, routing.name)):
            message = f"{routing.name} is {routing.dtype[:20]}, not {wanted}; copy it from the source."
            yield Found(message, file=routing.shard, tensor=routing.name)


def _routing_dtype(modules: Modules, name: str) -> str:
    original = modules.source.tensors.get(name) if modules.source else None
    return original.dtype if original is not None else "F32"


@functools.cache
def _leftover() -> re.Pattern[str]:
    return re.compile(
        r"(_amax$|quantizer|_double_scale|smooth_quant|_bias_value|\.inv_scale$|hf_hook|\.base_layer\.|\.lora_[AB]\b)"
    )


@rule("NM13", "producer-leftover", severity=ERROR, engines=("vllm", "sglang"))
def producer_leftover(headers: Headers) -> Iterator[Found]:
    """A tensor is an internal buffer of the quantization tool.

    Why: engines stop at names they do not know, and the buffer shows that the export was not finished.
    Fix: export with the tool's own exporter instead of saving the module's state.
    Seen: NVIDIA/Model-Optimizer PR 2038 (`weight_quantizer._double_scale` in the shards).
    """
    for ref in headers.checkpoint.tensors.values():
        if _leftover().search(ref.name):
            message = f"{ref.name} is an internal buffer of the producer; export again without it."
            yield Found(message, file=ref.shard, tensor=ref.name)
