"""Experts out of tensors that hold a whole layer's, as the tensors a job works with.

Each expert a job names gets a tensor of its own name that points into the fused one; biases are told apart with them.
Codes of MXFP4 that the result stores in the same way are such pointers too, so that copying them repacks bit for bit.
A job that names the stacks themselves gets those. Refused: a job that takes some experts of a stack and leaves others,
which would lose them; biases that do not belong to their experts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from publisher.checkpoint.encoded import DECODED
from publisher.checkpoint.experts import BLOCKS, SCALES, STACKS, fused_stack, stack_experts
from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import PLAIN, StoredWeight, UnreadableWeight
from publisher.errors import CheckpointError
from publisher.formats.spec import Layout

BIAS = "_bias"
_AGAIN = "Make the plan again from this source."


@dataclass(slots=True)
class Apart:
    """What became of fused tensors.

    Args:
        refs: the tensors that took their place.
        weights: how an expert's weight is stored, by tensor name.
        stacks: the experts of a stack that stays one tensor, by its name.
        repacked: modules whose codes are taken over as they are.
        gone: the fused tensors.
    """

    refs: list[TensorRef] = field(default_factory=list)
    weights: dict[str, StoredWeight] = field(default_factory=dict)
    stacks: dict[str, tuple[StoredWeight, ...]] = field(default_factory=dict)
    repacked: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)


def take_apart(checkpoint: Checkpoint, quantize: Collection[str], layout: Layout | None) -> Apart:
    """The experts of fused tensors that are to be quantized.

    Args:
        checkpoint: the source.
        quantize: names of modules; those the source has under their own name are none of this function's business.
        layout: of the result; None takes no code over as it is.

    Raises:
        CheckpointError: as the module says, with names and numbers.
    """
    found, asked = Apart(), _by_stack(checkpoint, quantize)
    for name, modules in asked.items():
        module = checkpoint.modules[name]
        try:
            if modules == {f"{name}.{projection}" for projection in STACKS}:
                _whole(checkpoint, module, found)
            else:
                _one_by_one(checkpoint, module, modules, layout, found)
        except UnreadableWeight as error:
            raise CheckpointError(f"{name}: {error.message.rstrip('.')}.", hint=_AGAIN) from error
    return found


def _by_stack(checkpoint: Checkpoint, quantize: Iterable[str]) -> dict[str, set[str]]:
    stacks: dict[str, set[str]] = {}
    for name in quantize:
        head, mark, _ = name.rpartition(".experts.")
        holder = checkpoint.modules.get(f"{head}.experts") if mark and name not in checkpoint.modules else None
        if holder is not None and fused_stack(holder):
            stacks.setdefault(holder.name, set()).add(name)
    return stacks


def _whole(checkpoint: Checkpoint, module: Module, found: Apart) -> None:
    experts = list(stack_experts(checkpoint, module, STACKS))
    for index, projection in enumerate(STACKS):
        own = tuple(experts[index :: len(STACKS)])
        first, name = own[0], f"{module.name}.{projection}"
        tensors = [module.tensors[s] for s in _suffixes(projection) if s in module.tensors]
        found.gone.update(ref.name for ref in tensors)
        begin = min(ref.begin for ref in tensors if ref.shard == first.ref.shard)
        shape, dtype = (len(own), first.rows, first.columns), first.form if first.form in PLAIN else DECODED
        size = sum(ref.size for ref in tensors)
        found.refs.append(TensorRef(name, dtype, shape, first.ref.shard, begin, begin + size))
        found.stacks[name] = own


def _suffixes(projection: str) -> tuple[str, ...]:
    return projection, f"{projection}{BLOCKS}", f"{projection}{SCALES}"


def _one_by_one(checkpoint: Checkpoint, module: Module, modules: set[str], layout: Layout | None, found: Apart) -> None:
    parts = sorted({name.rpartition(".")[2] for name in modules})
    weights = {weight.name: weight for weight in stack_experts(checkpoint, module, parts)}
    whole = sum(weight.rows * weight.columns for weight in weights.values())
    held = sum(_weights_in(module, projection) for projection in STACKS)
    if modules != weights.keys() or whole != held:
        raise UnreadableWeight(f"{len(modules):,} of its {len(weights):,} matrices are to be quantized, not all")
    for name, weight in sorted(weights.items()):
        found.refs += _tensors_of(weight, layout, found)
        found.refs += _bias(module, weight, name)
    held_tensors = [s for p in STACKS for s in (*_suffixes(p), f"{p}{BIAS}") if s in module.tensors]
    found.gone.update(module.tensors[suffix].name for suffix in held_tensors)


def _weights_in(module: Module, projection: str) -> int:
    blocks, plain = module.tensors.get(f"{projection}{BLOCKS}"), module.tensors.get(projection)
    return 2 * blocks.elements if blocks is not None else plain.elements if plain is not None else 0


def _tensors_of(weight: StoredWeight, layout: Layout | None, found: Apart) -> Iterator[TensorRef]:
    """An expert's matrix as one tensor, or its codes and their scales where they are what is to be written."""
    if weight.form == "mxfp4" and layout is not None and layout.format == "mxfp4":
        found.repacked.add(weight.name)
        yield from _codes(weight, layout)
        return
    name, size = f"{weight.name}.weight", weight.size
    part, dtype = weight.part, weight.form if weight.form in PLAIN else DECODED
    if part is None:
        raise UnreadableWeight(f"{weight.name} lies in no fused tensor")
    slab = weight.ref.begin + part.expert * (weight.ref.size // weight.ref.shape[0])
    begin = slab + (size if part.first else 0)
    found.weights[name] = weight
    yield TensorRef(name, dtype, (weight.rows, weight.columns), weight.ref.shard, begin, begin + size)


def _codes(weight: StoredWeight, layout: Layout) -> Iterator[TensorRef]:
    part = weight.part
    if part is None or part.step != 1 or weight.scale is None:
        raise UnreadableWeight(f"the codes of {weight.name} do not lie together")
    roles = {"payload": weight.ref, "block_scale": weight.scale}
    for role in layout.roles:
        ref = roles.get(role.role)
        if ref is None:
            continue
        size = ref.size // ref.shape[0]
        begin = ref.begin + part.expert * size
        shape = role.written_shape(layout.spec, weight.rows, weight.columns)
        yield TensorRef(f"{weight.name}.{role.suffix}", role.dtype, shape, ref.shard, begin, begin + size)


def _bias(module: Module, weight: StoredWeight, name: str) -> Iterator[TensorRef]:
    """The bias of one expert's projection, where the stack has biases."""
    last = name.rpartition(".")[2]
    projection = last if last in STACKS else STACKS[0]
    ref, part = module.tensors.get(f"{projection}{BIAS}"), weight.part
    if ref is None or part is None:
        return
    halves = 1 if last in STACKS else 2
    if ref.shape != (weight.ref.shape[0], weight.rows * halves):
        raise UnreadableWeight(f"{ref.name} is {list(ref.shape)[:4]}, its experts have {weight.rows * halves} rows")
    if halves == 2 and part.step != 1:
        raise UnreadableWeight(f"gate and up alternate in {ref.name}, which cannot be told apart in place")
    width = DTYPE_BITS[ref.dtype] // 8
    begin = ref.begin + (part.expert * ref.shape[1] + (part.first if halves == 2 else 0)) * width
    yield TensorRef(f"{name}.bias", ref.dtype, (weight.rows,), ref.shard, begin, begin + weight.rows * width)
