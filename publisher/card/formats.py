"""How weights, activations and the KV cache are stored, in words, from headers and the declaration engines obey."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from publisher.card.headers import block_length, fp8_modules, kv_scales, quantized_modules
from publisher.card.value import Row, Value, count
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.subjects.modules import stack_of

NAMES = {"nvfp4": "NVFP4", "mxfp4": "MXFP4"}
_ELEMENT = "FP4 E2M1"
_DTYPES = {"F8_E4M3": "FP8 E4M3", "U8": "E8M0", "F8_E8M0": "E8M0"}
_POWER = {"U8": " (a power of two, stored as U8)", "F8_E8M0": " (a power of two)"}
_STACKS = "NVFP4: FP4 E2M1 elements; one FP8 E4M3 scale per 16 elements; one FP32 scale for all experts of a projection"
_INPUTS = ("input_scale", "input_scale_2", "input_global_scale")


def format_name(checkpoint: Checkpoint) -> str:
    """NVFP4, MXFP4, or what the declaration says; `quantized` where nothing does."""
    quant = checkpoint.quant
    stored = quant.format if quant is not None else None
    if stored == "mixed":
        return " and ".join([*sorted({_packed_name(module) for module in quantized_modules(checkpoint)}), "FP8"])
    return NAMES.get(stored or "", (stored or "quantized").upper() if stored else "quantized")


def _packed_name(module: Module) -> str:
    """NVFP4 or MXFP4 by what its block scales are."""
    return NAMES["nvfp4" if module.tensors["weight_scale"].dtype == "F8_E4M3" else "mxfp4"]


def format_rows(checkpoint: Checkpoint) -> tuple[Row, ...]:
    """Rows for weights, activations and KV cache; what is not known is left out."""
    return tuple(_rows(checkpoint))


def stores_input_scales(modules: list[Module]) -> int:
    """How many quantized modules carry a calibrated scale of their input."""
    return sum(any(suffix in module.tensors for suffix in _INPUTS) for module in modules)


def kv_text(checkpoint: Checkpoint) -> str:
    """What the KV cache is quantized to, and where its scales come from."""
    quant = checkpoint.quant
    if quant is None or not quant.kv_cache or quant.kv_cache == "none":
        return "not quantized"
    stored = kv_scales(checkpoint)
    name = "FP8 E4M3" if quant.kv_cache.startswith("fp8") else quant.kv_cache.upper()
    scales = f"{count(stored)} calibrated scales stored" if stored else "no scales stored, engines use 1.0"
    return f"{name}, static; {scales}"


def activation_text(checkpoint: Checkpoint) -> str | None:
    """How activations are treated when served; None where nothing says so."""
    quant = checkpoint.quant
    if quant is not None and quant.format == "mixed":
        return _mixed_activations(checkpoint)
    if quant is None or quant.activations is None:
        return None
    name, length = format_name(checkpoint), quant.group_size
    blocks = f"per {length} elements" if length else "per block"
    if quant.activations == "none":
        return "not quantized (weight-only): products are computed in 16 bits"
    if quant.activations == "dynamic":
        return f"{name}, dynamic: scales {blocks} are computed while serving, nothing is stored"
    modules = quantized_modules(checkpoint)
    stored = stores_input_scales(modules)
    tensor = "FP32 scale per layer input, calibrated and stored" if stored else "FP32 scale per layer input declared"
    missing = f" (for {count(stored)} of {count(len(modules))} modules)" if stored != len(modules) else ""
    return f"{name}, static: one {tensor}{missing}; block scales {blocks} are computed while serving"


def _mixed_activations(checkpoint: Checkpoint) -> str:
    """Of a mixed checkpoint, what each kind of layer does with its inputs."""
    four = quantized_modules(checkpoint)
    names = " and ".join(sorted({_packed_name(module) for module in four}))
    eight = fp8_modules(checkpoint)
    groups = checkpoint.quant.raw.get("config_groups") if checkpoint.quant is not None else None
    declared = [g for g in (groups.values() if isinstance(groups, Mapping) else ()) if isinstance(g, Mapping)]
    bits = {
        weights.get("num_bits")
        for group in declared
        if group.get("input_activations") and isinstance(weights := group.get("weights"), Mapping)
    }
    stored = "with a calibrated scale for each layer input"
    of_four = f"in FP4, {stored}" if stores_input_scales(four) else "in FP4, scaled while serving"
    of_eight = f"in FP8, {stored}" if stores_input_scales(eight) else "in FP8, scaled token by token while serving"
    return f"by layer: {names} layers {of_four if 4 in bits else 'in 16 bits (weight-only)'}; FP8 layers {of_eight}"


def _rows(checkpoint: Checkpoint) -> Iterator[Row]:
    quant = checkpoint.quant
    modules = quantized_modules(checkpoint)
    weights = _weights(checkpoint, modules)
    if weights is not None:
        yield Row("Weight format", Value(weights, "shard headers"))
    activations = activation_text(checkpoint)
    if quant is not None and activations is not None:
        yield Row("Activation format", Value(activations, quant.origin))
    if quant is not None:
        yield Row("KV cache", Value(kv_text(checkpoint), quant.origin))
        algo = f", {quant.algo}" if quant.algo else ""
        yield Row("Layout", Value(f"{quant.dialect}{algo}", quant.origin))


def _weights(checkpoint: Checkpoint, modules: list[Module]) -> str | None:
    """Element, block length, block scale and tensor scale, from the first quantized module's tensors."""
    if not modules:
        stacked = any(stack_of(module) for module in checkpoint.modules.values())
        return _STACKS if stacked else None
    first = modules[0]
    scale = first.tensors["weight_scale"]
    length = block_length(first)
    element = _ELEMENT if first.weight is not None and first.weight.dtype == "U8" else "integer"
    block = (
        f"one {_DTYPES.get(scale.dtype, scale.dtype)} scale{_POWER.get(scale.dtype, '')} per {length or '?'} elements"
    )
    tensor = next((first.tensors[s] for s in ("weight_scale_2", "weight_global_scale") if s in first.tensors), None)
    more = f"; one {_word(tensor.dtype)} scale per tensor" if tensor is not None else ""
    eight = "; FP8 layers: E4M3 elements with FP32 scales" if fp8_modules(checkpoint) else ""
    return f"{format_name(checkpoint)}: {element} elements; {block}{more}{eight}"


def _word(dtype: str) -> str:
    return {"F32": "FP32", "F16": "FP16"}.get(dtype, dtype)
