"""NM: what a tool or an earlier format left behind: buffers, integer formats, scales without a weight."""

from __future__ import annotations

import re
from collections.abc import Iterator

from publisher.checkpoint.modules import Module
from publisher.findings import ERROR, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import BLOCK, Headers, Modules

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
_BUFFER = re.compile(
    r"(_amax$|quantizer|_double_scale|smooth_quant|_bias_value|\.inv_scale$|hf_hook|\.base_layer\.|\.lora_|\._orig_mod\.)"
)


@rule("NM13", "producer-leftover", severity=ERROR, refuses=("vllm", "sglang"))
def producer_leftover(headers: Headers) -> Iterator[Found]:
    """A tensor is an internal buffer of the quantization tool or of an adapter.

    Why: engines stop at names they do not know, and the buffer shows that the export was not finished.
    Fix: export with the tool's own exporter instead of saving the module's state.
    Seen: NVIDIA/Model-Optimizer PR 2038 (`weight_quantizer._double_scale` in the shards), 0.46 (`base_layer` names).
    """
    known: dict[tuple[str, str], bool] = {}
    for module in headers.checkpoint.modules.values():
        for suffix, ref in module.tensors.items():
            key = module.kind, suffix
            if key not in known:
                known[key] = _BUFFER.search(f"{module.kind}.{suffix}") is not None
            if known[key]:
                message = f"{ref.name} is an internal buffer of the producer; export again without it."
                yield Found(message, file=ref.shard, tensor=ref.name)


def _four_bits(modules: Modules) -> bool:
    """Whether FP4 is declared and no group of the declaration keeps integers."""
    if modules.quant is None or modules.quant.format not in BLOCK:
        return False
    groups = modules.quant.raw.get("config_groups")
    specs = (
        [group.get("weights") for group in groups.values() if isinstance(group, dict)]
        if isinstance(groups, dict)
        else []
    )
    return not any(isinstance(spec, dict) and spec.get("type") == "int" for spec in specs)


INTEGER = frozenset({"weight_shape", "weight_zero_point", "weight_g_idx", "qweight", "qzeros", "g_idx"})


@rule(
    "NM15",
    "integer-leftover",
    severity=ERROR,
    engines=LOADERS,
    refuses=("vllm", "sglang"),
    scope=Scope("FP4 declaration", _four_bits),
)
def integer_leftover(modules: Modules) -> Iterator[Found]:
    """A module still holds the source's integer format: an I32 payload, its shape, zero points or group indices.

    Why: the payload is read as FP4 codes or not at all; the source's scales are taken for FP4's.
    Fix: quantize the module from its dequantized weights and drop the source's tensors, or exclude it and store BF16.
    Seen: vllm-project/llm-compressor PR 2909 (a guard against quantizing what is quantized already).
    """
    for module in modules.checkpoint.modules.values():
        weight, left = module.weight, INTEGER & module.tensors.keys()
        if not left and (weight is None or weight.dtype != "I32" or len(weight.shape) != 2):
            continue
        names = ", ".join(sorted(left)) or f"{weight.dtype if weight else ''} weights"
        message = f"{module.name} holds {names} of an integer format; quantize it again from dequantized weights."
        yield Found(message, file=module.ref.shard, tensor=module.ref.name)


SCALES = frozenset({"weight_scale", "weight_scale_inv", "weight_scale_2", "weight_global_scale", "scale", "scales"})
EIGHT = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})


def _eight(module: Module) -> bool:
    weight = module.weight
    return "weight_scale_inv" in module.tensors or (weight is not None and weight.dtype in EIGHT)


@rule(
    "NM23",
    "unpaired-fp8",
    severity=ERROR,
    engines=ENGINES,
    scope=Scope("FP8 weight", lambda modules: any(map(_eight, modules.checkpoint.modules.values()))),
)
def unpaired_fp8(modules: Modules) -> Iterator[Found]:
    """An FP8 weight has no scale beside it, or an FP8 scale has no FP8 weight.

    Why: raw FP8 codes are used as weights, some hundred times too large; or the scale multiplies what is not FP8.
    Fix: copy weight and scale together from the source, under the source's own names.
    Seen: radixark/miles PR 1640 (`mtp.0.e_proj` without a scale); kekzl/imp PR 1450 (scales dropped when copying).
    """
    for module in filter(_eight, modules.checkpoint.modules.values()):
        weight = module.weight
        if weight is None or weight.dtype not in EIGHT:
            stored = f"stands beside {weight.dtype}" if weight is not None else "has no weight"
            ref = module.tensors["weight_scale_inv"]
            message = f"{ref.name} {stored}; copy weight and scale together from the source."
            yield Found(message, file=ref.shard, tensor=ref.name)
        elif SCALES.isdisjoint(module.tensors):
            message = f"{weight.name} is {weight.dtype} without a scale; copy weight and scale from the source."
            yield Found(message, file=weight.shard, tensor=weight.name)
