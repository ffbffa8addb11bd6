"""From modelopt's export to a checkpoint that is exactly the plan.

The export is compared with the plan and with the source before a byte of the result is written: the quantized modules
are those of the job, no scale is NaN, every other tensor has the source's name and bytes. Then the result is written
shard by shard: quantized tensors from the export, everything else from the source. transformers casts tensors to the
model's dtype and leaves out what its class does not have (multi-token-prediction layers, a tied head that is stored
all the same); such tensors come from the source and are reported. Any other difference is refused, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.layout import TensorSpec, plan_shards
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.quantconfig import QuantConfig, parse_declaration
from publisher.checkpoint.writer import StagedWriter
from publisher.errors import CheckpointError, EngineError
from publisher.formats import floats, nvfp4
from publisher.formats.spec import NVFP4_DIVISOR
from publisher.matching import modelopt_excluded
from publisher.native.events import Progress
from publisher.native.source import SourceTensors

STAGE = "quantize"
KV_SCALES = ("k_scale", "v_scale")
SHOWN = 5  # names in a message


@dataclass(slots=True)
class Comparison:
    """What an export is, held against the job and the source.

    Args:
        quantized: tensors that come from the export, in writing order.
        restored: tensors transformers cast to another dtype; they come from the source.
        carried: tensors the export lacks; they come from the source.
        problems: why the export is not the plan, each with names.
    """

    quantized: dict[str, TensorRef] = field(default_factory=dict)
    restored: list[str] = field(default_factory=list)
    carried: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def compare(
    export: Checkpoint, source: SourceTensors, quantize: Iterable[str], *, activations: bool, kv_cache: bool
) -> Comparison:
    """Hold an export against the plan, tensor by tensor; reads every tensor that is not quantized.

    Args:
        export: what modelopt wrote.
        source: what it was made from.
        quantize: the modules to be quantized.
        activations: whether they must have an `input_scale`.
        kv_cache: whether `k_scale` and `v_scale` may be there.
    """
    found = Comparison()
    wanted = frozenset(quantize)
    got = frozenset(name for name, module in export.modules.items() if module.quantized)
    if wanted - got:
        found.problems.append(f"modelopt did not quantize {_names(wanted - got)}")
    if got - wanted:
        found.problems.append(f"modelopt quantized {_names(got - wanted)}, which the plan keeps")
    suffixes = ["weight", "weight_scale", "weight_scale_2"] + (["input_scale"] if activations else [])
    for module in sorted(wanted & got):
        for suffix in suffixes:
            ref = export.tensors.get(f"{module}.{suffix}")
            if ref is None:
                found.problems.append(f"modelopt wrote no {module}.{suffix}")
            else:
                found.quantized[ref.name] = ref
    for name, ref in export.tensors.items():
        if kv_cache and name.rpartition(".")[2] in KV_SCALES and ref.dtype == "F32" and name not in source.refs:
            found.quantized[name] = ref
    found.problems += _scale_problems(export, found.quantized.values())
    _compare_kept(export, source, found)
    return found


def _names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN:,} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more


def _scale_problems(export: Checkpoint, refs: Iterable[TensorRef]) -> Iterator[str]:
    for ref in refs:
        if ref.dtype == "F8_E4M3":
            codes = np.frombuffer(export.read(ref), dtype=np.uint8)
            count = int(np.count_nonzero((codes & 0x7F) == 0x7F)) if codes.size else 0
            if count:
                yield f"{ref.name} holds {count:,} NaN scales"
        elif ref.dtype == "F32" and ref.size == 4:
            value = float(np.frombuffer(export.read(ref), dtype="<f4")[0])
            if not np.isfinite(value) or value <= 0:
                yield f"{ref.name} is {value}"


def _compare_kept(export: Checkpoint, source: SourceTensors, found: Comparison) -> None:
    changed: list[str] = []
    for name, ref in source.refs.items():
        if name in found.quantized:
            continue
        other = export.tensors.get(name)
        if other is None:
            found.carried.append(name)
        elif (other.dtype, other.shape) == (ref.dtype, ref.shape):
            if not _same_bytes(source.pieces(ref), export.chunks(other, 16 << 20)):
                changed.append(name)
        elif other.shape == ref.shape and _is_cast(source, ref, export, other):
            found.restored.append(name)
        else:
            changed.append(name)
    if changed:
        found.problems.append(f"modelopt changed {_names(changed)}, which the plan keeps")
    new = [name for name in export.tensors if name not in source.refs and name not in found.quantized]
    if new:
        found.problems.append(f"modelopt wrote tensors the source does not have: {_names(new)}")


def _same_bytes(one: Iterator[memoryview], other: Iterator[bytes]) -> bool:
    return all(bytes(a) == b for a, b in zip(one, other, strict=True))


def _is_cast(source: SourceTensors, ref: TensorRef, export: Checkpoint, other: TensorRef) -> bool:
    """Whether the export holds the source's values rounded to its own dtype (BF16 or F16) or widened to F32."""
    floating = ("F32", "F16", "BF16")
    if ref.dtype not in floating or other.dtype not in floating:
        return False
    values = floats.decode(b"".join(map(bytes, source.pieces(ref))), ref.dtype, ref.shape)
    stored = floats.decode(export.read(other), other.dtype, other.shape)
    with np.errstate(over="ignore"):
        rounded = {"BF16": floats.round_to_bf16, "F16": lambda v: v.astype(np.float16).astype(np.float32)}
        cast = rounded.get(other.dtype, lambda v: v)(values)
    return bool(np.array_equal(cast, stored, equal_nan=True))


