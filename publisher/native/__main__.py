"""`python -m publisher.native job.json`: the streaming quantizer as a program; docs/job-file.md is its contract.

Events go to standard output, one JSON object a line. Exit codes: 0 the output is complete, 2 bad input, 5 the engine
or the hardware failed, 6 stopped by SIGTERM or SIGINT and ready to go on.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from publisher import __version__, jsonio
from publisher.checkpoint import statistics
from publisher.checkpoint.sidefiles import inspect, restore
from publisher.checkpoint.stamps import require_unchanged, stamps
from publisher.checkpoint.statistics import InputRanges, Statistics
from publisher.checkpoint.writer import StagedWriter, already_done, clear, disk_errors
from publisher.errors import EngineError, InterruptedRun
from publisher.native import edge, sparsity
from publisher.native.events import TensorProgress, emit
from publisher.native.job import ENGINE, Job, read_job
from publisher.native.memory import peak_host_bytes
from publisher.native.surroundings import surroundings

if TYPE_CHECKING:
    from publisher.native.units import Task
    from publisher.native.work import Work

STAGE = "quantize"
PROGRAM = edge.Program(
    stage=STAGE,
    module="publisher.native",
    failed="The quantizer failed",
    hint="Run the same command again; if it fails again, report the log.",
)


@dataclass(frozen=True, slots=True)
class Hands:
    """Who did the work: device, its name, how many processes, their memory beside this one's, and the GPU's."""

    kind: str
    name: str
    workers: int
    host: int
    device: int | None


class StopSignal:
    """Remembers SIGTERM and SIGINT until the work asks; a second one ends the process at once."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            os._exit(InterruptedRun.exit_code)
        self.number = number

    def check(self) -> None:
        """Raise if a signal came.

        Raises:
            InterruptedRun: always the same one, with what to do.
        """
        if self.number:
            raise InterruptedRun(
                f"Stopped by {signal.Signals(self.number).name}; finished shards are kept.",
                hint="Run the same command again to go on.",
            )


def main(arguments: list[str]) -> int:
    """Run one job file; returns the exit code."""
    stop = StopSignal()
    return edge.run(PROGRAM, arguments, lambda path: run(path.absolute(), stop))


def run(path: Path, stop: StopSignal) -> None:
    """Quantize what the job file names, or go on with it, or see that it is done.

    Raises:
        PublisherError: of the class whose exit code docs/job-file.md names.
    """
    job = read_job(path)
    if already_done(job.output, job.plan_digest):
        clear(job.staging)
        emit(STAGE, "skip", message=f"{job.output} is complete already.")
        return
    started = time.monotonic()
    torch = _torch()
    from publisher.native import kernels, quantize, recode
    from publisher.native.work import prepare

    kernels.thread_by_chunk()
    prepared = prepare(job)
    inspect(job.source)
    _tell_substituted(prepared.ranges)
    unreached = sparsity.by_magnitude(job, prepared.source.refs, prepared.seen)
    if unreached:
        message = f"No token reached {len(unreached):,} modules, first {unreached[0]}; they are pruned by magnitude."
        emit(STAGE, "warning", message=message)
    stamp = stamps(job.source, prepared.source.shards)
    with StagedWriter(job.staging, job.output, prepared.layout, plan_digest=job.plan_digest, source=stamp) as writer:
        hands = _work_off(torch, path, prepared, writer, stop)
        stop.check()
        require_unchanged(stamp, stamps(job.source, prepared.source.shards))
        stated = job.sparsity.statement if job.sparsity else None
        side_files = restore(job.source, writer.files, job.quantization_config, job.hf_quant_config, sparsity=stated)
        record = _record(job, torch, hands, writer, time.monotonic() - started)
        record["weight_error"] = quantize.weight_errors(writer.notes)
        record["side_files"] = side_files
        record["taken_over"] = recode.accounts(writer.notes, len(prepared.source.repacked))
        seen = prepared.seen
        record["activation_statistics"] = _observed(seen, prepared.ranges) if seen and prepared.ranges.amax else None
        record["sparsity"] = sparsity.record(job, unreached)
        record["not_finite"] = dict(sorted(job.not_finite.items()))
        record["calibration"] = dict(seen.metadata) if seen else None
        with disk_errors(job.staging, 0):
            jsonio.write_atomic(job.staging / "quantize.json", jsonio.dump_json(record))
        writer.finish(record)
    emit(STAGE, "done", message=f"{job.output} is complete.", weight_error=record["weight_error"]["overall"])


