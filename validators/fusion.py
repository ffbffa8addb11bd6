"""FU: modules that the engines merge into one layer must share scheme, global scale and smoothing, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from publisher.checkpoint.modules import fused_group_of
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import FusedGroup, Scalars, Smoothings

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
HALVES = ("gate_up_proj", "w13")
INPUTS = ("input_scale", "input_scale_2", "input_global_scale")
OTHERS = ("vllm", "sglang")
DOWNS = ("down_proj", "w2", "fc2", "linear_fc2")


def _scope(noun: str, kinds: tuple[str, ...], expert: bool | None = None) -> Scope:
    def holds(group: FusedGroup) -> bool:
        meant = group.of_weights and group.kind in kinds
        return meant and (expert is None or (group.role == "expert") is expert)

    return Scope(noun, holds)


def _different(group: FusedGroup) -> Iterator[Found]:
    if len(set(group.bits)) == 1:
        return
    digits = next((n for n in (6, 9) if len({f"{value:.{n}g}" for value in group.values}) == len(set(group.bits))), 9)
    members = ", ".join(
        f"{ref.name.split('.')[-2]} {value:.{digits}g}" for ref, value in zip(group.refs, group.values, strict=True)
    )
    low, high = min(group.values), max(group.values)
    ratio = f" (up to {high / low:.{4 if digits == 6 else 9}g} times apart)" if 0 < low < high < math.inf else ""
    message = f"The {group.suffix} of {group.name} differ: {members}{ratio}; quantize them with one global scale."
    yield Found(message, file=group.refs[0].shard, tensor=group.refs[0].name)


@rule(
    "FU01",
    "unequal-qkv-scales",
    severity=ERROR,
    engines=LOADERS,
    refuses=("tensorrt-llm",),
    scope=_scope("q/k/v group with global scales", ("qkv_proj",)),
)
def unequal_qkv_scales(group: FusedGroup) -> Iterator[Found]:
    """The global weight scales of q, k and v differ.

    Why: TensorRT-LLM refuses; vLLM and SGLang take the largest for all and blow up the others.
    Fix: quantize the three with one global scale.
    Seen: vllm-project/vllm PR 41769.
    """
    yield from _different(group)


@rule(
    "FU02",
    "unequal-gate-up-scales",
    severity=ERROR,
    engines=LOADERS,
    refuses=("tensorrt-llm",),
    scope=_scope("gate/up group with global scales", HALVES, False),
)
def unequal_gate_up_scales(group: FusedGroup) -> Iterator[Found]:
    """The global weight scales of gate and up of a dense or shared MLP differ.

    Why: TensorRT-LLM refuses; vLLM and SGLang take the larger for both and blow up the other.
    Fix: quantize both with one global scale.
    Seen: vllm-project/vllm issue 54150.
    """
    yield from _different(group)


@rule(
    "FU03",
    "unequal-latent-scales",
    severity=ERROR,
    engines=LOADERS,
    refuses=("tensorrt-llm",),
    scope=_scope("q_a/kv_a group with global scales", ("fused_qkv_a_proj",)),
)
def unequal_latent_scales(group: FusedGroup) -> Iterator[Found]:
    """The global weight scales of q_a_proj and kv_a_proj_with_mqa differ.

    Why: engines fuse the two projections of latent attention and apply one scale.
    Fix: quantize both with one global scale.
    Seen: the fused groups of llm-compressor's observers; vLLM `fused_qkv_a_proj`.
    """
    yield from _different(group)


@rule(
    "FU04",
    "unequal-expert-scales",
    severity=ERROR,
    engines=("vllm", "sglang"),
    refuses=("tensorrt-llm",),
    scope=_scope("expert's gate/up pair with global scales", HALVES, True),
)
def unequal_expert_scales(group: FusedGroup) -> Iterator[Found]:
    """The global weight scales of an expert's gate and up (w1 and w3) differ.

    Why: TensorRT-LLM refuses; vLLM applies the first to both with one warning, so the other half is wrong by the
    ratio. Only backends that carry both scales (FlashInfer's TRT-LLM kernels) serve it exactly.
    Fix: quantize both with one global scale.
    Seen: vllm-project/vllm issue 54974 (69 % of the pairs of a public checkpoint).
    """
    yield from _different(group)


# --- activations ---------------------------------------------------------------------------------------------------


@rule(
    "FU05",
    "unequal-input-scales",
    severity=ERROR,
    engines=("vllm", "sglang"),
    refuses=("tensorrt-llm",),
    scope=Scope("fused group with activation scales", lambda group: not group.of_weights),
)
def unequal_input_scales(group: FusedGroup) -> Iterator[Found]:
    """The activation scales of modules that become one layer differ, though they see the same input.

    Why: TensorRT-LLM refuses; vLLM and SGLang take one for all: the coarsest, or, where scales are divisors
    (compressed-tensors), the finest, which clips activations. Quark checkpoints, which TensorRT-LLM does not read, get
    a warning.
    Fix: calibrate the members together; equal scales are the largest of them (the smallest divisor).
    Seen: TensorRT-LLM `_torch/modules/linear.py` (equality of fused input scales); vLLM compressed-tensors NVFP4.
    """
    for found in _different(group):
        message = found.message.replace("quantize them with one global scale", "calibrate them together")
        if group.suffix == "input_scale_2":
            yield Found(message, file=found.file, tensor=found.tensor, severity=WARNING, refuses=(), engines=OTHERS)
        else:
            yield Found(message, file=found.file, tensor=found.tensor)


WIDE, HOPELESS = 32.0, 1000.0


def _of_experts(scalars: Scalars) -> bool:
    return scalars.suffix in INPUTS and any(".experts." in ref.name for ref in scalars.refs)


@rule(
    "FU08",
    "outlying-expert-input-scale",
    severity=WARNING,
    engines=("vllm", "sglang", "tensorrt-llm"),
    scope=Scope("expert with an activation scale", _of_experts),
)
def outlying_expert_input_scale(scalars: Scalars) -> Iterator[Found]:
    """The largest activation scale of a layer's experts is more than 32 times the median; above 1000 it is an error.

    Why: fused kernels have one activation scale for all experts of a layer and take the largest, so one outlier
    leaves the others a few of FP4's values.
    Fix: calibrate with more data, or look at the outlying expert: its scale may never have been set.
    Seen: vLLM `quantization/utils/flashinfer_fp4_moe.py` (maximum); vllm-project/llm-compressor issue 2936.
    """
    layers: dict[tuple[str, bool], list[int]] = {}
    for at, ref in enumerate(scalars.refs):
        head, mark, tail = ref.name.rpartition(".experts.")
        if mark and "." in tail:  # not the one scale of a whole stack
            down = tail.split(".")[-2] in DOWNS
            layers.setdefault((head, down), []).append(at)
    for (head, down), places in layers.items():
        values = scalars.values[places].astype(np.float64)
        known = np.isfinite(values) & (values > 0)
        if known.sum() < 2:
            continue
        scales = np.where(known, values, 1.0)
        scales = np.where(known, 1 / scales if scalars.suffix == "input_global_scale" else scales, 0.0)
        top, median = int(scales.argmax()), float(np.median(scales[known]))
        ratio = float(scales[top]) / median
        if ratio > WIDE:
            ref = scalars.refs[places[top]]
            message = (
                f"{ref.name} is {ratio:,.4g} times the median of the {'down' if down else 'gate/up'} activation scales "
                f"of {head}.experts; calibrate the layer again."
            )
            severity = ERROR if ratio > HOPELESS else WARNING
            yield Found(message, file=ref.shard, tensor=ref.name, severity=severity)


@rule("FU09", "unequal-smoothing", severity=ERROR, engines=("sglang",), refuses=("tensorrt-llm",))
def unequal_smoothing(smoothings: Smoothings) -> Iterator[Found]:
    """The smoothing vectors (`pre_quant_scale`) of q, k and v, of gate and up, or of a layer's experts differ.

    Why: an engine multiplies the input of a fused layer once, so all but one member compute with another's vector.
    Fix: export with a tool that smooths fused members and experts together.
    Seen: modelopt `export/quant_utils.py` (members are smoothed anew to their mean); NVIDIA/Model-Optimizer PR 1354.
    """
    groups: dict[str, list[str]] = {}
    for name in smoothings.vectors:
        groups.setdefault(_shared_input(name), []).append(name)
    for group, members in groups.items():
        digests = {smoothings.vectors[name].digest for name in members}
        if len(digests) > 1:
            ref = smoothings.vectors[members[0]].ref
            message = (
                f"The {len(members):,} smoothing vectors of {group} are {len(digests):,} different ones; export the "
                "layer again."
            )
            yield Found(message, file=ref.shard, tensor=ref.name)


def _shared_input(name: str) -> str:
    """The layer whose input a module shares: its fused layer, and that of all experts."""
    fused = fused_group_of(name) or name
    head, mark, tail = fused.rpartition(".experts.")
    return f"{head}.experts.{tail.partition('.')[2]}" if mark else fused
