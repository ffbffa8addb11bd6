"""How large the result will be, and what making it takes: bytes per module, shards, disk, memory.

Stored sizes are exact for the tensors a plan writes (`formats.spec` says how a layout stores a module); disk and memory
are estimates that err on the large side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.formats.spec import FORMATS, LAYOUTS
from publisher.native.memory import READ_AHEAD, WRITE_BEHIND
from publisher.plan.model import Recipe

SCALAR = 4  # bytes of a float32 scale
HEADROOM = 64 << 20  # configuration, tokenizer, journal
NATIVE_BASE = 320 << 20  # the interpreter with torch and compiled kernels; 254 MB were measured
NATIVE_TENSOR = 4 << 10  # names, headers and places of one tensor of the source
STACK_AT_ONCE = 8  # experts of a stack whose codes are taken over at the same time, on machines that have the cores
TAKEN_OVER, WORKED_ON = 6, 28  # bytes for each of such an expert's weights, and of one that is quantized
MODELOPT_BASE = 2 << 30  # the interpreter with torch, transformers and modelopt
MODELOPT_FACTOR = 1.6  # the model, its quantizers' buffers and the packed copy that is exported


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The experts of a layer's projection as the engine native writes them, in one tensor.

    Args:
        experts: how many.
        elements: weights of each.
        taken_over: whether their codes are, from MXFP4.
    """

    experts: int
    elements: int
    taken_over: bool


def quantized_size(recipe: Recipe, elements: int) -> int:
    """Bytes of a quantized weight with its scales.

    Args:
        recipe: gives the format and whether an activation scale is stored.
        elements: weights in the matrix, a multiple of the block length.
    """
    spec, layout = FORMATS[recipe.format], LAYOUTS[recipe.layout, recipe.format]
    size = elements * spec.element_bits // 8 + elements // spec.block * spec.scale_bits // 8
    if layout.find("input_scale") and recipe.activations == "calibrated":
        size += SCALAR
    return size + spec.scalar_bytes


def kv_scales_size(recipe: Recipe, layers: int) -> int:
    """Bytes of calibrated KV scales: one float32 for k and one for v in each attention layer."""
    return 2 * SCALAR * layers if recipe.kv_cache == "fp8" else 0


def shard_count(bundles: Iterable[int], shard_size: int) -> int:
    """Shards a greedy writer needs for bundles of bytes that are not split (`checkpoint.layout.plan_shards`)."""
    count, filled = 0, 0
    for size in bundles:
        if count == 0 or filled + size > shard_size:
            count, filled = count + 1, 0
        filled += size
    return count


def disk_needed(recipe: Recipe, result: int, side_files: int, tensors: int) -> int:
    """Free bytes the run directory must have; modelopt's exporter writes a copy before it is put in its place."""
    headers = 300 * tensors
    copies = 2 if recipe.engine == "modelopt" else 1
    return copies * (result + headers + side_files) + HEADROOM


def memory_needed(
    recipe: Recipe,
    source: int,
    groups: Iterable[Sequence[TensorRef]],
    stacks: Iterable[Stack] = (),
    *,
    tensors: int = 0,
) -> int:
    """Peak bytes of memory one process of the engine is expected to use; copied tensors pass through in small pieces.

    modelopt: `2 GiB + 1.6 source`. native: `base + tables + held + kept back + maxima`, or with a stack in place of the
    last three what it takes where that is more:

    - base and tables: NATIVE_BASE, and NATIVE_TENSOR for each tensor of the source;
    - held: the weights read ahead, `min(max(READ_AHEAD, largest group), all groups)`, and the results that wait to be
      written, `min(max(WRITE_BEHIND, largest result), all results)`;
    - kept back: what the allocator does not return of the two, as much again, at most READ_AHEAD + WRITE_BEHIND;
      larger tensors are allocated and returned one by one;
    - maxima: a float32 for each block of the largest group;
    - a stack: block scales of all its experts twice (a byte for each 16 weights), and TAKEN_OVER bytes for each weight
      of STACK_AT_ONCE experts, or WORKED_ON for each weight of one.

    Args:
        recipe: gives the engine and the calibration.
        source: tensor bytes of the source.
        groups: the weights that are quantized together because they share a global scale.
        stacks: the stacks that are written as they are.
        tensors: of the source.
    """
    if recipe.engine == "modelopt":
        return MODELOPT_BASE + int(MODELOPT_FACTOR * source)
    spec = FORMATS[recipe.format]
    sizes = [[(_loaded(ref), quantized_size(recipe, ref.elements)) for ref in group] for group in groups]
    loaded = [sum(weight for weight, _ in group) for group in sizes]
    results = [result for group in sizes for _, result in group]
    held = _held(loaded, READ_AHEAD) + _held(results, WRITE_BEHIND)
    streamed = held + min(held, READ_AHEAD + WRITE_BEHIND) + max(loaded, default=0) * 2 // spec.block
    return NATIVE_BASE + NATIVE_TENSOR * tensors + max(streamed, max(map(_stacked, stacks), default=0))


def memory_of(needed: int, processes: int) -> int:
    """Bytes of several processes of the engine native, and of the one that hands them their shards.

    Args:
        needed: of one process, by `memory_needed`.
        processes: how many share the work.
    """
    return needed if processes < 2 else processes * needed + NATIVE_BASE


def _loaded(ref: TensorRef) -> int:
    """Bytes of a weight while it is worked on; what is stored in fewer bits is decoded to BF16."""
    return ref.elements * max(2, DTYPE_BITS.get(ref.dtype, 16) // 8)


def _held(sizes: Sequence[int], budget: int) -> int:
    return min(max(budget, max(sizes, default=0)), sum(sizes))


def _stacked(stack: Stack) -> int:
    scales = stack.experts * stack.elements // FORMATS["nvfp4"].block
    at_once = TAKEN_OVER * min(STACK_AT_ONCE, stack.experts) if stack.taken_over else WORKED_ON
    return 2 * scales + at_once * stack.elements
