"""NM: routed experts, all of them, in every layer: present, calibrated, quantized."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.checkpoint.modules import Module, layer_of
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import BLOCK, PLAIN, Modules, sparse_layers

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
INPUTS = ("input_scale", "input_scale_2", "input_global_scale")
NUMBERED = Scope("numbered expert", lambda modules: bool(modules.experts))


@rule("NM09", "missing-expert", severity=ERROR, engines=LOADERS, refuses=("atom",), scope=NUMBERED)
def missing_expert(modules: Modules) -> Iterator[Found]:
    """Experts or their projections are missing: layers, experts and projections do not form a full grid.

    Why: vLLM and SGLang leave an absent expert as uninitialised memory and say nothing.
    Fix: export the missing experts; a shard may not have been written.
    Seen: vllm-project/vllm PR 57108 (load checks are off for quantized models).
    """
    for name, experts in modules.experts.items():
        total = modules.expert_count if modules.expert_count is not None else max(experts) + 1
        projections = set().union(*experts.values())
        if len(experts) != total or max(experts) >= total:
            gap = next(number for number in range(len(experts) + 1) if number not in experts)
            message = f"{name} holds {len(experts):,} of {total:,} experts, up to number {max(experts)}"
            message += f"; number {gap} is missing" * (gap < total)
            yield Found(f"{message}. Export the layer again.", tensor=name)
        for number in sorted(experts):
            if experts[number].keys() != projections:
                gone = ", ".join(sorted(projections - experts[number].keys()))
                yield Found(f"{name}.{number} has no {gone}; export it again.", tensor=f"{name}.{number}")
    stacked = {
        name for name, m in modules.checkpoint.modules.items() if m.role == "expert" and name.endswith(".experts")
    }
    for layer in _absent_layers(stacked | modules.experts.keys(), modules.text):
        yield Found(f"Layer {layer} should have experts by config.json and has none; export it again.")


def _absent_layers(names: set[str], text: Mapping[str, Any]) -> Iterator[int]:
    """Layers that config.json makes sparse and that hold no expert; none where it does not say which are."""
    present = {layer_of(name) for name in names}
    if names:
        yield from (layer for layer in sparse_layers(text) or () if layer not in present)


def _unsaid(modules: Modules) -> bool:
    """Whether activation scales are stored and the declaration does not say that every module has one."""
    quant = modules.quant
    return (
        bool(modules.experts) and quant is not None and quant.activations not in ("static", "none") and not quant.layers
    )


@rule(
    "NM20",
    "partly-calibrated-experts",
    severity=ERROR,
    engines=("vllm", "sglang"),
    scope=Scope("layer of experts whose declaration leaves activation scales open", _unsaid),
)
def partly_calibrated_experts(modules: Modules) -> Iterator[Found]:
    """In one layer some experts have an activation scale and others of the same projection have none.

    Why: experts that calibration never reached are written without; the loader's slot for them stays zero or
    uninitialised, and prompts that reach them answer with padding.
    Fix: calibrate with data that reaches every expert, or give those experts the layer's largest scale.
    Seen: vllm-project/vllm issue 45212 and PR 45320 (four experts of one layer).
    """
    for name, experts in modules.experts.items():
        with_, without = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
        for number, projections in experts.items():
            for projection, module in projections.items():
                has = not module.tensors.keys().isdisjoint(INPUTS)
                (with_ if has else without)[projection].append(number)
        for projection in sorted(with_.keys() & without.keys()):
            lost, total = sorted(without[projection]), len(experts)
            numbers = ", ".join(map(str, lost[:8])) + ", ..." * (len(lost) > 8)
            message = (
                f"{len(lost):,} of {total:,} experts of {name} have no activation scale for {projection} "
                f"(numbers {numbers}); calibrate them."
            )
            yield Found(message, tensor=f"{name}.{lost[0]}.{projection}")


# --- what was left alone --------------------------------------------------------------------------------------------

FEW = 10  # quantized weights are few where they are less than this part of all
SHARES = frozenset({"expert", "shared_expert", "attention", "mlp"})


def _declares(modules: Modules) -> bool:
    return modules.quant is not None and modules.quant.format in {*BLOCK, "mixed"}


@rule(
    "NM21",
    "mostly-unquantized",
    severity=WARNING,
    engines=(),
    scope=Scope("FP4 declaration", _declares),
)
def mostly_unquantized(modules: Modules) -> Iterator[Found]:
    """FP4 is declared and experts stored as one tensor, or nine tenths of all linear weights, are kept in 16 bits.

    Why: tools that look for linear layers pass over experts stored as one tensor, so a "4-bit" model is nearly as
    large as its source; where no entry excludes them, engines build packed experts and stop or compute nonsense.
    Fix: quantize the experts with a tool that knows how the model stores them, or exclude them by name.
    Seen: NVIDIA/Model-Optimizer issue 1173 (91 % of the weights passed over).
    """
    stacked = [module for module in modules.checkpoint.modules.values() if _plain_stack(module)]
    excluded = modules.excluded([name for module in stacked for name in _names(module)])
    left = [module for module in stacked if excluded.isdisjoint(_names(module))]
    if left:
        elements = sum(ref.elements for module in left for ref in module.tensors.values())
        message = (
            f"The experts of {len(left):,} layers, {elements:,} elements, are {next(iter(_dtypes(left)))} and no entry "
            "of the exclude list names them; quantize or exclude them."
        )
        yield Found(message, file=left[0].ref.shard, tensor=left[0].ref.name, severity=ERROR, engines=LOADERS)
    packed, total = _share(modules)
    if packed * FEW < total:
        share = 100 * packed / total
        message = (
            f"{share:.1f} % of {total:,} linear weights are quantized; the others keep 16 bits. Check that the layers "
            "meant to be quantized are."
        )
        yield Found(message)


def _plain_stack(module: Module) -> bool:
    """Whether a module holds all experts of a layer in 16-bit tensors of three dimensions."""
    named = module.role == "expert" and module.kind.endswith(
        (".experts", ".experts.gate_up_proj", ".experts.down_proj")
    )
    return named and any(len(ref.shape) == 3 and ref.dtype in PLAIN for ref in module.tensors.values())


def _names(module: Module) -> list[str]:
    return [module.name, *(f"{module.name}.{suffix}" for suffix in module.tensors)]


def _dtypes(modules: list[Module]) -> set[str]:
    return {ref.dtype for module in modules for ref in module.tensors.values() if len(ref.shape) == 3}


def _share(modules: Modules) -> tuple[int, int]:
    """Linear weights stored packed, and all of them; heads, embeddings, towers and prediction layers do not count."""
    packed = total = 0
    for module in modules.checkpoint.modules.values():
        if module.role not in SHARES or modules.predicts(module.name):
            continue
        for suffix, ref in module.tensors.items():
            if len(ref.shape) < 2 or suffix.endswith(("scale", "scales", "bias")):
                continue
            four = ref.dtype in {"U8", "F4", "I8"}
            elements = ref.elements * (2 if ref.dtype in {"U8", "I8"} else 8 if ref.dtype == "I32" else 1)
            total += elements
            packed += elements if four or ref.dtype == "I32" or ref.dtype.startswith("F8") else 0
    return packed, total
