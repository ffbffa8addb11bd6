"""Where the arithmetic runs, and how many processes take part.

One process with a thread per core is the default on a CPU: its kernels leave the interpreter's lock, and every further
process costs the memory of torch. Large machines with much work get one process for every eight cores, because reading
and the bookkeeping of one do not keep more busy. `all` is one process for every GPU torch sees.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from publisher.errors import EngineError
from publisher.native.memory import available_host_bytes
from publisher.native.threads import thread_by_chunk

CORES_EACH = 8
BYTES_EACH = 32 << 30  # less work is not worth the start of a further process
MEMORY_EACH = 3 << 30  # torch, what is read ahead and what waits to be written
MOST = 64


def device(torch: Any, name: str) -> Any:
    """`auto` is the first GPU (CUDA and ROCm answer alike), the CPU where there is none.

    Raises:
        EngineError: no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        count = gpus(torch)
        if int(name.partition(":")[2] or 0) >= count:
            raise EngineError(
                f"The device {name} is not there: torch {torch.__version__} sees {count} GPUs.",
                hint="Set device: auto or cpu, or install a torch build for this GPU.",
            )
    return torch.device(name)


def device_name(torch: Any, found: Any) -> str:
    """What a person calls it."""
    return str(torch.cuda.get_device_name(found)) if found.type == "cuda" else f"CPU ({thread_by_chunk()} threads)"


def gpus(torch: Any) -> int:
    """How many GPUs torch sees."""
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def crew(torch: Any, name: str, workers: int | None, *, shards: int, size: int, largest: int = 0) -> tuple[str, ...]:
    """The device of every process that takes part; never more processes than shards.

    Args:
        torch: the library.
        name: auto, cpu, cuda, cuda:N or all.
        workers: how many; None chooses.
        shards: how many shards there still are to write.
        size: bytes there still are to read.
        largest: bytes of the largest weights that are in memory together.

    Raises:
        EngineError: no such GPU, or none at all.
    """
    if name == "all":
        count = gpus(torch)
        if not count:
            raise EngineError(
                f"device: all asks for GPUs, and torch {torch.__version__} sees none.",
                hint="Set device: auto or cpu, or install a torch build for this GPU.",
            )
        names: Sequence[str] = [f"cuda:{number % count}" for number in range(workers or count)]
    else:
        found = str(device(torch, name))
        names = [found] * (workers or (1 if found != "cpu" else _fitting(size, largest)))
    return tuple(names[: max(1, min(shards, MOST))])


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fitting(size: int, largest: int) -> int:
    free = available_host_bytes()
    by_memory = MOST if free is None else free // (MEMORY_EACH + 2 * largest)
    return max(1, min(cores() // CORES_EACH, size // BYTES_EACH, by_memory))
