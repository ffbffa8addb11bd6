"""What shard headers say about a quantized checkpoint: parameters, coverage, stored keys. No tensor byte is read.

Parameters are logical: a packed byte counts as the two weights it holds, an int4 word as eight, and scales are not
counted, unlike the Hub's own number. Coverage is what is stored, not what a configuration claims: every module that
keeps its weight in full precision is listed whether or not the exclude list names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from publisher.checkpoint.census import PACKED, SCALES, logical_elements, spans
from publisher.checkpoint.experts import STACKS
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module, class_of, layer_of
from publisher.checkpoint.open import Checkpoint
from publisher.errors import PublisherError
from publisher.matching import exact_or_regex_excluded, modelopt_excluded
from publisher.subjects.modules import stack_of

KV_SCALES = ("k_scale", "v_scale")
NOT_LINEAR = frozenset({"embedding", "norm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """Modules of one class that are stored alike.

    Args:
        pattern: their name with numbers replaced by `*`.
        role: their role.
        quantized: whether they are stored quantized.
        modules: how many.
        layers: the layers they lie in, such as `0-29`; empty outside layers.
        dtype: dtype of the stored weight.
        shape: logical (out, in) of the weight, None when it differs.
        parameters: logical parameters of all of them.
        listed: kept modules: how many of them the exclude list names; None where that cannot be said.
    """

    pattern: str
    role: str
    quantized: bool
    modules: int
    layers: str
    dtype: str
    shape: tuple[int, ...] | None
    parameters: int
    listed: int | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One tensor of a quantized linear layer: its suffix, dtype and shape."""

    suffix: str
    dtype: str
    shape: tuple[int, ...]


def logical_parameters(checkpoint: Checkpoint) -> tuple[int, int]:
    """(all weights, those of them stored quantized)."""
    quantized = {name: module.quantized for name, module in checkpoint.modules.items()}
    total = packed = 0
    for ref in checkpoint.tensors.values():
        elements = logical_elements(ref, quantized)
        total += elements
        module, _, suffix = ref.name.rpartition(".")
        stacked = suffix in STACKS and ref.dtype == "U8"
        if stacked or suffix.endswith("_blocks") or (quantized.get(module) and suffix in ("weight", "weight_packed")):
            packed += elements
    return total, packed


def dominant_dtype(tensors: Iterable[TensorRef]) -> str | None:
    """The dtype most bytes are stored in."""
    sizes: Counter[str] = Counter()
    for ref in tensors:
        sizes[ref.dtype] += ref.size
    return sizes.most_common(1)[0][0] if sizes else None


def quantized_modules(checkpoint: Checkpoint) -> list[Module]:
    """Modules stored quantized, in name order."""
    return [module for module in checkpoint.modules.values() if module.quantized]


def fp8_modules(checkpoint: Checkpoint) -> list[Module]:
    """Modules stored in FP8 with scales, in name order."""
    return [
        module
        for module in checkpoint.modules.values()
        if (weight := module.weight) is not None
        and weight.dtype == "F8_E4M3"
        and not module.tensors.keys().isdisjoint({"weight_scale", "weight_scale_inv"})
    ]


def kv_scales(checkpoint: Checkpoint) -> int:
    """How many scales of the KV cache are stored."""
    return sum(ref.name.rpartition(".")[2] in KV_SCALES for ref in checkpoint.tensors.values())


def coverage(checkpoint: Checkpoint) -> tuple[CoverageRow, ...]:
    """One row per class of modules with a weight matrix, quantized ones first, each half in name order."""
    groups: dict[tuple[bool, str, str], list[Module]] = {}
    for module in checkpoint.modules.values():
        weight = module.weight
        if weight is not None and len(weight.shape) >= 2:
            groups.setdefault((not module.quantized, class_of(module.name), weight.dtype), []).append(module)
    listed = _listed(checkpoint, [m for key, members in groups.items() if key[0] for m in members])
    rows = []
    for (kept, pattern, dtype), members in sorted(groups.items()):
        shapes = {_logical_shape(module) for module in members}
        named = None if listed is None or not kept else sum(module.name in listed for module in members)
        rows.append(
            CoverageRow(
                pattern=pattern,
                role=members[0].role,
                quantized=not kept,
                modules=len(members),
                layers=_layers(members),
                dtype=dtype,
                shape=next(iter(shapes)) if len(shapes) == 1 else None,
                parameters=sum(_elements(module) for module in members),
                listed=named,
            )
        )
    return (*_stack_rows(checkpoint), *rows)