# --- what it declares ----------------------------------------------------------------------------------------------


def declaration_differences(
    export: Checkpoint, config: Mapping[str, Any], names: Iterable[str]
) -> tuple[list[str], list[str]]:
    """How the job's declaration differs in meaning from modelopt's own.

    Args:
        export: what modelopt wrote.
        config: the job's `quantization_config`.
        names: the modules an exclude list speaks about.

    Returns:
        differences that make one of them wrong (algorithm, block, activations, KV cache), and modules that the two
        exclude lists treat differently, as sentences.
    """
    ours = parse_declaration(config, "job")
    theirs = export.quant
    if theirs is None:
        return ["modelopt declared no quantization"], []
    fatal = [
        f"{label} is {a!r} in the plan, {b!r} in modelopt's export" for label, a, b in _facts(ours, theirs) if a != b
    ]
    names = list(names)
    here, there = modelopt_excluded(ours.ignore, names), modelopt_excluded(theirs.ignore, names)
    notes = [f"only the plan excludes {_names(here - there)}"] if here - there else []
    notes += [f"only modelopt excludes {_names(there - here)}"] if there - here else []
    return fatal, notes


def _facts(ours: QuantConfig, theirs: QuantConfig) -> Iterator[tuple[str, Any, Any]]:
    yield "the algorithm", (ours.algo or "").upper(), (theirs.algo or "").upper()
    yield "the block length", ours.group_size, theirs.group_size
    yield "activation quantization", ours.activations, theirs.activations
    yield "the KV cache", ours.kv_cache, theirs.kv_cache


# --- the result ----------------------------------------------------------------------------------------------------


def write(found: Comparison, export: Checkpoint, source: SourceTensors, writer: StagedWriter) -> dict[str, Any]:
    """Write every tensor of the result and measure what quantization cost.

    Returns:
        tensor name to [sum of squared errors, sum of squared weights] for `publisher.native.quantize.weight_errors`.
    """
    refs = {ref.name: ref for bundle in bundles(found, source) for ref in bundle}
    progress = Progress(STAGE, sum(ref.size for ref in refs.values()), "bytes")
    for name, ref in refs.items():
        if name in found.quantized:
            note = None
            if name in source.refs and not writer.done(name):
                note = _weight_error(export, source.load(source.refs[name]).float().numpy(), name)
            writer.write(name, export.chunks(ref, 16 << 20), note=note)
        else:
            writer.write(name, source.pieces(ref))
        progress.add(ref.size, step="write", tensor=name)
    writer.wait()  # notes are there once their shard is finished
    return writer.notes


def bundles(found: Comparison, source: SourceTensors) -> list[list[TensorRef]]:
    """The result's tensors in the source's order, what belongs to one module side by side."""
    of_module: dict[str, list[TensorRef]] = {}
    for name, ref in found.quantized.items():
        of_module.setdefault(name.rpartition(".")[0], []).append(ref)
    result: list[list[TensorRef]] = []
    for name, ref in source.refs.items():
        own = [] if name in found.quantized else [ref]
        extra = of_module.pop(name.rpartition(".")[0], []) if name.endswith(".weight") else []
        result.append(own + extra)
    result += of_module.values()  # KV scales of modules without a weight of their own
    return [bundle for bundle in result if bundle]


def layout(found: Comparison, source: SourceTensors, shard_size: int) -> Any:
    """The shards of the result."""
    specs = [[TensorSpec(r.name, r.dtype, r.shape) for r in bundle] for bundle in bundles(found, source)]
    return plan_shards(specs, shard_size)


def _weight_error(export: Checkpoint, weight: np.ndarray[Any, np.dtype[np.float32]], name: str) -> list[float]:
    """Sums of squared differences and of squared weights, with the reference arithmetic."""
    packed, scales, scalar = (export.tensors[name + suffix] for suffix in ("", "_scale", "_scale_2"))
    stored = nvfp4.dequantize(
        np.frombuffer(export.read(packed), dtype=np.uint8).reshape(packed.shape),
        np.frombuffer(export.read(scales), dtype=np.uint8).reshape(scales.shape),
        np.frombuffer(export.read(scalar), dtype="<f4")[0],
    )
    return [
        float(np.sum(np.square(stored - weight), dtype=np.float64)),
        float(np.sum(np.square(weight), dtype=np.float64)),
    ]


def activation_statistics(export: Checkpoint, found: Comparison, tokens: Mapping[str, int]) -> dict[str, Any]:
    """Per module the largest input magnitude that was seen, as stored, and how many tokens were."""
    result = {}
    for name, ref in found.quantized.items():
        module, _, suffix = name.rpartition(".")
        if suffix == "input_scale":
            scale = float(np.frombuffer(export.read(ref), dtype="<f4")[0])
            result[module] = {
                "input_amax": float(np.float32(scale) * np.float32(NVFP4_DIVISOR)),
                "tokens": tokens.get(module),
            }
    return result


def read_export(folder: Path) -> Checkpoint:
    """Open an export.

    Raises:
        EngineError: it is no readable checkpoint.
    """
    try:
        export = open_checkpoint(folder)
    except CheckpointError as error:
        raise EngineError(f"modelopt's export is no checkpoint: {error.message}", hint=error.hint) from error
    flaws = [f"{h.shard}: {h.flaws[0].message}" for h in export.shards.values() if h.flaws]
    flaws += [f"{name}: {text}" for name, text in export.document_flaws.items()]
    if flaws or not export.tensors:
        raise EngineError(f"modelopt's export cannot be read: {'; '.join(flaws[:3]) or 'it holds no tensor'}.")
    return export
