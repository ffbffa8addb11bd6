"""Turn a recipe and a checkpoint into a plan: for every weight matrix quantize or keep, and what follows from that.

Nothing is read but headers. What cannot work is collected in `problems`, all of it, before any weight is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import class_of, fused_groups, layer_of
from publisher.checkpoint.open import Checkpoint
from publisher.formats.fp8 import BESIDE
from publisher.plan import sparsity
from publisher.plan.declaration import exclude_list, hf_quant_config, implied_head, quantization_config
from publisher.plan.experts import expanded, read_by, unexpanded
from publisher.plan.matrix import Matrix, matrices_of, prediction_layers
from publisher.plan.model import KEEP, QUANTIZE, ClassSummary, Decision, Plan, Recipe
from publisher.plan.obstacles import source_obstacles
from publisher.plan.policy import Policy
from publisher.plan.problems import problems as found_problems
from publisher.plan.problems import warnings
from publisher.plan.proof import disagreements
from publisher.plan.sizes import Stack, disk_needed, kv_scales_size, memory_needed, quantized_size, shard_count


def make_plan(recipe: Recipe, checkpoint: Checkpoint, *, commit: str | None = None) -> Plan:
    """Decide everything a quantization run will do; nothing is read but headers.

    Args:
        recipe: what was asked.
        checkpoint: the source.
        commit: commit sha of a Hub source.

    Returns:
        The plan; where `problems` is not empty it must not be started.
    """
    policy = Policy(recipe, prediction_layers(checkpoint.modules.values()))
    matrices, refused = expanded(recipe, policy, checkpoint, matrices_of(checkpoint))
    groups = fused_groups(matrix.name for matrix in matrices)
    decisions = _decide(policy, matrices, groups)
    quantized = [d.module for d in decisions if d.action == QUANTIZE]
    kept = [d.module for d in decisions if d.action == KEEP]
    head = None if any(m.module.role == "head" for m in matrices) else implied_head(checkpoint.modules)
    listed_names = [*kept, head] if head else kept
    exclude = exclude_list(recipe.layout, quantized, listed_names)
    problems = [
        *source_obstacles(checkpoint),
        *unexpanded(refused, matrices, decisions),
        *found_problems(recipe, policy, checkpoint, matrices, decisions, groups),
        *sparsity.problems(recipe, matrices, decisions),
        *(disagreements(recipe.layout, exclude, quantized, listed_names) if quantized else ()),
    ]
    mixed = any(decision.format for decision in decisions)
    layers = {d.module: d.format or recipe.format for d in decisions if d.action == QUANTIZE} if mixed else {}
    sizes = _sizes(recipe, matrices, decisions)
    before, after = checkpoint.tensor_bytes, _result_bytes(recipe, checkpoint, sizes, matrices)
    return Plan(
        recipe=recipe,
        source_label=checkpoint.files.label,
        source_commit=commit,
        decisions=tuple(decisions),
        classes=_classes(matrices, decisions, sizes),
        exclude=exclude,
        quantization_config=quantization_config(recipe, exclude, layers),
        hf_quant_config=hf_quant_config(recipe, exclude, layers),
        bytes_before=before,
        bytes_after=after,
        shards=_shards(recipe, checkpoint, matrices, sizes),
        disk_needed=disk_needed(recipe, after, sum(checkpoint.side_files.values()), 4 * len(checkpoint.tensors)),
        memory_needed=_memory(recipe, checkpoint, matrices, decisions),
        problems=tuple(dict.fromkeys(problems)),
        warnings=(
            *warnings(recipe, policy, matrices, decisions),
            *read_by(recipe, checkpoint, matrices),
            *sparsity.warnings(recipe, sparsity.prunable(decisions)),
        ),
    )


def _decide(policy: Policy, matrices: Sequence[Matrix], groups: Mapping[str, tuple[str, ...]]) -> list[Decision]:
    layer = {member: fused for fused, members in groups.items() for member in members}
    found = []
    for matrix in matrices:
        decision = policy.decide(matrix)
        if decision.action == QUANTIZE and matrix.name in layer:
            decision = replace(decision, group=layer[matrix.name])
        found.append(decision)
    return found


# --- sizes ---------------------------------------------------------------------------------------------------------


def _sizes(recipe: Recipe, matrices: Sequence[Matrix], decisions: Sequence[Decision]) -> dict[str, int]:
    """Bytes of each decided module in the result, bias and the like included."""
    sizes = {}
    for matrix, decision in zip(matrices, decisions, strict=True):
        weight = matrix.weight_size
        if decision.action == QUANTIZE and decision.format is None:
            weight = quantized_size(recipe, matrix.weight.elements)
        elif decision.action == QUANTIZE:
            weight = BESIDE[recipe.layout].size(*matrix.weight.shape)
        sizes[matrix.name] = matrix.beside + weight
    return sizes


def _result_bytes(recipe: Recipe, checkpoint: Checkpoint, sizes: Mapping[str, int], matrices: Sequence[Matrix]) -> int:
    layers = {layer_of(m.name) for m in matrices if m.module.role == "attention"} - {None}
    rest = checkpoint.tensor_bytes - sum(matrix.size for matrix in matrices)
    return rest + sum(sizes.values()) + kv_scales_size(recipe, len(layers))


def _shards(recipe: Recipe, checkpoint: Checkpoint, matrices: Sequence[Matrix], sizes: Mapping[str, int]) -> int:
    split: dict[str, list[int]] = defaultdict(list)
    for matrix in matrices:
        if matrix.fused is not None:
            split[matrix.aliases[-1]].append(sizes[matrix.name])

    def bundles() -> Iterator[int]:
        for name, module in checkpoint.modules.items():
            if name in split:
                yield from split[name]
            else:
                yield sizes.get(name, sum(ref.size for ref in module.tensors.values()))

    return shard_count(bundles(), recipe.shard_size)


def _memory(recipe: Recipe, checkpoint: Checkpoint, matrices: Sequence[Matrix], decisions: Sequence[Decision]) -> int:
    groups: dict[str, list[TensorRef]] = defaultdict(list)
    stacks: list[Stack] = []
    for matrix, decision in zip(matrices, decisions, strict=True):
        packed = matrix.fused is not None and matrix.fused.form == "mxfp4"
        if decision.action != QUANTIZE or (packed and recipe.format == "mxfp4"):  # codes that are copied
            continue
        if matrix.experts:
            stacks.append(Stack(experts=matrix.experts, elements=matrix.once.elements, taken_over=packed))
        else:
            groups[decision.group or matrix.name].append(matrix.weight)
    tensors = len(checkpoint.tensors)
    return memory_needed(recipe, checkpoint.tensor_bytes, groups.values(), stacks, tensors=tensors)


def _classes(
    matrices: Sequence[Matrix], decisions: Sequence[Decision], sizes: Mapping[str, int]
) -> tuple[ClassSummary, ...]:
    grouped: dict[tuple[str, str, str, str], list[Matrix]] = defaultdict(list)
    for matrix, decision in zip(matrices, decisions, strict=True):
        decided_by = decision.pattern or decision.reason
        decided_by += f" ({decision.format})" if decision.format else ""
        grouped[class_of(matrix.name), matrix.module.role, decision.action, decided_by].append(matrix)
    return tuple(
        ClassSummary(
            pattern=pattern,
            role=role,
            action=action,
            decided_by=decided_by,
            modules=len(members),
            shape=members[0].weight.shape if len({m.weight.shape for m in members}) == 1 else None,
            bytes_before=sum(m.size for m in members),
            bytes_after=sum(sizes[m.name] for m in members),
        )
        for (pattern, role, action, decided_by), members in sorted(grouped.items())
    )