def _stack_rows(checkpoint: Checkpoint) -> Iterator[CoverageRow]:
    """Experts that are packed in one tensor for each projection, (E, in / 2, out)."""
    groups: dict[str, list[tuple[Module, TensorRef]]] = {}
    for module in checkpoint.modules.values():
        for projection in stack_of(module):
            groups.setdefault(f"{module.kind}.{projection}", []).append((module, module.tensors[projection]))
    for pattern, members in sorted(groups.items()):
        shapes = {(ref.shape[0], ref.shape[2], ref.shape[1] * 2) for _, ref in members}
        yield CoverageRow(
            pattern=pattern,
            role=members[0][0].role,
            quantized=True,
            modules=len(members),
            layers=_layers([module for module, _ in members]),
            dtype="U8",
            shape=next(iter(shapes)) if len(shapes) == 1 else None,
            parameters=sum(2 * ref.elements for _, ref in members),
            listed=None,
        )


def other_tensors(checkpoint: Checkpoint) -> list[TensorRef]:
    """Tensors that are neither a weight matrix nor a scale: norms, biases, tables."""
    return [
        ref
        for ref in checkpoint.tensors.values()
        if ref.name.rpartition(".")[2] not in SCALES
        and not _of_stack(checkpoint, ref)
        and not (len(ref.shape) >= 2 and ref.name.rpartition(".")[2] in ("weight", "weight_packed"))
    ]


def _of_stack(checkpoint: Checkpoint, ref: TensorRef) -> bool:
    """Whether a tensor is the payload or a scale of packed experts."""
    module, _, suffix = ref.name.rpartition(".")
    parts = ("", "_weight_scale", "_weight_scale_2", "_input_scale")
    return any(suffix in {f"{p}{part}" for part in parts} for p in stack_of(checkpoint.modules[module]))


def stored_keys(checkpoint: Checkpoint) -> tuple[str, tuple[StoredKey, ...]] | None:
    """An example of a quantized linear layer, the one with the most keys, and the tensors it is stored as."""
    found = max(quantized_modules(checkpoint), key=lambda module: len(module.tensors), default=None)
    if found is None:
        return _stack_keys(checkpoint)
    keys = [StoredKey(suffix, ref.dtype, ref.shape) for suffix, ref in sorted(found.tensors.items())]
    return found.name, tuple(keys)


def _stack_keys(checkpoint: Checkpoint) -> tuple[str, tuple[StoredKey, ...]] | None:
    """The same of experts that are packed in one tensor; the payload stands under the name `weight`."""
    module = next((module for module in checkpoint.modules.values() if stack_of(module)), None)
    if module is None:
        return None
    projection = stack_of(module)[0]
    own = {s.removeprefix(f"{projection}_"): r for s, r in module.tensors.items() if s.startswith(f"{projection}_")}
    own["weight"] = module.tensors[projection]
    keys = tuple(StoredKey(suffix, ref.dtype, ref.shape) for suffix, ref in sorted(own.items()))
    return f"{module.name}.{projection}", keys


def block_length(module: Module) -> int | None:
    """Weights that share one block scale, from the shapes of payload and scale; None where they do not fit."""
    weight, scale = module.weight, module.tensors.get("weight_scale")
    if weight is None or scale is None or not weight.shape or not scale.shape or not scale.shape[-1]:
        return None
    length, rest = divmod(weight.shape[-1] * PACKED.get(weight.dtype, 1), scale.shape[-1])
    return length if not rest else None


# --- details -------------------------------------------------------------------------------------------------------


def _logical_shape(module: Module) -> tuple[int, ...]:
    weight = module.weight
    if weight is None:
        return ()
    factor = PACKED.get(weight.dtype, 1) if module.quantized else 1
    return (*weight.shape[:-1], weight.shape[-1] * factor)


def _elements(module: Module) -> int:
    weight = module.weight
    return 0 if weight is None else weight.elements * (PACKED.get(weight.dtype, 1) if module.quantized else 1)


def _listed(checkpoint: Checkpoint, kept: list[Module]) -> frozenset[str] | None:
    """Names the exclude list leaves unquantized by its own dialect's reading; None where it cannot be read."""
    quant = checkpoint.quant
    if quant is None:
        return None
    reading = modelopt_excluded if quant.dialect == "modelopt" else exact_or_regex_excluded
    try:
        return frozenset(reading(quant.ignore, [module.name for module in kept]))
    except PublisherError:
        return None


def _layers(members: list[Module]) -> str:
    numbers = sorted({number for module in members if (number := layer_of(module.name)) is not None})
    return spans(numbers)
