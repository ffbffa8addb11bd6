"""Reading ahead and writing behind: order, bounds, errors of the other thread, and ends that do not hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from publisher.native.stream import Budget, ReadAhead, WriteBehind


def test_items_come_in_order_and_one_is_read_while_another_is_worked_on() -> None:
    loading = threading.Event()

    def load(number: int) -> int:
        if number == 1:
            loading.set()
        return number * number

    with ReadAhead(range(5), load, lambda _: 1, budget=10) as ahead:
        found = []
        for number, square in ahead:
            if number == 0:
                assert loading.wait(5)  # the next one, before this one is done
            found.append((number, square))
    assert found == [(n, n * n) for n in range(5)]


@pytest.mark.parametrize(("budget", "most"), [(10, 1), (20, 2), (25, 2), (35, 3), (1, 1)])
def test_no_more_is_in_memory_than_the_budget_or_one_item(budget: int, most: int) -> None:
    held, peak = 0, 0
    lock = threading.Lock()

    def load(_: int) -> None:
        nonlocal held, peak
        with lock:
            held += 1
            peak = max(peak, held)

    with ReadAhead(range(20), load, lambda _: 10, budget=budget) as ahead:
        for _ in ahead:
            time.sleep(0.003)
            with lock:
                held -= 1
    assert peak <= most


def test_a_read_that_hangs_ends_when_whoever_waits_is_stopped() -> None:
    """As on a file system over a network whose server is gone."""
    gone = threading.Event()
    asked: list[float] = []

    def stop() -> None:
        asked.append(time.monotonic())
        if len(asked) == 2:
            raise KeyboardInterrupt

    def work() -> None:
        with ReadAhead([1], lambda _: gone.wait(20), lambda _: 1, 10, stop) as ahead:
            list(ahead)

    try:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            work()
        assert time.monotonic() - began < 10
    finally:
        gone.set()


def test_what_goes_wrong_while_reading_is_raised_at_its_item() -> None:
    def load(number: int) -> int:
        if number == 2:
            raise OSError("the disk")
        return number

    seen: list[int] = []

    def work() -> None:
        with ReadAhead(range(9), load, lambda _: 1, budget=100) as ahead:
            for number, _ in ahead:
                seen.append(number)

    with pytest.raises(OSError, match="the disk"):
        work()
    assert seen == [0, 1]


def test_an_error_of_the_caller_ends_a_reader_that_waits_for_items() -> None:
    never = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        never.wait(5)

    def work() -> None:
        with ReadAhead(items(), lambda n: n, lambda _: 1, budget=9) as ahead:
            for _ in ahead:
                raise ValueError("mine")

    began = time.monotonic()
    with pytest.raises(ValueError, match="mine"):
        work()
    assert time.monotonic() - began < 2
    never.set()


def test_work_is_done_in_order_and_waited_for() -> None:
    done: list[int] = []
    with WriteBehind(100) as behind:
        for number in range(50):
            behind.submit(10, lambda number=number: done.append(number))
        behind.wait()
        assert done == list(range(50))


def test_what_waits_is_bounded() -> None:
    gate, begun = threading.Event(), []

    def work() -> None:
        begun.append(1)
        gate.wait(5)

    with WriteBehind(20) as behind:
        submitted = []

        def submit() -> None:
            for _ in range(4):
                behind.submit(10, work)
                submitted.append(1)

        thread = threading.Thread(target=submit)
        thread.start()
        time.sleep(0.2)
        assert len(submitted) == 2
        gate.set()
        thread.join(5)
        behind.wait()
    assert len(begun) == 4


def test_a_failed_write_is_told_to_the_next_and_nothing_more_is_written() -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError("full")

    def work() -> None:
        with WriteBehind(100) as behind:
            behind.submit(1, fail)
            for _ in range(10):
                behind.submit(1, lambda: done.append("written"))
                time.sleep(0.01)

    with pytest.raises(OSError, match="full"):
        work()
    assert done == []


def test_a_closed_budget_lets_everybody_go() -> None:
    budget = Budget(1)
    assert budget.take(1)
    waiting = threading.Thread(target=budget.take, args=(1,))
    waiting.start()
    budget.close()
    waiting.join(2)
    assert not waiting.is_alive()
