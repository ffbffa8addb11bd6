"""What in the decisions cannot work, and what a person should know first: sentences with numbers and the remedy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from publisher.checkpoint.encoded import ENCODED, NAMES
from publisher.checkpoint.modules import class_of
from publisher.checkpoint.open import Checkpoint
from publisher.formats.spec import FORMATS
from publisher.plan.matrix import Matrix
from publisher.plan.model import KEEP, QUANTIZE, Decision, Recipe
from publisher.plan.obstacles import FLOATS, by_class, listed
from publisher.plan.policy import PROTECTED, ROUTER, Policy
from publisher.plan.proof import moe_module
from publisher.plan.recipe import MODES
from publisher.units import format_bytes


def problems(
    recipe: Recipe,
    policy: Policy,
    checkpoint: Checkpoint,
    matrices: Sequence[Matrix],
    decisions: Sequence[Decision],
    groups: Mapping[str, tuple[str, ...]],
) -> Iterator[str]:
    """What in a recipe's decisions cannot work.

    Args:
        recipe: what was asked.
        policy: its patterns.
        checkpoint: the source.
        matrices: the modules decided on.
        decisions: one for each of them.
        groups: fused layers and their members.
    """
    quantized = [m for m, d in zip(matrices, decisions, strict=True) if d.action == QUANTIZE]
    chosen = {matrix.name for matrix in quantized}
    formats = {d.module: d.format or recipe.format for d in decisions if d.action == QUANTIZE}
    yield from _unmatched(policy, matrices)
    if not quantized:
        yield "nothing would be quantized: no `quantize` pattern reaches a weight that may be; see the table of modules"
    yield from _shapes(recipe, quantized, formats)
    yield from _several(recipe, groups, formats)
    yield from _engine(recipe, matrices)
    yield from _mode(recipe, quantized)
    yield from _partly(groups, chosen)
    yield from _mixed_experts(matrices, chosen)
    routers = [m.name for m in matrices if m.module.role == "router" and policy.names(m)]
    routers = [name for name in routers if policy.keep.first_match(name) is None]
    if routers:
        yield f"{ROUTER}: {by_class(routers)}; remove the pattern that names it"
    tied = [m.name for m in quantized if m.module.role == "embedding" and _tied(checkpoint)]
    if tied:
        yield f"{listed(tied)} is also the output head (tie_word_embeddings) and cannot be quantized; keep it"


def _unmatched(policy: Policy, matrices: Sequence[Matrix]) -> Iterator[str]:
    names = [name for m in matrices for name in m.names]
    globs = [policy.quantize, *(globs for _, globs in policy.also)]
    for pattern in (pattern for one in globs for pattern in one.unused(names)):
        yield f"the quantize pattern {pattern!r} matches none of the {len(matrices):,} weight matrices; correct it"


def _shapes(recipe: Recipe, quantized: Sequence[Matrix], formats: Mapping[str, str]) -> Iterator[str]:
    block = FORMATS[recipe.format].block
    blocked = [m for m in quantized if formats[m.name] == recipe.format]
    uneven = [m for m in blocked if m.weight.shape[-1] % block or not m.weight.shape[-1]]
    if uneven:
        widths = ", ".join(map(str, sorted({m.weight.shape[-1] for m in uneven})[:5]))
        yield (
            f"{by_class(m.name for m in uneven)}: {widths} inputs are not a multiple of the {block} weights a "
            f"{recipe.format} block has; keep these modules"
        )
    empty = [m.name for m in blocked if not m.weight.elements and m.name not in {one.name for one in uneven}]
    if empty:
        yield f"{by_class(empty)} hold no weights at all; fetch the source again, or keep them"
    odd = [m for m in quantized if m.weight.dtype not in FLOATS and m.weight.dtype not in ENCODED]
    if odd:
        dtypes = ", ".join(sorted({m.weight.dtype for m in odd}))
        yield f"{by_class(m.name for m in odd)} are {dtypes}; this version reads {', '.join(FLOATS)}; keep them"


def _several(recipe: Recipe, groups: Mapping[str, tuple[str, ...]], formats: Mapping[str, str]) -> Iterator[str]:
    """Layers that engines build as one and that would get two formats; formats asked for in vain."""
    if not recipe.also:
        return
    fused = [name for name, members in groups.items() if len({formats[m] for m in members if m in formats}) > 1]
    experts: dict[str, set[str]] = defaultdict(set)
    for name, form in formats.items():
        experts[moe_module(name) or name].add(form)
    split = [*fused, *(name for name, forms in experts.items() if len(forms) > 1)]
    if split:
        yield f"{by_class(split)} would get two formats; engines load each as one layer, so choose one for all of it"
    for form in {one.format for one in recipe.also} - set(formats.values()):
        yield f"no module would be quantized to {form}; correct the patterns of `also`"
    if formats and recipe.format not in formats.values():
        yield f"no module would be quantized to {recipe.format}, the recipe's format; correct `quantize` or `also`"


def _engine(recipe: Recipe, matrices: Sequence[Matrix]) -> Iterator[str]:
    encoded = [matrix for matrix in matrices if matrix.encoded]
    if encoded and recipe.engine != "native":
        yield (
            f"{len(encoded):,} weights of the source are stored in {_forms(encoded)}, which engine {recipe.engine} "
            "does not decode; use engine native"
        )
    fused = [matrix for matrix in matrices if matrix.fused and not matrix.encoded]
    if fused and recipe.engine != "native":
        yield (
            f"{by_class(matrix.name for matrix in fused)} lie in one tensor per layer, which engine {recipe.engine} "
            "does not split; use engine native"
        )


def _mode(recipe: Recipe, quantized: Sequence[Matrix]) -> Iterator[str]:
    """A way of choosing scales asked for where there is nothing to choose, so that the record would not be true."""
    blocks = _blocks(quantized)
    usual = MODES[recipe.format][0]
    if recipe.mode == usual or not blocks or (recipe.format == "nvfp4" and len(blocks) < len(quantized)):
        return
    yield (
        f"`mode`: {recipe.mode} chooses scales, and {by_class(matrix.name for matrix in blocks)}, stored in MXFP4, "
        f"keep the ones they have; use {usual}"
    )


def _blocks(matrices: Iterable[Matrix]) -> list[Matrix]:
    return [matrix for matrix in matrices if matrix.encoded and matrix.encoded.form == "mxfp4"]


def _forms(encoded: Sequence[Matrix]) -> str:
    return " and ".join(sorted({NAMES[matrix.encoded.form] for matrix in encoded if matrix.encoded}))


def _partly(groups: Mapping[str, tuple[str, ...]], chosen: set[str]) -> Iterator[str]:
    """Fused layers of which only some members are quantized, one sentence a class."""
    found: Counter[tuple[str, str, str]] = Counter()
    for fused, members in groups.items():
        inside = [name.rpartition(".")[2] for name in members if name in chosen]
        if inside and len(inside) < len(members):
            outside = [name.rpartition(".")[2] for name in members if name not in chosen]
            found[class_of(fused), ", ".join(inside), ", ".join(outside)] += 1
    for (layer, quantized, kept), count in sorted(found.items()):
        yield (
            f"{layer} ({count}): {quantized} would be quantized but {kept} kept; engines load them as one layer, so "
            "quantize all or none"
        )


def _mixed_experts(matrices: Sequence[Matrix], chosen: set[str]) -> Iterator[str]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for matrix in matrices:
        module = moe_module(matrix.name)
        if module:
            counts[module][matrix.name in chosen] += 1
    mixed = {module: pair for module, pair in counts.items() if all(pair)}
    if mixed:
        kept, quantized = next(iter(mixed.values()))
        yield (
            f"{by_class(mixed)}: {quantized} expert projections of a layer would be quantized and {kept} kept; engines "
            "load all experts of a layer as one module, so quantize all or none"
        )


def _tied(checkpoint: Checkpoint) -> bool:
    text = checkpoint.config.get("text_config")
    holders = [checkpoint.config, text if isinstance(text, Mapping) else {}]
    return any(holder.get("tie_word_embeddings") is True for holder in holders)


def warnings(
    recipe: Recipe, policy: Policy, matrices: Sequence[Matrix], decisions: Sequence[Decision]
) -> Iterator[str]:
    """What a person should know before starting."""
    for pattern in policy.keep.unused(name for matrix in matrices for name in matrix.names):
        yield f"the keep pattern {pattern!r} matches nothing"
    taken = [m for m, decision in zip(matrices, decisions, strict=True) if decision.action == QUANTIZE]
    swept = policy.quantize.unused(name for matrix in taken for name in matrix.names)
    missed = set(policy.quantize.unused(name for matrix in matrices for name in matrix.names))
    for pattern in swept:
        if pattern not in missed:
            yield f"all that the quantize pattern {pattern!r} matches is kept"
    unusual = [
        m.name for m, d in zip(matrices, decisions, strict=True) if d.action == QUANTIZE and m.module.role in PROTECTED
    ]
    if unusual:
        yield f"{by_class(unusual)} would be quantized as named; few engines load that"
    yield from _decoded(recipe, matrices, decisions)
    if recipe.activations == "none" and recipe.format == "nvfp4":
        yield (
            "weight-only (W4A16): engines multiply in 16 bits; for FP4 activations name `statistics`, or use engine "
            "modelopt and calibrate"
        )


def _decoded(recipe: Recipe, matrices: Sequence[Matrix], decisions: Sequence[Decision]) -> Iterator[str]:
    """What happens to weights the source itself stores in fewer bits."""
    encoded = [(m, d.action) for m, d in zip(matrices, decisions, strict=True) if m.encoded]
    blocks = _blocks(m for m, action in encoded if action == QUANTIZE)
    if blocks:
        how = (
            "and take their codes over as they are"
            if recipe.format == "mxfp4"
            else (
                "and take their codes over as they are wherever NVFP4's scales reach the block's; what is rounded is "
                "counted in the record"
            )
        )
        yield f"{sum(max(m.experts, 1) for m in blocks):,} weights to quantize are stored in MXFP4 {how}"
    recoded = {matrix.name for matrix in blocks}
    taken = [m for m, action in encoded if action == QUANTIZE and m.name not in recoded]
    if taken:
        yield f"{len(taken):,} weights to quantize are stored in {_forms(taken)} and decoded to BF16; its error remains"
    kept = [matrix for matrix, action in encoded if action == KEEP]
    if kept:
        before, after = format_bytes(sum(m.size for m in kept)), format_bytes(sum(m.kept_size for m in kept))
        yield (
            f"{len(kept):,} kept weights are stored in {_forms(kept)}, which cannot stay beside the new format; they "
            f"are written in BF16 ({before} → {after}): {by_class(m.name for m in kept)}"
        )
