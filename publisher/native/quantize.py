"""The streaming quantizer: a few fused groups in memory at a time, everything else copied byte for byte.

While one unit is worked on, the next ones are read and the last ones are written (`stream`); full shards are flushed
and hashed behind that. What was written is decided by the plan alone, so neither a restart nor the number of threads,
of workers or of GPUs shows in the result.

In compressed-tensors layout the arithmetic is that library's, with the largest weight observed in float32 (its own
observer stays in the weights' BF16, which rounds the global scale by up to one part in 256).

Where this differs from modelopt 0.47 on purpose: an all-zero group counts as if its largest weight were 1, so its
scales are finite and its codes zero (modelopt divides zero by zero there and writes NaN), and a warning names it.
Refused: NaN or infinite weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from publisher.checkpoint.header import TensorRef
from publisher.errors import CheckpointError
from publisher.formats import fp8
from publisher.formats.spec import Role
from publisher.native import kernels, recode
from publisher.native.events import emit
from publisher.native.job import Job
from publisher.native.memory import READ_AHEAD, WRITE_BEHIND
from publisher.native.source import SourceTensors
from publisher.native.sparsity import Pruning
from publisher.native.stream import ReadAhead, WriteBehind
from publisher.native.units import Task

STAGE = "quantize"
_PIECE, _SMALLEST = 16 << 20, 64 << 10  # what a copied tensor counts as while it waits: at most, at least

Stop = Callable[[], None]
Wrote = Callable[[TensorRef], None]


class Sink(Protocol):
    """Where tensors go."""

    def write(self, name: str, chunks: Iterable[bytes | memoryview], note: Any = None) -> None:
        """Take a tensor's bytes, and a note to keep beside them."""
        ...


