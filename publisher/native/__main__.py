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
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from publisher import __version__, jsonio
from publisher.checkpoint import statistics
from publisher.checkpoint.sidefiles import inspect, restore
from publisher.checkpoint.stamps import require_unchanged, stamps
from publisher.checkpoint.statistics import InputRanges, Statistics
from publisher.checkpoint.writer import StagedWriter, already_done, clear, disk_errors
from publisher.errors import EngineError, InterruptedRun, PublisherError
from publisher.native import sparsity
from publisher.native.events import TensorProgress, emit
from publisher.native.job import ENGINE, Job, read_job
from publisher.native.memory import peak_host_bytes

STAGE = "quantize"
USAGE = "Usage: python -m publisher.native JOB.json"


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
    try:
        if len(arguments) != 1:
            raise PublisherError(USAGE)
        run(read_job(Path(arguments[0])), stop)
    except InterruptedRun as error:
        emit(STAGE, "cancelled", message=error.message, hint=error.hint)
        return error.exit_code
    except PublisherError as error:
        emit(STAGE, "error", message=error.message, hint=error.hint)
        return error.exit_code
    except BrokenPipeError:  # whoever started this is gone; what is finished is kept
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return InterruptedRun.exit_code
    except Exception as error:  # noqa: BLE001 - the edge of a process: what nobody foresaw becomes its last event
        traceback.print_exc()
        message = f"The quantizer failed: {type(error).__name__}: {str(error)[:500]}"
        emit(STAGE, "error", message=message, hint="Run the same command again; if it fails again, report the log.")
        return EngineError.exit_code
    return 0


def run(job: Job, stop: StopSignal) -> None:
    """Quantize what the job names, or go on with it, or see that it is done.

    Raises:
        PublisherError: of the class whose exit code docs/job-file.md names.
    """
    if already_done(job.output, job.plan_digest):
        clear(job.staging)
        emit(STAGE, "skip", message=f"{job.output} is complete already.")
        return
    started = time.monotonic()
    torch = _torch()
    from publisher.native import kernels, quantize, units
    from publisher.native.source import SourceTensors

    device = _device(torch, job.device)
    name = _device_name(torch, device)
    kernels.thread_by_chunk()
    source = SourceTensors(job.source)
    inspect(job.source)
    seen = None if job.statistics is None else statistics.read(job.statistics)
    ranges = _input_ranges(job, seen if job.activations == "calibrated" else None)
    inputs = {name: statistics.input_scale(amax, job.stored) for name, amax in ranges.amax.items()}
    unreached = sparsity.by_magnitude(job, source.refs, seen)
    if unreached:
        message = f"No token reached {len(unreached):,} modules, first {unreached[0]}; they are pruned by magnitude."
        emit(STAGE, "warning", message=message)
    work = units.plan_units(source.refs, job)
    layout = units.plan_layout(work, job)
    stamp = stamps(job.source, source.shards)
    with StagedWriter(job.staging, job.output, layout, plan_digest=job.plan_digest, source=stamp) as writer:
        emit(
            STAGE,
            "start",
            message=f"{len(job.quantize)} modules to {job.format} ({job.mode}) on {name}",
            modules=len(job.quantize),
            tensors=len(source.refs),
            shards=len(layout),
            shards_finished=len(writer.finished),
            device=str(device),
        )
        try:
            tasks = units.pending(work, job.stored, writer.done)
            progress = TensorProgress(STAGE, [ref for task in tasks for ref in task.refs], total=len(source.refs))
            quantize.Quantizer(job, source, writer, device, stop.check, inputs).run(tasks, progress.wrote)
            writer.wait()
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise EngineError(
                f"Out of memory on {device}: {str(error)[:200] or 'allocation failed'}.",
                hint="Set device: cpu, or use a machine with more memory; finished shards are kept.",
            ) from error
        stop.check()
        stated = job.sparsity.statement if job.sparsity else None
        side_files = restore(job.source, writer.files, job.quantization_config, job.hf_quant_config, sparsity=stated)
        record = _record(job, torch, device, name, writer, time.monotonic() - started)
        record["weight_error"] = quantize.weight_errors(writer.notes)
        record["side_files"] = side_files
        record["activation_statistics"] = _observed(seen, ranges) if seen and ranges.amax else None
        record["sparsity"] = sparsity.record(job, unreached)
        record["calibration"] = dict(seen.metadata) if seen else None
        with disk_errors(job.staging, 0):
            jsonio.write_atomic(job.staging / "quantize.json", jsonio.dump_json(record))
        writer.finish(record)
    emit(STAGE, "done", message=f"{job.output} is complete.", weight_error=record["weight_error"]["overall"])


def _input_ranges(job: Job, seen: Statistics | None) -> InputRanges:
    """What every module's input is quantized for; experts that no token reached are named, not passed over."""
    if seen is None:
        return InputRanges(amax={}, substituted={})
    ranges = statistics.input_ranges(seen, job.quantize, job.groups)
    if ranges.substituted:
        first = sorted(ranges.substituted)[0]
        emit(
            STAGE,
            "warning",
            message=f"No token reached {len(ranges.substituted):,} modules, first {first}; their input range is "
            f"{statistics.POLICY}.",
        )
    return ranges


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


def _device(torch: Any, name: str) -> Any:
    """`auto` is the first GPU (CUDA and ROCm answer alike), the CPU where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(name.partition(":")[2] or 0) >= count:
            raise EngineError(
                f"The device {name} is not there: torch {torch.__version__} sees {count} GPUs.",
                hint="Set device: auto or cpu, or install a torch build for this GPU.",
            )
    return torch.device(name)


def _device_name(torch: Any, device: Any) -> str:
    return (
        str(torch.cuda.get_device_name(device)) if device.type == "cuda" else f"CPU ({torch.get_num_threads()} threads)"
    )


def _record(job: Job, torch: Any, device: Any, name: str, writer: StagedWriter, seconds: float) -> dict[str, Any]:
    """What docs/job-file.md asks of quantize.json, as far as this run can tell; peak memory in bytes."""
    gpu = device.type == "cuda"
    return {
        "schema": 1,
        "engine": ENGINE,
        "format": job.format,
        "mode": job.mode,
        "versions": {"publisher": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "device": {"kind": str(device), "name": name},
        "seconds": round(seconds, 3),
        "peak_memory": {
            "host": peak_host_bytes(),
            "device": torch.cuda.max_memory_allocated(device) if gpu else None,
        },
        "shards": {name: {"size": e["size"], "sha256": e["sha256"]} for name, e in sorted(writer.finished.items())},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
