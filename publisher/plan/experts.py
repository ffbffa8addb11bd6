"""Experts of a layer that lie in one tensor, as the matrices they become: each on its own, or the stack as a whole.

Which of the two, and under which names, is what loaders read (`data/architectures/experts.json`). Plain stacks become
`experts.N.gate_proj`, `up_proj` and `down_proj`, as every loader reads quantized experts. gpt-oss is read in its own
ways only. Refused, with the reason: a form no loader reads, matrices whose place in the tensor nothing tells.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.encoded import decoded_ref
from publisher.checkpoint.experts import BLOCKS, SCALES, STACKS, fused_stack, stack_experts
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import PLAIN, StoredWeight, UnreadableWeight
from publisher.plan.matrix import Matrix
from publisher.plan.model import QUANTIZE, Decision, Recipe
from publisher.plan.obstacles import by_class
from publisher.plan.policy import Policy

Written = Mapping[str, Any]


@functools.cache
def _facts() -> Mapping[str, Any]:
    facts: Mapping[str, Any] = jsonio.data("architectures/experts.json")
    return facts


def written(recipe: Recipe, checkpoint: Checkpoint) -> Written:
    """How a model's experts in one tensor are written: `parts` of each expert, or the `stack`.

    Raises:
        UnreadableWeight: no loader reads them in the recipe's layout and format.
    """
    own = _facts()["written"].get(str(checkpoint.config.get("model_type")))
    if own is None:
        return {"parts": _facts()["default_parts"]}
    how: Written | None = own["as"].get(f"{recipe.layout}/{recipe.format}")
    if how is None:
        known = " or ".join(f"{form} in {layout} layout" for layout, form in (key.split("/") for key in own["as"]))
        raise UnreadableWeight(f"{own['reason']}; write {known}")
    return how


def expand(recipe: Recipe, checkpoint: Checkpoint, module: Module) -> Iterator[Matrix]:
    """The matrices a stack is quantized as.

    Args:
        recipe: gives the layout and the format.
        checkpoint: the source.
        module: a module that holds all experts of a layer.

    Raises:
        UnreadableWeight: it cannot be; the message is a reason without the module's name.
    """
    projections = fused_stack(module)
    if not projections:
        held = ", ".join(sorted(suffix for suffix, ref in module.tensors.items() if len(ref.shape) >= 3))
        raise UnreadableWeight(f"experts stored as {held[:80]} are not known here; split them into 2-D tensors")
    how = written(recipe, checkpoint)
    if how.get("stack"):
        yield from _stacks(checkpoint, module)
        return
    for weight in stack_experts(checkpoint, module, how["parts"]):
        yield _expert(module, weight)


def expanded(
    recipe: Recipe, policy: Policy, checkpoint: Checkpoint, matrices: Iterable[Matrix]
) -> tuple[list[Matrix], dict[str, str]]:
    """The matrices with every stack the recipe asks for as what it is quantized as, in name order.

    Returns:
        The matrices, and of stacks that cannot be, by name, the reason; those stay as they were.
    """
    found: list[Matrix] = []
    refused: dict[str, str] = {}
    for matrix in matrices:
        if not matrix.stacked or policy.wants(matrix) is None:
            found.append(matrix)
            continue
        try:
            found += expand(recipe, checkpoint, matrix.module)
        except UnreadableWeight as error:
            refused[matrix.name] = error.message.rstrip(".")
            found.append(matrix)
    return sorted(found, key=lambda matrix: matrix.name), refused


def unexpanded(refused: Mapping[str, str], matrices: Iterable[Matrix], decisions: Iterable[Decision]) -> Iterator[str]:
    """What about stacks stops a plan, a sentence a reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in refused.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        yield f"{by_class(names)} hold all experts of a layer in one tensor and cannot be quantized: {reason}"
    decided = list(zip(matrices, decisions, strict=True))
    blocks = [m.name for m, _ in decided if m.stacked and m.name not in refused and _in_blocks(m.module)]
    if blocks and any(decision.action == QUANTIZE for _, decision in decided):
        yield (
            f"{by_class(blocks)} hold experts in MXFP4 blocks, which no engine reads beside another format; quantize "
            "them too, or nothing"
        )


def read_by(recipe: Recipe, checkpoint: Checkpoint, matrices: Iterable[Matrix]) -> Iterator[str]:
    """Who reads experts that only some engines read in the way they are written."""
    own = _facts()["written"].get(str(checkpoint.config.get("model_type")))
    how = own["as"].get(f"{recipe.layout}/{recipe.format}") if own else None
    if how is None or not any(matrix.fused for matrix in matrices):
        return
    yield f"these experts are read by {how['read_by']} in {recipe.layout} layout, by no other engine that is known"
    if how.get("stack") and recipe.activations == "none":
        yield "no engine is known to read a stack of experts weight-only; name `statistics` for FP4 activations"


def _in_blocks(module: Module) -> bool:
    return any(suffix.endswith(BLOCKS) for suffix in module.tensors)


def _expert(module: Module, weight: StoredWeight) -> Matrix:
    """One expert's matrix; its bytes are a share of the stack's."""
    name, part = weight.name, weight.name.rpartition(".")[2]
    projection = part if part in STACKS else STACKS[0]
    aliases = (f"{module.name}.{projection}", module.name)
    at = TensorRef(f"{name}.weight", weight.form, (weight.rows, weight.columns), weight.ref.shard, 0, weight.size)
    if weight.form in PLAIN:
        return Matrix(Module(name, module.role, {"weight": at}, _kind(module, part)), at, aliases=aliases, fused=weight)
    own = Module(name, module.role, {"weight": at}, _kind(module, part))
    return Matrix(own, decoded_ref(weight), encoded=weight, aliases=aliases, fused=weight)


def _stacks(checkpoint: Checkpoint, module: Module) -> Iterator[Matrix]:
    """Both stacks of a layer, each as one matrix of three dimensions (E, out, in)."""
    for first in list(stack_experts(checkpoint, module, STACKS))[:2]:
        projection = first.name.rpartition(".")[2]
        suffixes = (projection, f"{projection}{BLOCKS}", f"{projection}{SCALES}")
        tensors = {suffix: module.tensors[suffix] for suffix in suffixes if suffix in module.tensors}
        form = "BF16" if first.form == "mxfp4" else first.form
        size = sum(ref.size for ref in tensors.values())
        shape = (first.ref.shape[0], first.rows, first.columns)
        yield Matrix(
            Module(f"{module.name}.{projection}", module.role, tensors, f"{module.kind}.{projection}"),
            TensorRef(f"{module.name}.{projection}", form, shape, first.ref.shard, 0, size),
            encoded=first if first.form == "mxfp4" else None,
            aliases=(module.name,),
            fused=first,
            experts=first.ref.shape[0],
        )


def _kind(module: Module, part: str) -> str:
    return f"{module.kind}.*.{part}"
