"""How large the result will be, and what making it takes: bytes per module, shards, disk, memory.

Stored sizes are exact for the tensors a plan writes (`formats.spec` says how a layout stores a module); disk and memory
are estimates that err on the large side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from publisher.checkpoint.header import TensorRef
from publisher.formats.spec import FORMATS, LAYOUTS
from publisher.plan.model import Recipe

SCALAR = 4  # bytes of a float32 scale
HEADROOM = 64 << 20  # configuration, tokenizer, journal
NATIVE_BASE = 512 << 20  # the interpreter with torch
NATIVE_FLOATS = 5  # float32 copies of the largest fused group: weights, scaled, codes, packed, spare
MODELOPT_BASE = 2 << 30  # the interpreter with torch, transformers and modelopt
MODELOPT_FACTOR = 1.6  # the model, its quantizers' buffers and the packed copy that is exported


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


def memory_needed(recipe: Recipe, source: int, groups: Iterable[Sequence[TensorRef]], largest_kept: int) -> int:
    """Peak bytes of memory the engine is expected to use.

    Args:
        recipe: gives the engine and the calibration.
        source: tensor bytes of the source.
        groups: the weights that are quantized together because they share a global scale.
        largest_kept: bytes of the largest tensor that is copied.
    """
    if recipe.engine == "modelopt":
        return MODELOPT_BASE + int(MODELOPT_FACTOR * source)
    group = max((sum(ref.elements for ref in group) for group in groups), default=0)
    return NATIVE_BASE + max(NATIVE_FLOATS * 4 * group, largest_kept)
