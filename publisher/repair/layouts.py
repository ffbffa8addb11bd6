"""Write an NVFP4 checkpoint in the other layout: modelopt's as compressed-tensors', or the other way round.

Codes and block scales are copied byte for byte; only names change, and each global and input scale becomes its inverse
in float32, because one layout multiplies by it and the other divides. Declarations and exclude list are made anew from
the tensors, in the new layout's dialect, and proven before anything is written; the old card and manifest, which speak
of the old layout, are left behind. A kill leaves a staging folder that the next run goes on with.

An inverse is rounded, so a dequantized weight may change in its last bit, and there and back in one more.
Refused: anything but NVFP4 of these two layouts, mixed or smoothed weights, experts of a layer in one tensor, a scale
that is no positive number, input scales that only some modules have, a declared or calibrated key-value cache, which
the layouts name differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from publisher import __version__, jsonio
from publisher.checkpoint.experts import STACKS
from publisher.checkpoint.files import LocalFiles
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.layout import TensorSpec, plan_shards
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.sidefiles import inspect, restore
from publisher.checkpoint.writer import StagedWriter, already_done, clear
from publisher.errors import CheckpointError
from publisher.formats.spec import LAYOUTS, Layout
from publisher.plan.declaration import exclude_list, hf_quant_config, implied_head, quantization_config
from publisher.plan.matrix import matrices_of
from publisher.plan.model import Recipe
from publisher.plan.proof import disagreements

FORMAT = "nvfp4"
CONVERTIBLE = ("modelopt", "compressed-tensors")
LEFT = ("publish.json",)  # of the checkpoint it was; the card is never carried
_PIECE = 8 << 20
_WAY = "Quantize the source again in the layout you need."
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What will be written.

    Args:
        checkpoint: what is converted.
        layout: the new one.
        moves: old tensor name to new; those that keep theirs are left out.
        inverted: old names of the scales that become their inverse.
        recipe: what the new declaration says.
        exclude: the new exclude list.
    """

    checkpoint: Checkpoint
    layout: Layout
    moves: Mapping[str, str]
    inverted: frozenset[str]
    recipe: Recipe
    exclude: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Digest of what is read and what is made of it."""
        headers = [[shard.shard, shard.file_size, shard.length] for shard in self.checkpoint.shards.values()]
        return jsonio.digest([self.layout.dialect, headers, dict(self.moves), list(self.exclude)])


def conversion(checkpoint: Checkpoint, dialect: str) -> Conversion:
    """See whether and how a checkpoint can be written in another layout; no tensor is read.

    Args:
        checkpoint: a quantized checkpoint.
        dialect: modelopt or compressed-tensors.

    Raises:
        CheckpointError: it cannot; with the reason.
    """
    old = _layout(checkpoint, dialect)
    new = LAYOUTS[dialect, FORMAT]
    names: dict[str, str] = {}
    inverted: set[str] = set()
    quantized: list[str] = []
    measured = 0
    for module in checkpoint.modules.values():
        _refuse_stacks(module)
        if not module.quantized:
            continue
        quantized.append(module.name)
        parts = _parts(module, old)
        measured += "input_scale" in parts
        for role, ref in parts.items():
            found = new.find(role)  # type: ignore[arg-type]  # roles come from the same table
            names[ref.name] = f"{module.name}.{found.suffix if found else ''}"
            if role in ("global_scale", "input_scale"):
                inverted.add(ref.name)
    if measured not in (0, len(quantized)):
        raise _refusal(f"{measured:,} of {len(quantized):,} modules have an input scale; a layout declares all or none")
    recipe = _recipe(dialect, calibrated=bool(measured))
    return Conversion(
        checkpoint=checkpoint,
        layout=new,
        moves={old_name: new_name for old_name, new_name in names.items() if old_name != new_name},
        inverted=frozenset(inverted),
        recipe=recipe,
        exclude=_exclude(checkpoint, dialect, quantized),
    )


def _refuse_stacks(module: Module) -> None:
    """Experts of a layer in one packed tensor, as modelopt exports gpt-oss."""
    for projection in STACKS:
        if f"{projection}_weight_scale" in module.tensors:
            raise _refusal(
                f"{module.name}.{projection} holds all experts of a layer, which only modelopt's layout does"
            )


def _layout(checkpoint: Checkpoint, dialect: str) -> Layout:
    quant = checkpoint.quant
    found = (quant.dialect, quant.format) if quant else (None, None)
    if quant is None or found[1] != FORMAT or found[0] not in CONVERTIBLE:
        said = "declares nothing" if quant is None else f"is {quant.dialect} {quant.algo or quant.format}"
        raise _refusal(f"it {said}; NVFP4 of {' and '.join(CONVERTIBLE)} can be converted")
    if quant.dialect == dialect:
        raise CheckpointError(f"{checkpoint.files.label} is in {dialect} layout already.", hint="Name the other one.")
    caches = [name for name in checkpoint.tensors if name.endswith((".k_scale", ".v_scale"))]
    if quant.kv_cache or caches:
        raise _refusal(f"it has a quantized key-value cache ({quant.kv_cache or caches[0]}), which is not converted")
    return LAYOUTS[quant.dialect, FORMAT]


def _parts(module: Module, layout: Layout) -> dict[str, TensorRef]:
    """A quantized module's tensors by role."""
    parts: dict[str, TensorRef] = {}
    for suffix, ref in module.tensors.items():
        role = layout.by_suffix(suffix)
        if role is not None:
            if ref.dtype != role.dtype or (role.shape in ("scalar", "single") and ref.elements != 1):
                raise _refusal(f"{ref.name} is {ref.dtype[:20]} of shape {list(ref.shape[:4])}")
            parts[role.role] = ref
        elif suffix != "bias":
            raise _refusal(f"{ref.name} has no place in the other layout")
    missing = [role.suffix for role in layout.roles if role.required and role.role not in parts]
    if missing:
        raise _refusal(f"{module.name} has no {', '.join(missing)}")
    return parts