class Quantizer:
    """Works tasks off.

    Args:
        job: what to do.
        source: the source's tensors.
        sink: where to.
        device: where the arithmetic runs.
        stop: called often; raises to end the run.
        inputs: module to the scale of its input as stored; empty for weight-only and dynamic activations.
    """

    def __init__(
        self,
        job: Job,
        source: SourceTensors,
        sink: Sink,
        device: torch.device,
        stop: Stop,
        inputs: Mapping[str, np.float32] | None = None,
    ) -> None:
        self._job, self._source, self._sink, self._device, self._stop = job, source, sink, device, stop
        self._inputs = inputs or {}
        self._pruning = Pruning(job)

    def run(self, tasks: Iterable[Task], wrote: Wrote = lambda _: None) -> None:
        """Quantize and copy.

        Args:
            tasks: asked for one by one, in another thread.
            wrote: called, in another thread, with each tensor of the source once its result is written.

        Raises:
            CheckpointError: a weight holds NaN or infinite values, or a shard cannot be read.
            EngineError: the disk is full.
        """
        with (
            ReadAhead(tasks, self._load, _memory, READ_AHEAD, self._stop) as tasks_read,
            WriteBehind(WRITE_BEHIND) as behind,
        ):
            for task, weights in tasks_read:
                self._stop()
                if task.unit.form == recode.STACK:
                    behind.wait()  # its kernels run while it is written, so nobody else writes
                    self._stack(task.unit.refs[0], wrote)
                elif task.unit.form == recode.FP8:
                    self._fp8(task, weights, behind, wrote)
                elif task.unit.quantized:
                    self._quantize(task, weights, behind, wrote)
                else:
                    self._copy(task.unit.refs[0], behind, wrote)
            behind.wait()

    def _load(self, task: Task) -> list[Tensor]:
        if not task.unit.quantized:
            return []
        return [self._source.load(ref).to(self._device) for ref in task.unit.refs]

    def _copy(self, ref: TensorRef, behind: WriteBehind, wrote: Wrote) -> None:
        def pieces() -> Iterator[memoryview]:
            for piece in self._source.pieces(ref):
                self._stop()
                yield piece

        def work() -> None:
            self._sink.write(ref.name, pieces())
            wrote(ref)

        behind.submit(max(min(ref.size, _PIECE), _SMALLEST), work)

    def _quantize(self, task: Task, weights: list[Tensor], behind: WriteBehind, wrote: Wrote) -> None:
        block, refs = self._job.stored.spec.block, task.unit.refs
        amaxes = [kernels.block_amax(weight, block) for weight in weights]
        peaks = [kernels.largest(amax) for amax in amaxes]
        for ref, weight, peak in zip(refs, weights, peaks, strict=True):
            _refuse_not_finite(ref, weight, peak)
        lost = [self._pruning.prune(ref, weight) for ref, weight in zip(refs, weights, strict=True)]
        if any(one is not None for one in lost):  # scales are made from what is left
            amaxes = [kernels.block_amax(weight, block) for weight in weights]
            peaks = [kernels.largest(amax) for amax in amaxes]
        largest = torch.stack(peaks).amax()
        for ref, amax, peak, dropped in zip(refs, amaxes, peaks, lost, strict=True):
            weight = weights.pop(0)
            self._stop()
            if ref not in task.refs:
                continue
            if not peak:
                emit(STAGE, "warning", message=f"{ref.name} is all zero; it is stored as zeros with finite scales.")
            meter = kernels.ErrorMeter.on(weight.device)
            if dropped is not None:  # the whole square of what was pruned is error
                meter.add(dropped, dropped)
            parts = {role: _raw(part) for role, part in self._encode(ref, weight, amax, largest, meter).items()}
            self._write(ref, parts, _note(meter), behind, wrote)

    def _fp8(self, task: Task, weights: list[Tensor], behind: WriteBehind, wrote: Wrote) -> None:
        """FP8 beside FP4; members of a fused layer share their scale where it is one for a matrix."""
        peaks = [weight.abs().amax().float() for weight in weights]
        for ref, weight, peak in zip(task.unit.refs, weights, peaks, strict=True):
            _refuse_not_finite(ref, weight, peak)
        how, largest = fp8.BESIDE[self._job.layout], torch.stack(peaks).amax()
        for ref in task.unit.refs:
            weight = weights.pop(0)
            self._stop()
            if ref not in task.refs:
                continue
            scale = recode.fp8_scale(weight, largest, by_row=how.by_row)
            codes, note = recode.fp8_codes(weight, scale)
            module = ref.name.removesuffix(".weight")
            named = {ref.name: (_raw(codes), note), f"{module}.weight_scale": (_raw(scale), None)}
            if how.inputs:
                named[f"{module}{recode.INPUT[recode.FP8]}"] = (memoryview(self._inputs[module].tobytes()), None)
            self._hand_over(ref, named, behind, wrote)

    def _stack(self, ref: TensorRef, wrote: Wrote) -> None:
        """All experts of a layer's projection as one tensor, expert by expert."""
        stack = recode.Stack(self._source, ref, self._device, self._stop)
        meter = kernels.ErrorMeter.on(self._device)
        scale: list[memoryview] = []
        if stack.recast:
            exponent = stack.exponent()
            scale = [memoryview(np.float32(2.0**exponent).tobytes())]
            self._sink.write(stack.named("payload"), stack.taken_over(exponent), note=None)
        else:
            largest = stack.largest()

            def encode(weight: Tensor) -> tuple[Tensor, Tensor]:
                amax = kernels.block_amax(weight, self._job.stored.spec.block)
                parts = self._encode(ref, weight, amax, largest, meter)
                scale[:] = [_raw(parts["global_scale"])]  # that of the mode, for every expert the same
                return parts["payload"], parts["block_scale"]

            self._sink.write(stack.named("payload"), stack.quantized(encode), note=None)
        note = stack.note() if stack.recast else _note(meter)
        self._sink.write(stack.named("block_scale"), stack.scales(), note=note)
        self._sink.write(stack.named("global_scale"), scale)
        if self._inputs:
            self._sink.write(f"{ref.name}{recode.INPUT[recode.STACK]}", [memoryview(self._inputs[ref.name].tobytes())])
        wrote(ref)

    def _encode(
        self, ref: TensorRef, weight: Tensor, amax: Tensor, largest: Tensor, meter: kernels.ErrorMeter
    ) -> dict[Role, Tensor]:
        """What a weight is stored as, by role; the input scale left out.

        Args:
            ref: the weight.
            weight: (rows, columns), finite.
            amax: its block maxima.
            largest: fp32 scalar, the largest magnitude of the fused group.
            meter: counts the error made.
        """
        job = self._job
        if job.format != "nvfp4":
            payload, scales = kernels.quantize_mxfp4(weight, amax, job.mode, meter, producer=job.producer)
            return {"block_scale": scales, "payload": payload}
        if job.mode == "four-over-six":
            payload, scales, scale_2 = kernels.quantize_nvfp4_four_over_six(weight, amax, largest, meter)
            return {"global_scale": scale_2, "block_scale": scales, "payload": payload}
        scale_2 = kernels.global_scale(largest, job.producer)
        if job.mode == "mse":
            payload, scales = kernels.quantize_nvfp4_mse(weight, amax, largest, scale_2, meter, producer=job.producer)
        else:
            payload, scales = kernels.quantize_nvfp4(weight, amax, scale_2, meter, producer=job.producer)
        return {"global_scale": scale_2, "block_scale": scales, "payload": payload}

    def _write(
        self, ref: TensorRef, parts: Mapping[Role, memoryview], note: Any, behind: WriteBehind, wrote: Wrote
    ) -> None:
        """Hand over what a weight is stored as; the note goes with the payload."""
        module = ref.name.removesuffix(".weight")
        named = {self._name(module, role): (part, note if role == "payload" else None) for role, part in parts.items()}
        if self._inputs:
            scale = memoryview(self._inputs[module].tobytes())
            named[self._name(module, "input_scale")] = (scale, None)
        self._hand_over(ref, named, behind, wrote)

    def _hand_over(
        self, ref: TensorRef, named: Mapping[str, tuple[memoryview, Any]], behind: WriteBehind, wrote: Wrote
    ) -> None:
        def work() -> None:
            for name, (part, beside) in named.items():
                self._sink.write(name, [part], note=beside)
            wrote(ref)

        behind.submit(sum(part.nbytes for part, _ in named.values()), work)

    def _name(self, module: str, role: Role) -> str:
        """What the layout calls a tensor of a quantized weight."""
        found = self._job.stored.find(role)
        return f"{module}.{found.suffix if found else ''}"


