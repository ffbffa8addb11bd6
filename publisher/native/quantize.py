"""The streaming quantizer: one fused group in memory at a time, everything else copied byte for byte.

A unit of work is a fused group (its members share one global scale) or one module or one copied tensor; units go in
the order the source lies on the disk, and the next small one is read while this one is worked on. What was written is
decided by the plan alone, so a run that was killed and started again gives the same bytes.

In compressed-tensors layout the arithmetic is that library's, with the largest weight observed in float32 (its own
observer stays in the weights' BF16, which rounds the global scale by up to one part in 256).

Where this differs from modelopt 0.47 on purpose: an all-zero group counts as if its largest weight were 1, so its
scales are finite and its codes zero (modelopt divides zero by zero there and writes NaN), and a warning names it.
Refused: NaN or infinite weights, a weight that is no matrix of whole blocks or no floating-point tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.layout import ShardLayout, TensorSpec, plan_shards
from publisher.checkpoint.writer import StagedWriter
from publisher.errors import CheckpointError
from publisher.formats import Layout
from publisher.formats.spec import Role
from publisher.native import kernels
from publisher.native.events import Progress, emit
from publisher.native.job import Job
from publisher.native.source import TORCH_DTYPES, SourceTensors

STAGE = "quantize"
_READ_AHEAD = 256 * 1024 * 1024  # larger units are not read ahead, so that memory stays that of one group

Stop = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Unit:
    """Tensors handled together: the weights of one fused group to quantize, or one tensor to copy."""

    refs: tuple[TensorRef, ...]
    quantized: bool

    @property
    def size(self) -> int:
        """Bytes in the source."""
        return sum(ref.size for ref in self.refs)

    @property
    def memory(self) -> int:
        """Bytes of the weights in memory; more than in the source where they are stored in INT4 or FP8."""
        return sum(max(ref.size, ref.elements * DTYPE_BITS[ref.dtype] // 8) for ref in self.refs)


def plan_units(refs: Mapping[str, TensorRef], job: Job) -> tuple[Unit, ...]:
    """Order the work: as the source lies on the disk, members of a fused group at the place of their first.

    Raises:
        CheckpointError: a module to quantize has no weight, or one that cannot be quantized; all are counted.
    """
    _refuse_unfit(refs, job)
    groups = job.groups if job.format == "nvfp4" else {}
    group_of = {member: members for members in groups.values() for member in members}
    quantize = frozenset(job.quantize)
    units: list[Unit] = []
    taken: set[str] = set()
    for name, ref in refs.items():
        module = name.removesuffix(".weight")
        if module == name or module not in quantize:
            units.append(Unit((ref,), quantized=False))
        elif module not in taken:
            members = group_of.get(module, (module,))
            taken.update(members)
            units.append(Unit(tuple(refs[f"{member}.weight"] for member in members), quantized=True))
    return tuple(units)


def _refuse_unfit(refs: Mapping[str, TensorRef], job: Job) -> None:
    block = job.stored.spec.block
    problems: list[str] = []
    for module in job.quantize:
        ref = refs.get(f"{module}.weight")
        if ref is None:
            problems.append(f"{module} has no weight in the source")
        elif ref.dtype not in TORCH_DTYPES:
            problems.append(f"{ref.name} is {ref.dtype}, only {', '.join(TORCH_DTYPES)} can be quantized")
        elif len(ref.shape) != 2 or ref.shape[1] % block or not ref.elements:
            problems.append(f"{ref.name} has the shape {list(ref.shape)}, not rows of whole blocks of {block}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError("; ".join(problems[:3]) + f"{more}.", hint="Keep these modules in the recipe.")


def output_specs(unit: Unit, layout: Layout, *, inputs: bool = False) -> Iterator[tuple[TensorSpec, ...]]:
    """What a unit is stored as, one bundle for each of its tensors; with an input scale where there are `inputs`."""
    for ref in unit.refs:
        if not unit.quantized:
            yield (TensorSpec(ref.name, ref.dtype, ref.shape),)
            continue
        module, (rows, columns) = ref.name.removesuffix(".weight"), ref.shape
        yield tuple(
            TensorSpec(f"{module}.{role.suffix}", role.dtype, role.written_shape(layout.spec, rows, columns))
            for role in layout.roles
            if role.required or inputs
        )


def plan_layout(units: Sequence[Unit], job: Job) -> tuple[ShardLayout, ...]:
    """The shards of the result."""
    inputs = job.statistics is not None
    bundles = (bundle for unit in units for bundle in output_specs(unit, job.stored, inputs=inputs))
    return plan_shards(bundles, job.shard_size)


class Quantizer:
    """Works units off into a `StagedWriter`.

    Args:
        job: what to do.
        source: the source's tensors.
        writer: where to.
        device: where the arithmetic runs.
        stop: called often; raises to end the run.
        inputs: module to the scale of its input as stored; empty for weight-only and dynamic activations.
    """

    def __init__(
        self,
        job: Job,
        source: SourceTensors,
        writer: StagedWriter,
        device: torch.device,
        stop: Stop,
        inputs: Mapping[str, np.float32] | None = None,
    ) -> None:
        self._job, self._source, self._writer, self._device, self._stop = job, source, writer, device, stop
        self._inputs = inputs or {}

    def run(self, units: Sequence[Unit]) -> None:
        """Quantize and copy every unit that is not finished.

        Raises:
            CheckpointError: a weight holds NaN or infinite values, or a shard cannot be read.
            EngineError: the disk is full.
        """
        pending = [unit for unit in units if not all(self._done(unit, ref) for ref in unit.refs)]
        progress = Progress(STAGE, sum(unit.size for unit in pending), "bytes")
        total = sum(len(unit.refs) for unit in units)
        done = total - sum(len(unit.refs) for unit in pending)
        with ThreadPoolExecutor(max_workers=1) as reader:
            for unit, weights in self._loaded(pending, reader):
                if weights is None:
                    self._copy(unit.refs[0])
                else:
                    self._quantize(unit, weights)
                done += len(unit.refs)
                progress.add(unit.size, tensor=unit.refs[0].name, tensors=done, tensors_total=total)

    def _done(self, unit: Unit, ref: TensorRef) -> bool:
        """Whether what a tensor is stored as, all of which lies in one shard, is finished."""
        return self._writer.done(self._name(ref, "payload") if unit.quantized else ref.name)

    def _name(self, ref: TensorRef, role: Role) -> str:
        """What the layout calls a tensor of a quantized weight."""
        found = self._job.stored.find(role)
        return f"{ref.name.removesuffix('.weight')}.{found.suffix if found else ''}"

    def _loaded(self, units: Sequence[Unit], reader: ThreadPoolExecutor) -> Iterator[tuple[Unit, list[Tensor] | None]]:
        """Units with their weights; the next unit to quantize is read while this one is worked on, if it is small."""
        ahead: Future[list[Tensor]] | None = None
        queue = iter([unit for unit in units if unit.quantized][1:])
        for unit in units:
            self._stop()
            if not unit.quantized:
                yield unit, None
                continue
            weights = ahead.result() if ahead is not None else self._load(unit)
            following = next(queue, None)
            small = following is not None and following.memory <= _READ_AHEAD
            ahead = reader.submit(self._load, following) if following is not None and small else None
            yield unit, weights

    def _load(self, unit: Unit) -> list[Tensor]:
        return [self._source.load(ref).to(self._device) for ref in unit.refs]

    def _copy(self, ref: TensorRef) -> None:
        def pieces() -> Iterator[memoryview]:
            for piece in self._source.pieces(ref):
                self._stop()
                yield piece

        self._writer.write(ref.name, pieces())

    def _quantize(self, unit: Unit, weights: list[Tensor]) -> None:
        block = self._job.stored.spec.block
        amaxes = [kernels.block_amax(weight, block) for weight in weights]
        peaks = [kernels.largest(amax) for amax in amaxes]
        for ref, weight, peak in zip(unit.refs, weights, peaks, strict=True):
            _refuse_not_finite(ref, weight, peak)
        largest = torch.stack(peaks).amax()
        for ref, amax, peak in zip(unit.refs, amaxes, peaks, strict=True):
            weight = weights.pop(0)
            self._stop()
            if self._done(unit, ref):
                continue
            if not peak:
                emit(STAGE, "warning", message=f"{ref.name} is all zero; it is stored as zeros with finite scales.")
            self._store(ref, weight, amax, largest)

    def _store(self, ref: TensorRef, weight: Tensor, amax: Tensor, largest: Tensor) -> None:
        meter, job = kernels.ErrorMeter.on(weight.device), self._job
        if job.format == "nvfp4":
            scale_2 = kernels.global_scale(largest, job.producer)
            if job.mode == "mse":
                payload, scales = kernels.quantize_nvfp4_mse(weight, amax, largest, scale_2, meter)
            else:
                payload, scales = kernels.quantize_nvfp4(weight, amax, scale_2, meter, producer=job.producer)
            self._writer.write(self._name(ref, "global_scale"), [_raw(scale_2)])
        else:
            payload, scales = kernels.quantize_mxfp4(weight, amax, job.mode, meter, producer=job.producer)
        self._writer.write(self._name(ref, "block_scale"), [_raw(scales)])
        if self._inputs:
            scale = self._inputs[ref.name.removesuffix(".weight")]
            self._writer.write(self._name(ref, "input_scale"), [memoryview(scale.tobytes())])
        squared = [float(meter.error), float(meter.weight)]
        note = squared if all(map(math.isfinite, squared)) else None
        self._writer.write(self._name(ref, "payload"), [_raw(payload)], note=note)


def _refuse_not_finite(ref: TensorRef, weight: Tensor, peak: Tensor) -> None:
    if not torch.isfinite(peak):
        count = kernels.count_not_finite(weight)
        raise CheckpointError(
            f"{ref.shard}: {ref.name} holds {count:,} NaN or infinite values of {ref.elements:,}; "
            "it cannot be quantized.",
            hint="Download the shard again; if they are really in the model, keep this module in the recipe.",
        )


def _raw(tensor: Tensor) -> memoryview:
    """A tensor's bytes, on the CPU, row-major."""
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def weight_errors(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Relative RMSE, |dequantized - weight| / |weight|, per module and over all, from the sums kept beside the tensors.

    Args:
        notes: tensor name to [sum of squared errors, sum of squared weights].
    """
    sums = {name.rpartition(".")[0]: note for name, note in notes.items() if note}
    modules = {name: math.sqrt(error / weight) for name, (error, weight) in sorted(sums.items()) if weight > 0}
    worst = sorted(modules, key=lambda name: (-modules[name], name))[:20]
    energy = sum(weight for _, weight in sums.values())
    return {
        "overall": math.sqrt(sum(error for error, _ in sums.values()) / energy) if energy > 0 else None,
        "worst": [{"module": name, "relative_rmse": modules[name]} for name in worst],
        "modules": modules,
    }