def _work_off(torch: Any, path: Path, work: Work, writer: StagedWriter, stop: StopSignal) -> Hands:
    """Write every shard that is not finished, in this process or in several."""
    from publisher.native import devices, units
    from publisher.native.crew import Crew

    job = work.job
    tasks = units.pending(work.units, job.stored, writer.done)
    left = [ref for task in tasks for ref in task.refs]
    progress = TensorProgress(STAGE, left, total=len(work.source.refs))
    shards = [shard.name for shard in work.layout if shard.name not in writer.finished]
    chosen = devices.crew(
        torch,
        job.device,
        job.workers,
        shards=len(shards),
        size=sum(task.unit.size for task in tasks),
        largest=max((task.unit.memory for task in tasks if task.unit.quantized), default=0),
    )
    kind = chosen[0] if len(set(chosen)) == 1 else job.device
    alone = len(chosen) == 1
    named = devices.device_name(torch, torch.device(kind)) if alone else f"{len(chosen)} processes on {kind}"
    emit(
        STAGE,
        "start",
        message=f"{len(job.quantize)} modules to {job.format} ({job.mode}) on {named}",
        modules=len(job.quantize),
        tensors=len(work.source.refs),
        shards=len(work.layout),
        shards_finished=len(writer.finished),
        device=kind,
        workers=len(chosen),
    )
    if not alone:
        crew = Crew(path, chosen, writer, stop.check, progress)
        crew.run(shards)
        return Hands(kind, ", ".join(crew.names), len(chosen), crew.peaks.host, crew.peaks.device)
    _alone(torch, torch.device(kind), work, tasks, writer, stop, progress)
    memory = torch.cuda.max_memory_allocated(torch.device(kind)) if kind.startswith("cuda") else None
    return Hands(kind, named, 1, 0, memory)


def _alone(
    torch: Any,
    device: Any,
    work: Work,
    tasks: Sequence[Task],
    writer: StagedWriter,
    stop: StopSignal,
    progress: TensorProgress,
) -> None:
    from publisher.native.quantize import Quantizer
    from publisher.native.worker import out_of_memory

    try:
        Quantizer(work.job, work.source, writer, device, stop.check, work.inputs).run(tasks, progress.wrote)
        writer.wait()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise out_of_memory(str(device), error) from error


def _tell_substituted(ranges: InputRanges) -> None:
    """Experts that no token reached are named, not passed over."""
    if ranges.substituted:
        first = sorted(ranges.substituted)[0]
        emit(
            STAGE,
            "warning",
            message=f"No token reached {len(ranges.substituted):,} modules, first {first}; their input range is "
            f"{statistics.POLICY}.",
        )


def _observed(seen: Statistics, ranges: InputRanges) -> dict[str, Any]:
    """Per module the range its input scale was made of, tokens seen, and where the range is another's."""
    return {
        name: {
            "input_amax": float(amax),
            "tokens": seen.modules[name].tokens,
            **({"substituted": statistics.POLICY} if name in ranges.substituted else {}),
        }
        for name, amax in ranges.amax.items()
    }


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise EngineError(
            "The native engine needs torch, which is not installed here.",
            hint="Install it with `pip install 'fp4-publisher[native]'`.",
        ) from error
    return torch


def _record(job: Job, torch: Any, hands: Hands, writer: StagedWriter, seconds: float) -> dict[str, Any]:
    """What docs/job-file.md asks of quantize.json, as far as this run can tell; peak memory in bytes."""
    return {
        "schema": 1,
        "engine": ENGINE,
        "format": job.format,
        "mode": job.mode,
        "versions": {"publisher": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "device": {"kind": hands.kind, "name": hands.name},
        "workers": hands.workers,
        "environment": surroundings(["fp4-publisher"], torch),
        "seconds": round(seconds, 3),
        "peak_memory": {
            "host": peak_host_bytes() + hands.host,
            "device": hands.device,
        },
        "shards": {name: {"size": e["size"], "sha256": e["sha256"]} for name, e in sorted(writer.finished.items())},
    }


if __name__ == "__main__":
    edge.leave(main(sys.argv[1:]))