def _memory(task: Task) -> int:
    return task.unit.memory if task.unit.quantized else 0


def _note(meter: kernels.ErrorMeter) -> list[float] | None:
    squared = [float(meter.error), float(meter.weight)]
    return squared if all(map(math.isfinite, squared)) else None


def _refuse_not_finite(ref: TensorRef, weight: Tensor, peak: Tensor) -> None:
    if not torch.isfinite(peak):
        count = kernels.count_not_finite(weight)
        raise CheckpointError(
            f"{ref.shard}: {ref.name} holds {count:,} NaN or infinite values of {ref.elements:,}; "
            "it cannot be quantized.",
            hint="Download the shard again; if they are really in the model, keep this module in the recipe, or say "
            "--on-nan keep.",
        )


def _raw(tensor: Tensor) -> memoryview:
    """A tensor's bytes, on the CPU, row-major."""
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _module_of(name: str) -> str:
    """The module of a tensor that a note is kept beside: a payload, or the block scales of a stack."""
    parent, _, last = name.rpartition(".")
    return parent if last.startswith("weight") else name.removesuffix("_weight_scale")


def weight_errors(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Relative RMSE, |dequantized - weight| / |weight|, per module and over all, from the sums kept beside the tensors.

    Args:
        notes: tensor name to [sum of squared errors, sum of squared weights].
    """
    sums = {_module_of(name): (note[0], note[1]) for name, note in notes.items() if note}
    modules = {name: math.sqrt(error / weight) for name, (error, weight) in sorted(sums.items()) if weight > 0}
    worst = sorted(modules, key=lambda name: (-modules[name], name))[:20]
    energy = sum(weight for _, weight in sums.values())
    return {
        "overall": math.sqrt(sum(error for error, _ in sums.values()) / energy) if energy > 0 else None,
        "worst": [{"module": name, "relative_rmse": modules[name]} for name in worst],
        "modules": modules,
    }
