"""What a plan amounts to beyond sizes: fused layers split over shards, tied heads, prediction layers, GPUs.

Facts of headers and configuration, a label and a sentence each; what cannot work is in `problems`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.checkpoint.encoded import NAMES
from publisher.checkpoint.experts import BLOCKS
from publisher.checkpoint.modules import Module, fused_groups
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.parallel import LOADERS, tensor_parallel
from publisher.plan.matrix import matrices_of
from publisher.plan.model import Plan
from publisher.plan.obstacles import by_class
from publisher.units import format_bytes

COUNTS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")


def notices(plan: Plan, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Label and sentence of everything worth knowing about a plan and its source.

    Args:
        plan: the plan.
        checkpoint: its source.
    """
    yield "source weights", stored_as(checkpoint)
    yield from _split(plan, checkpoint)
    yield from _tied(checkpoint)
    yield from _predicting(plan, checkpoint)
    yield from _parallel(plan, checkpoint)


def stored_as(checkpoint: Checkpoint) -> str:
    """What the source's weight matrices are stored as: `INT4 69,120 (507 GB), BF16 434 (23 GB)`."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for matrix in matrices_of(checkpoint):
        kind = NAMES[matrix.encoded.form] if matrix.encoded else matrix.weight.dtype
        if matrix.stacked:
            blocks = any(suffix.endswith(BLOCKS) for suffix in matrix.module.tensors)
            kind = f"{'MXFP4' if blocks else kind} stacks of experts"
        counts[kind] += 1
        sizes[kind] += matrix.size
    ordered = sorted(sizes, key=lambda kind: -sizes[kind])
    return ", ".join(f"{kind} {counts[kind]:,} ({format_bytes(sizes[kind])})" for kind in ordered) or "none"


def _split(plan: Plan, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Tools that work shard by shard give the halves of a split layer different global scales."""
    quantized = [decision.module for decision in plan.quantized]
    groups = fused_groups(quantized)
    split = [
        fused
        for fused, members in groups.items()
        if len({shard for member in members for shard in _home(checkpoint, member).shards}) > 1
    ]
    if split:
        yield (
            "fused layers",
            f"{len(groups):,}, of which {len(split):,} lie in two shards or more ({by_class(split, 2)}); "
            f"engine {plan.recipe.engine} gives their members one scale all the same",
        )


def _tied(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    if not any(holder.get("tie_word_embeddings") is True for holder in _configs(checkpoint)):
        return
    heads = [module.name for module in checkpoint.modules.values() if module.role == "head" and module.weight]
    if heads:
        yield "tied head", f"config.json ties it to the embedding, yet {heads[0]} is stored; both are kept"
    else:
        yield "tied head", "the embedding is also the output head; it is kept"


def _predicting(plan: Plan, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    declared = next((c[key] for c in _configs(checkpoint) for key in COUNTS if type(c.get(key)) is int and c[key]), 0)
    reasons = {decision.module for decision in plan.kept if (decision.reason or "").startswith("prediction layer")}
    quantized = [d.module for d in plan.quantized if _home(checkpoint, d.module).role == "mtp"]
    if quantized:
        yield "prediction layers", f"{len(quantized):,} modules quantized as named"
    elif reasons:
        yield "prediction layers", f"{len(reasons):,} modules kept and excluded: {by_class(sorted(reasons), 2)}"
    elif declared:
        yield "prediction layers", f"config.json declares {declared}, the source stores none; speculation will not work"


def _parallel(plan: Plan, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """The sizes every engine can serve the result with, and what stands against the others."""
    chosen = {decision.module for decision in plan.quantized}
    splits = tensor_parallel(checkpoint, format_of=lambda m: plan.recipe.format if m.name in chosen else None)
    works = [split.size for split in splits if not any(split.refused(engine) for engine in LOADERS)]
    yield "tensor parallel", ", ".join(map(str, works)) or "no size that every engine can serve"
    for split in splits:
        limits = [limit for engine in LOADERS for limit in split.refused(engine)]
        if limits:
            engines = ", ".join(engine for engine in LOADERS if split.refused(engine))
            yield f"not over {split.size} GPUs", f"{limits[0].reason} ({limits[0].subject}; {engines})"


def _home(checkpoint: Checkpoint, name: str) -> Module:
    """The module a name belongs to: its own, or the stack that an expert lies in."""
    while name not in checkpoint.modules:
        name = name.rpartition(".")[0]
    return checkpoint.modules[name]


def _configs(checkpoint: Checkpoint) -> Iterator[Mapping[str, Any]]:
    yield checkpoint.config
    text = checkpoint.config.get("text_config")
    if isinstance(text, Mapping):
        yield text
