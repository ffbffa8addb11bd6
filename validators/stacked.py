"""NM, FU: experts of a layer stored as one tensor: names, axes, and gpt-oss's blocks and scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.findings import ERROR, Found
from publisher.rules import Scope, rule
from publisher.subjects import PLAIN, Modules

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
BLOCK, BYTES = 32, 16  # elements of an MX block, bytes they are packed into


def _stacks(modules: Modules) -> Iterator[Module]:
    """Modules that hold all experts of a layer: tensors of three dimensions or more under `….experts`."""
    for module in modules.checkpoint.modules.values():
        named = module.role == "expert" and module.name.endswith(".experts")
        if named and any(len(ref.shape) >= 3 for ref in module.tensors.values()):
            yield module


STACKED = Scope("layer with its experts in one tensor", lambda modules: next(_stacks(modules), None) is not None)


def _facts() -> Mapping[str, Any]:
    facts: Mapping[str, Any] = jsonio.data("architectures/stacked.json")
    return facts


def _sizes(modules: Modules) -> dict[str, int]:
    """Experts, hidden size, one expert's width and twice that, as far as config.json says."""
    text, found = modules.text, {}
    width = text.get("moe_intermediate_size", text.get("intermediate_size"))
    named = {"experts": modules.expert_count, "hidden": text.get("hidden_size"), "expert": width}
    for name, value in named.items():
        if type(value) is int and 0 < value < 1 << 31:
            found[name] = value
    return found | ({"twice": 2 * found["expert"]} if "expert" in found else {})


