"""Reading ahead and writing behind: the disk works while the kernels do.

Both are one thread each beside the caller, and both are bounded in bytes: what is read ahead and not given back yet
stays within a budget (a single item larger than that is read alone), and so does what waits to be written. Order is
kept, and an error of either thread reaches the caller at its next call. Leaving a `with` block early drops what waits;
a read that hangs is not waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, TypeVar

_TICK = 0.2  # seconds between two questions whether to go on waiting

T = TypeVar("T")
R = TypeVar("R")


class Budget:
    """So many bytes at a time; who wants more waits until others gave back, or until nobody holds any.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._size, self._held, self._open = size, 0, True
        self._changed = threading.Condition()

    def take(self, amount: int) -> bool:
        """Wait for that much; False once the budget is closed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or not self._held or self._held + amount <= self._size)
            self._held += amount
            return self._open

    def give(self, amount: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._held -= amount
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody go."""
        with self._changed:
            self._open = False
            self._changed.notify_all()


class ReadAhead(Generic[T, R]):
    """Loads items one after the other in a thread of its own, as far ahead as the budget allows.

    Args:
        items: what to load, in order; asked for in that thread.
        load: loads one.
        size: bytes one takes in memory.
        budget: bytes that are loaded and not yet given back; one item may be larger.
        waiting: called from time to time while nothing is loaded yet; raises to end the wait.
    """

    def __init__(
        self,
        items: Iterable[T],
        load: Callable[[T], R],
        size: Callable[[T], int],
        budget: int,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._items, self._load, self._size, self._waiting = iter(items), load, size, waiting
        self._budget = Budget(budget)
        self._thread = ThreadPoolExecutor(1, "read")
        self._next: Future[tuple[T, R] | None] | None = None
        self._ahead: list[Future[tuple[T, R] | None]] = []

    def __iter__(self) -> Iterator[tuple[T, R]]:
        """Items with what was loaded; an item's bytes count as given back when the next one is asked for."""
        self._ahead = [self._thread.submit(self._read) for _ in range(2)]
        while (found := self._loaded(self._ahead.pop(0))) is not None:
            self._ahead.append(self._thread.submit(self._read))
            item = found[0]
            yield found
            del found
            self._budget.give(self._size(item))

    def _loaded(self, future: Future[tuple[T, R] | None]) -> tuple[T, R] | None:
        while not future.done() and not wait((future,), _TICK).done:
            self._waiting()
        return future.result()

    def _read(self) -> tuple[T, R] | None:
        item = next(self._items, None)
        if item is None or not self._budget.take(self._size(item)):
            return None
        return item, self._load(item)

    def __enter__(self) -> ReadAhead[T, R]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._budget.close()
        self._thread.shutdown(wait=kind is None, cancel_futures=True)  # it may be waiting for an item


class WriteBehind:
    """Does pieces of work in order in a thread of its own.

    Args:
        budget: bytes that may wait; one piece of work may be larger.
    """

    def __init__(self, budget: int) -> None:
        self._budget = Budget(budget)
        self._thread = ThreadPoolExecutor(1, "write")
        self._failure: BaseException | None = None

    def submit(self, size: int, work: Callable[[], None]) -> None:
        """Do this after all that was submitted before; waits while too much waits already.

        Raises:
            BaseException: what an earlier piece of work raised.
        """
        self._raise()
        self._budget.take(size)
        self._thread.submit(self._do, size, work)

    def _do(self, size: int, work: Callable[[], None]) -> None:
        try:
            if self._failure is None:
                work()
        except BaseException as error:  # noqa: BLE001 - told to whoever submits next
            self._failure = error
        finally:
            self._budget.give(size)

    def wait(self) -> None:
        """Wait until everything is done.

        Raises:
            BaseException: what a piece of work raised.
        """
        self._thread.submit(lambda: None).result()
        self._raise()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._budget.close()
        self._thread.shutdown(cancel_futures=kind is not None)
