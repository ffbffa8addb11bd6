"""A process that has imported torch once and forks a child for every program a test runs: `python -m` without its wait.

The child runs the module as `python -m` does, `__main__` block included, with an environment, standard streams,
signals, limits and an end of its own, so it can be watched, stopped and killed as any other process. What it does not
have of its own is the seed of Python's hashes; `test_main` compares with a program that was started for real. The
process that forks runs one thread and computes nothing, so a child finds no lock held and no pool half there.
"""

from __future__ import annotations

import array
import json
import os
import resource
import runpy
import selectors
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
STREAMS = 4  # standard input, output, error, and where the end is told


# --- the process that forks ----------------------------------------------------------------------------------------


def serve(control: socket.socket) -> None:
    """Fork a child per request and tell how each ended, until nobody is left to ask. A child returns from here."""
    ready = selectors.DefaultSelector()
    ready.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is not control:
                _tell_end(ready, key)
                continue
            request, fds = _received(control)
            if request is None:
                return
            pid = os.fork()
            if pid == 0:
                ready.close()
                control.close()
                _become(request, fds)
                return
            for fd in fds[:3]:
                os.close(fd)
            ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, fds[3]))
            control.sendall(f"{pid}\n".encode())


def _received(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    line, fds, _, _ = socket.recv_fds(control, 1 << 16, STREAMS)
    while line and not line.endswith(b"\n"):
        line += control.recv(1 << 16)
    return (json.loads(line) if line else None), fds


def _tell_end(ready: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, told = key.data
    ready.unregister(key.fileobj)
    os.close(key.fd)
    end: Any = os.waitid(
        os.P_PID, pid, os.WEXITED | os.WNOWAIT
    )  # it keeps its number, so a late signal hits nobody else
    code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
    os.write(told, f"{code}\n".encode())
    os.close(told)


def _become(request: Mapping[str, Any], fds: list[int]) -> None:
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
    for fd in fds:
        os.close(fd)
    if request["new_session"]:
        os.setsid()
    if request["file_size"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["-m", *request["arguments"]]


def main() -> None:
    """Import, serve, and in a child be the program that was asked for."""
    import numba  # noqa: F401
    import torch  # noqa: F401

    import publisher.checkpoint.sidefiles
    import publisher.checkpoint.statistics
    import publisher.native.crew
    import publisher.native.quantize
    import publisher.native.recode
    import publisher.native.sparsity
    import publisher.native.surroundings
    import publisher.native.work
    import publisher.native.worker  # noqa: F401

    with socket.socket(fileno=int(sys.argv[1])) as control:
        serve(control)
    if sys.argv[0] != "-m":
        os._exit(0)
    runpy.run_module("publisher.native", run_name="__main__", alter_sys=True)


# --- the test's side -----------------------------------------------------------------------------------------------


class Forked:
    """A running program; as much of `subprocess.Popen` as the tests use."""

    def __init__(self, pid: int, stdout: IO[str], told: int) -> None:
        self.pid, self.stdout, self._told = pid, stdout, told
        self.returncode: int | None = None

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.stdout.close()

    def send_signal(self, number: int) -> None:
        """Send a signal unless the end is known."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def wait(self) -> int:
        """How it ended: the exit code, or the signal negated."""
        if self.returncode is None:
            with os.fdopen(self._told) as told:
                self.returncode = int(told.readline())
        return self.returncode


class Zygote:
    """The process that forks, started by the first who needs it."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.native.zygote", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(
        self,
        arguments: list[str],
        *,
        stderr: int | None = None,
        new_session: bool = False,
        file_size: int | None = None,
    ) -> Forked:
        """`python -m publisher.native ARGUMENTS` with the present environment.

        Args:
            arguments: of the program.
            stderr: where its errors go; the test's own standard error otherwise.
            new_session: it leads a process group of its own.
            file_size: it writes no file longer than so many bytes, as if the disk were full.
        """
        request = {
            "arguments": arguments,
            "environment": dict(os.environ),
            "new_session": new_session,
            "file_size": file_size,
        }
        (out, to_out), (told, to_told) = os.pipe(), os.pipe()
        with open(os.devnull) as nothing:
            fds = [nothing.fileno(), to_out, 2 if stderr is None else stderr, to_told]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            line = json.dumps(request).encode() + b"\n"
            self._control.sendall(line[self._control.sendmsg([line], rights) :])
        os.close(to_out)
        os.close(to_told)
        return Forked(int(self._control.recv(64)), os.fdopen(out), told)

    def close(self) -> None:
        """End it."""
        self._control.close()
        self._process.wait(20)


if __name__ == "__main__":
    main()
