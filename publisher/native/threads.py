"""Threads of a quantizer on the CPU: whole chunks of rows go to them, in order, whatever their number.

torch and numba leave the interpreter's lock while they compute, so plain threads fill the cores. On a shared machine
chunks are better than torch's own way of sharing each operation out: its many small barriers cost more than the work.
Results come back in the order of the chunks, and chunks do not depend on the number of threads, so neither do sums.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")


@functools.cache
def _pool() -> tuple[ThreadPoolExecutor, int]:
    threads: int = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "fp4", initializer=torch.set_num_threads, initargs=(1,))
    return pool, threads


def thread_by_chunk() -> int:
    """Give this process's operations one thread each and chunks the rest; returns how many chunks run at once."""
    _, threads = _pool()
    torch.set_num_threads(1)
    return threads


def row_chunks(rows: int, columns: int, elements: int) -> list[slice]:
    """Runs of whole rows, each of at most `elements` elements (or one row)."""
    step = max(1, elements // max(columns, 1))
    return [slice(begin, min(begin + step, rows)) for begin in range(0, rows, step)]


def at_once(chunks: Sequence[slice], work: Callable[[slice], T]) -> list[T]:
    """The results of some work on every chunk, in order; several chunks at a time.

    Each thread takes the next chunk itself: handing them out one by one would put a thread to sleep after each.
    """
    if len(chunks) < 2:
        return [work(rows) for rows in chunks]
    inference = torch.is_inference_mode_enabled()  # the mode belongs to a thread, so the others are told
    remaining = iter(range(len(chunks)))
    results: dict[int, T] = {}

    def drain() -> None:
        with torch.inference_mode(inference):
            for number in remaining:
                results[number] = work(chunks[number])

    pool, threads = _pool()
    futures = [pool.submit(drain) for _ in range(min(threads, len(chunks)))]
    wait(futures)
    for future in futures:
        future.result()
    return [results[number] for number in range(len(chunks))]