def _recipe(dialect: str, *, calibrated: bool) -> Recipe:
    return Recipe(
        name="convert",
        source="",
        format=FORMAT,
        layout=dialect,
        engine="native",
        mode="max",
        activations="calibrated" if calibrated else "none",
    )


def _exclude(checkpoint: Checkpoint, dialect: str, quantized: Sequence[str]) -> tuple[str, ...]:
    taken = set(quantized)
    kept = [matrix.name for matrix in matrices_of(checkpoint) if matrix.name not in taken]
    odd = [name for name in kept if (weight := checkpoint.modules[name].weight) and weight.dtype.startswith("F8")]
    if odd or not quantized:
        raise _refusal(f"{odd[0]} is stored in FP8 beside NVFP4" if odd else "it holds no NVFP4 weight")
    heads = any(module.role == "head" for module in checkpoint.modules.values())
    head = None if heads else implied_head(checkpoint.modules)
    kept = [*kept, head] if head else kept
    entries = exclude_list(dialect, quantized, kept)
    wrong = disagreements(dialect, entries, quantized, kept)
    if wrong:
        raise _refusal(wrong[0])
    return entries


def _refusal(reason: str) -> CheckpointError:
    return CheckpointError(f"The checkpoint cannot be converted: {reason.rstrip('.')}.", hint=_WAY)


# --- writing -------------------------------------------------------------------------------------------------------


def write(made: Conversion, output: Path, *, progress: Progress | None = None) -> Path:
    """Write the converted checkpoint.

    Args:
        made: what `conversion` found.
        output: the new folder; must not exist, unless this very conversion made it.
        progress: called with (bytes written, bytes in all).

    Returns:
        The new folder.

    Raises:
        CheckpointError: no folder on this machine, the output exists, or a scale is no positive number.
        EngineError: the disk is full.
    """
    files = made.checkpoint.files
    if not isinstance(files, LocalFiles):
        raise CheckpointError(f"{files.label} is not a folder on this machine.", hint="Download it first.")
    output = output.absolute()
    if output.resolve().is_relative_to(files.root.resolve()):
        raise CheckpointError(f"{output} lies inside the checkpoint.", hint="Name a folder beside it.")
    staging = output.with_name(f".{output.name}.convert")
    if already_done(output, made.digest):
        clear(staging)
        return output
    inspect(files.root)
    refs = sorted(made.checkpoint.tensors.values(), key=lambda ref: (ref.shard, ref.begin, ref.name))
    largest = max((sum(ref.size for ref in shard.tensors) for shard in made.checkpoint.shards.values()), default=0)
    total, done = sum(ref.size for ref in refs), 0
    with StagedWriter(staging, output, plan_shards(_bundles(made, refs), largest), plan_digest=made.digest) as writer:
        for ref in refs:
            name = made.moves.get(ref.name, ref.name)
            if not writer.done(name):
                writer.write(name, _bytes(made, ref))
            done += ref.size
            if progress is not None:
                progress(done, total)
        block, file = quantization_config(made.recipe, made.exclude), hf_quant_config(made.recipe, made.exclude)
        side_files = restore(files.root, writer.files, block, file)
        for name in LEFT:
            (writer.files / name).unlink(missing_ok=True)
        kept = [name for name in side_files if name not in LEFT]
        writer.finish({"schema": 1, "engine": "convert", "versions": {"publisher": __version__}, "side_files": kept})
    return output


def _bundles(made: Conversion, refs: Sequence[TensorRef]) -> Iterator[tuple[TensorSpec, ...]]:
    """Every module's tensors together, in the order of the first of them on the disk."""
    grouped: dict[str, list[TensorSpec]] = {}
    for ref in refs:
        name = made.moves.get(ref.name, ref.name)
        module, _, suffix = name.rpartition(".")
        role = made.layout.by_suffix(suffix) if ref.name in made.inverted else None
        shape = role.written_shape(made.layout.spec, 0, 0) if role else ref.shape
        grouped.setdefault(module, []).append(TensorSpec(name, ref.dtype, shape))
    yield from map(tuple, grouped.values())


def _bytes(made: Conversion, ref: TensorRef) -> Iterator[bytes]:
    if ref.name not in made.inverted:
        yield from made.checkpoint.chunks(ref, _PIECE)
        return
    scale = np.frombuffer(made.checkpoint.read(ref), "<f4")
    with np.errstate(all="ignore"):
        inverse = (np.float32(1) / scale).astype("<f4")
    if not (np.isfinite(scale).all() and np.isfinite(inverse).all() and (scale > 0).all() and (inverse > 0).all()):
        raise _refusal(f"{ref.name} is {scale[0]}, which has no inverse")
    yield inverse.tobytes()
