"""Several processes at work on one job: who gets which shard of the result, and what happens when one of them dies.

Each process is a `worker` with shards of its own; this one hands them out, renames what comes back and keeps the
ledger, so that the result is the same for any number of them. A worker has one shard at work and one in store. One that
dies without a word, as the system kills processes when memory runs out, leaves its shards to the others; a shard that
was at work in two dead workers, or a death with nobody left, ends the run, and what is finished is kept. A stop kills
all workers: a shard is finished or it is nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher.checkpoint.writer import StagedWriter
from publisher.errors import CheckpointError, EngineError, PublisherError
from publisher.native.devices import cores
from publisher.native.events import TensorProgress, emit

STAGE = "quantize"
IN_STORE = 2  # shards a worker knows of, the one at work included
DEATHS = 2  # of workers over one shard
_TICK = 0.2

Message = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Worker:
    """A process, its device and the shards it has, the one at work first."""

    number: int
    device: str
    process: subprocess.Popen[str]
    shards: deque[str] = field(default_factory=deque)
    ended: bool = False

    def order(self, shard: str | None) -> None:
        """Give it a shard; None is the last word. A worker that is gone is found out elsewhere."""
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.write(json.dumps({"shard": shard}) + "\n")
                self.process.stdin.flush()
        if shard is not None:
            self.shards.append(shard)


@dataclass(slots=True)
class Peaks:
    """Memory at its highest: of all processes together, and of the fullest GPU."""

    host: int = 0
    device: int | None = None


class Crew:
    """Runs workers until every shard is written.

    Args:
        job: the job file.
        devices: the device of each worker.
        writer: keeps the ledger.
        stop: called often; raises to end the run.
        progress: is told of tensors.
    """

    def __init__(
        self,
        job: Path,
        devices: Sequence[str],
        writer: StagedWriter,
        stop: Callable[[], None],
        progress: TensorProgress,
    ) -> None:
        self._job, self._devices, self._writer, self._stop, self._progress = job, devices, writer, stop, progress
        self._messages: queue.Queue[tuple[Worker, Message | None]] = queue.Queue()
        self._workers: list[Worker] = []
        self._waiting: deque[str] = deque()
        self._deaths: Counter[str] = Counter()
        self._counted: dict[str, list[int]] = {}
        self.peaks = Peaks()
        self.names: dict[str, None] = {}

    def run(self, shards: Sequence[str]) -> None:
        """Write these shards.

        Raises:
            PublisherError: what a worker found.
            EngineError: workers died.
            InterruptedRun: from `stop`.
        """
        self._waiting.extend(shards)
        try:
            for number, device in enumerate(self._devices, 1):
                self._workers.append(self._start(number, device))
            for _ in range(IN_STORE):
                for worker in self._workers:
                    self._supply(worker)
            while not all(worker.ended for worker in self._workers):
                self._stop()
                self._next()
        finally:
            self._kill()

    def _start(self, number: int, device: str) -> Worker:
        threads = {"OMP_NUM_THREADS": str(max(1, cores() // len(self._devices)))}
        command = [sys.executable, "-m", "publisher.native.worker", str(self._job), device]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",  # of a library; a listener that ends would leave its worker unheard
            env={**threads, **os.environ},
            pass_fds=[self._writer.lock] if self._writer.lock >= 0 else [],
        )
        worker = Worker(number=number, device=device, process=process)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker: Worker) -> None:
        for line in worker.process.stdout or ():
            message = _event(line)
            if message is None:
                sys.stderr.write(line)  # of a library
            else:
                self._messages.put((worker, message))
        self._messages.put((worker, None))

    def _next(self) -> None:
        try:
            worker, message = self._messages.get(timeout=_TICK)
        except queue.Empty:
            return
        if message is None:
            self._gone(worker)
            return
        payload = message["payload"]
        match message["kind"]:
            case "wrote":
                self._count(payload["shard"], payload["size"], payload["tensor"])
            case "shard":
                self._writer.adopt(payload["shard"], payload["entry"])
                worker.shards.remove(payload["shard"])
                self._supply(worker)
            case "ready":
                self.names[payload["name"]] = None
            case "end":
                self.peaks.host += payload["host"]
                self.peaks.device = max(filter(None, (self.peaks.device, payload["device"])), default=None)
            case "error":
                raise _error(payload)
            case kind:
                emit(STAGE, kind, **payload)

    def _count(self, shard: str, size: int, tensor: str) -> None:
        counted = self._counted.setdefault(shard, [0, 0])
        counted[0], counted[1] = counted[0] + 1, counted[1] + size
        self._progress.count(1, size, tensor)

    def _supply(self, worker: Worker) -> None:
        """A further shard, or the last word once there is none and none can come back from another worker."""
        if self._waiting:
            worker.order(self._waiting.popleft())
        else:
            self._end()

    def _end(self) -> None:
        if not self._waiting and not any(worker.shards for worker in self._workers):
            for worker in self._workers:
                worker.order(None)

    def _gone(self, worker: Worker) -> None:
        code = worker.process.wait()
        worker.ended = True
        if code == 0 and not worker.shards:
            return
        self._workers.remove(worker)
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        likely = ", most likely by the system for want of memory" if code == -signal.SIGKILL else ""
        told = f"Worker {worker.number} of {len(self._devices)} on {worker.device} {how}{likely}"
        if worker.shards:
            self._deaths[worker.shards[0]] += 1
        fatal = worker.shards and self._deaths[worker.shards[0]] >= DEATHS
        left = [other for other in self._workers if not other.ended]
        if fatal or not left:
            again = f", the second one over {worker.shards[0]}" if fatal else "; none is left"
            raise EngineError(
                f"{told}{again}.",
                hint="Run the same command again with fewer --workers or more memory; finished shards are kept.",
            )
        emit(STAGE, "warning", message=f"{told}; its {len(worker.shards)} shards go to the {len(left)} others.")
        self._return(worker.shards)
        for other in left:
            if len(other.shards) < IN_STORE:
                self._supply(other)

    def _return(self, shards: deque[str]) -> None:
        for shard in reversed(shards):
            self._waiting.appendleft(shard)
            tensors, size = self._counted.pop(shard, (0, 0))
            if tensors:
                self._progress.count(-tensors, -size, shard)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            for pipe in (worker.process.stdin, worker.process.stdout):
                if pipe is not None:
                    _close(pipe)


def _event(line: str) -> Message | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, dict) and isinstance(found.get("kind"), str) and isinstance(found.get("payload"), dict)
    return found if whole else None


def _close(pipe: Any) -> None:
    with contextlib.suppress(OSError, ValueError):  # a last line that nobody reads any more
        pipe.close()


def _error(payload: Message) -> PublisherError:
    """A worker's error as if it had been this process's own."""
    kind = {2: CheckpointError, 5: EngineError}.get(payload.get("code", 5), EngineError)
    return kind(payload["message"], hint=payload["hint"])