def _shape(axes: list[str], sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    return tuple(sizes[axis] for axis in axes) if sizes.keys() >= set(axes) else None


# --- gpt-oss --------------------------------------------------------------------------------------------------------


def _native(modules: Modules) -> bool:
    return any(_blocks(module) for module in modules.checkpoint.modules.values() if module.role == "expert")


def _blocks(module: Module) -> list[str]:
    """The projections a module stores as blocks or scales."""
    return sorted({s.rpartition("_")[0] for s in module.tensors if s.endswith(("_blocks", "_scales"))})


@rule(
    "NM19",
    "broken-expert-blocks",
    severity=ERROR,
    engines=("vllm", "sglang", "tensorrt-llm", "transformers"),
    scope=Scope("layer of expert blocks", _native),
)
def broken_expert_blocks(modules: Modules) -> Iterator[Found]:
    """Blocks, scales and biases of gpt-oss experts do not belong together, or not to config.json.

    Why: blocks are (experts, rows, columns/32, 16) and scales the same without the last; loaders assert that, and
    read a missing bias as whatever the memory held. Whether gate and up rows alternate is not visible in headers.
    Fix: write `_blocks`, `_scales` and `_bias` of both projections as the source's layout has them.
    Seen: transformers `integrations/mxfp4.py`; ml-explore/mlx-lm PR 679; vllm-project/vllm issue 46641.
    """
    sizes = _sizes(modules)
    for module in modules.checkpoint.modules.values():
        if module.role == "expert":
            for projection in _blocks(module):
                yield from _judged(module, projection, sizes)


def _judged(module: Module, projection: str, sizes: Mapping[str, int]) -> Iterator[Found]:
    parts = {part: module.tensors.get(f"{projection}_{part}") for part in ("blocks", "scales", "bias")}
    lost = [f"{projection}_{part}" for part, ref in parts.items() if ref is None]
    if lost:
        message = f"{module.name} lacks {', '.join(lost)}; write the layer again."
        yield Found(message, file=module.ref.shard, tensor=f"{module.name}.{lost[0]}")
    blocks, scales, bias = parts["blocks"], parts["scales"], parts["bias"]
    for ref in (blocks, scales):
        if ref is not None and ref.dtype != "U8":
            yield _wrong(ref, f"is {ref.dtype[:20]}, not U8; write the same bytes as U8")
    if blocks is None:
        return
    columns = _shape(_facts()["blocks"].get(projection, []), sizes) or ()
    wanted = (sizes["experts"], columns[0], columns[1] // BLOCK, BYTES) if columns and "experts" in sizes else None
    if len(blocks.shape) != 4 or blocks.shape[3] != BYTES or (wanted is not None and blocks.shape != wanted):
        expected = list(wanted) if wanted is not None else f"(experts, rows, columns/{BLOCK}, {BYTES})"
        yield _wrong(blocks, f"is {list(blocks.shape)[:8]}, not {expected}; do not transpose or split it")
    if scales is not None and scales.shape != blocks.shape[:-1]:
        yield _wrong(scales, f"is {list(scales.shape)[:8]}, not {list(blocks.shape[:-1])[:8]} as its blocks need")
    if bias is not None and (bias.dtype not in PLAIN or bias.shape != blocks.shape[:2]):
        yield _wrong(bias, f"is {bias.dtype[:20]} of {list(bias.shape)[:8]}, not 16-bit of {list(blocks.shape[:2])}")


def _wrong(ref: TensorRef, what: str) -> Found:
    return Found(f"{ref.name} {what}.", file=ref.shard, tensor=ref.name)


# --- names and axes -------------------------------------------------------------------------------------------------


def _odd(name: str, ref: TensorRef, facts: Mapping[str, Any]) -> bool:
    """Whether a quantized tensor of an expert stack has a name no loader maps."""
    stem = next((part for part in facts["projections"] if name == part or name.startswith(f"{part}_")), None)
    quantized = ref.dtype not in PLAIN or "scale" in name
    return stem is not None and quantized and name.removeprefix(stem) not in facts["suffixes"]


def _holders(modules: Modules) -> bool:
    return any(module.role == "expert" and not module.kind.endswith(".*") for module in modules.packed) or any(
        True for _ in _stacks(modules)
    )


@rule(
    "NM24",
    "unmapped-expert-name",
    severity=ERROR,
    engines=("vllm", "sglang"),
    scope=Scope("expert", _holders),
)
def unmapped_expert_name(modules: Modules) -> Iterator[Found]:
    """Quantized experts stored as one tensor have a name that no loader maps.

    Why: packed experts are read one by one, or as the blocks of gpt-oss or the stacks of Llama 4; under another name
    they are skipped and the layer computes with uninitialised memory.
    Fix: split the tensor and write each expert as `experts.N.gate_proj`, `up_proj` and `down_proj`.
    Seen: vllm-project/llm-compressor issue 2939 (`experts.gate_up_proj_packed`: MMLU fell from 82 to 25).
    """
    facts = _facts()
    for module in modules.checkpoint.modules.values():
        if module.role != "expert":
            continue
        if module.name.endswith(".experts"):
            odd = [ref for suffix, ref in module.tensors.items() if _odd(suffix, ref, facts)]
        elif module.kind.rpartition(".experts.")[2] in facts["projections"]:  # experts.gate_up_proj.weight_packed
            odd = [ref for ref in module.tensors.values() if len(ref.shape) >= 3 and ref.dtype not in PLAIN]
        else:
            continue
        for ref in odd:
            yield _wrong(ref, "is a name no loader maps; write the experts one by one")


@rule("FU11", "stacked-experts", severity=ERROR, engines=LOADERS, scope=STACKED)
def stacked_experts(modules: Modules) -> Iterator[Found]:
    """Experts stored as one tensor have swapped axes, or are stored one by one as well.

    Why: models disagree about the order of the last two axes; a square matrix loads transposed without an error. Of
    two copies of an expert the one read last wins.
    Fix: keep the axis order of the source; store the experts of a layer in one way only.
    Seen: ml-explore/mlx-lm PR 679 and vllm-project/vllm issue 22380 (gpt-oss derivatives); transformers
    `conversion_mapping.py` (qwen3_vl_moe is transposed when loaded).
    """
    sizes, axes = _sizes(modules), _facts()["axes"].get(str(modules.text.get("model_type")), {})
    for module in _stacks(modules):
        numbered = modules.experts.get(module.name)
        if numbered:
            message = (
                f"{module.name} holds all experts in one tensor and {len(numbered):,} of them one by one; remove one "
                "of the two."
            )
            yield Found(message, file=module.ref.shard, tensor=module.ref.name)
        for projection, order in axes.items():
            ref, wanted = module.tensors.get(projection), _shape(order, sizes)
            if ref is not None and ref.dtype in PLAIN and wanted is not None and ref.shape != wanted:
                swapped = ref.shape == (wanted[0], wanted[2], wanted[1])
                cure = "swap the last two axes" if swapped else "compare it with the source"
                yield _wrong(ref, f"is {list(ref.shape)[:8]}, not {list(wanted)}; {cure}")
