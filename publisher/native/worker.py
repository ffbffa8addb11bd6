"""`python -m publisher.native.worker JOB.json DEVICE`: one process of several that work on a job; `crew` starts it.

It is told on standard input which shards of the result to write, one JSON line each, and tells on standard output what
it did: events, `shard` for one that is flushed and hashed under its `.partial` name, `wrote` for a tensor. It keeps
no ledger and renames nothing, so that it can be killed at any moment; it ends at once when standard input does, because
then nobody is left to say what its work is for.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.layout import ShardLayout
from publisher.checkpoint.shardfiles import Entry, ShardFiles
from publisher.checkpoint.writer import FILES
from publisher.errors import EngineError, InterruptedRun, PublisherError
from publisher.native import edge
from publisher.native.events import emit
from publisher.native.job import Job, read_job
from publisher.native.units import Task, by_shard, stored_name

STAGE = "worker"


class Orders:
    """The shards this process is told to write, as they come; `end` is the last word."""

    def __init__(self) -> None:
        self._shards: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._shards.put(json.loads(line).get("shard"))
        os._exit(InterruptedRun.exit_code)

    def __iter__(self) -> Iterator[str]:
        while (name := self._shards.get()) is not None:
            yield name


def main(arguments: list[str]) -> int:
    """Work until told to end; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # who started this process stops it
    orders = Orders()
    try:
        work(read_job(Path(arguments[0])), arguments[1], orders)
    except PublisherError as error:
        emit(STAGE, "error", message=error.message, hint=error.hint, code=error.exit_code)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
        message = f"A worker of the quantizer failed: {type(error).__name__}: {str(error)[:500]}"
        emit(STAGE, "error", message=message, hint="Run the same command again.", code=EngineError.exit_code)
        return EngineError.exit_code
    return 0


def work(job: Job, device: str, orders: Orders) -> None:
    """Write the shards that are asked for.

    Raises:
        PublisherError: as the quantizer.
    """
    import torch

    from publisher.native import devices, kernels
    from publisher.native.memory import peak_host_bytes
    from publisher.native.quantize import Quantizer
    from publisher.native.work import prepare

    found = devices.device(torch, device)
    kernels.thread_by_chunk()
    prepared = prepare(job)
    files = ShardFiles(job.staging / FILES, prepared.layout, _tell, lambda: 0)
    tasks = by_shard(prepared.units, job.stored, lambda name: files.shard_of(name).name)
    place = {ref.name: stored_name(unit, ref, job.stored) for unit in prepared.units for ref in unit.refs}

    def wrote(ref: TensorRef) -> None:
        emit(STAGE, "wrote", shard=files.shard_of(place[ref.name]).name, tensor=ref.name, size=ref.size)

    def asked() -> Iterator[Task]:
        for shard in orders:
            yield from tasks.get(shard, ())

    emit(STAGE, "ready", device=str(found), name=devices.device_name(torch, found))
    try:
        Quantizer(job, prepared.source, files, found, lambda: None, prepared.inputs).run(asked(), wrote)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise out_of_memory(device, error) from error
    files.wait()
    gpu = found.type == "cuda"
    emit(STAGE, "end", host=peak_host_bytes(), device=torch.cuda.max_memory_allocated(found) if gpu else None)


def out_of_memory(device: str, error: BaseException) -> EngineError:
    """The sentence for it."""
    return EngineError(
        f"Out of memory on {device}: {str(error)[:200] or 'allocation failed'}.",
        hint="Take fewer workers, device: cpu, or a machine with more memory; finished shards are kept.",
    )


def _tell(shard: ShardLayout, entry: Entry) -> None:
    emit(STAGE, "shard", shard=shard.name, entry=entry)


if __name__ == "__main__":
    edge.leave(main(sys.argv[1:]))
