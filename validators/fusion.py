"""FU: modules that the engines merge into one layer must share their global scale, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.findings import ERROR, Found
from publisher.rules import Scope, rule
from publisher.subjects import FusedGroup

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
HALVES = ("gate_up_proj", "w13")


def _scope(noun: str, kinds: tuple[str, ...], expert: bool | None = None) -> Scope:
    def holds(group: FusedGroup) -> bool:
        meant = group.of_weights and group.kind in kinds
        return meant and (expert is None or (group.role == "expert") is expert)

    return Scope(noun, holds)


def _different(group: FusedGroup) -> Iterator[Found]:
    if len(set(group.bits)) == 1:
        return
    members = ", ".join(
        f"{ref.name.split('.')[-2]} {value:.6g}" for ref, value in zip(group.refs, group.values, strict=True)
    )
    low, high = min(group.values), max(group.values)
    ratio = f" (up to {high / low:.4g} times apart)" if low > 0 else ""
    message = f"The {group.suffix} of {group.name} differ: {members}{ratio}; quantize them with one global scale."
    yield Found(message, file=group.refs[0].shard, tensor=group.refs[0].name)


@rule(
    "FU01",
    "unequal-qkv-scales",
    severity=ERROR,
    engines=LOADERS,
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
    engines=("vllm", "sglang", "tensorrt-llm"),
    scope=_scope("expert's gate/up pair with global scales", HALVES, True),
)
def unequal_expert_scales(group: FusedGroup) -> Iterator[Found]:
    """The global weight scales of an expert's gate and up (w1 and w3) differ.

    Why: TensorRT-LLM refuses; vLLM applies the first to both with one warning, so the other half is wrong by the
    ratio. Only backends that carry both scales serve it exactly.
    Fix: quantize both with one global scale.
    Seen: vllm-project/vllm issue 54974 (69 % of the pairs of a public checkpoint).
    """
    yield from _different(group)
