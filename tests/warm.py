"""An interpreter that starts this project's programs in milliseconds, for tests that start many of them.

`python()` is a file that is used like `sys.executable`: `[warm.python(), "-m", "publisher", "push", ...]`, or put in
the place of `sys.executable` for code that starts `python -m publisher.native`. What runs is a process of its own
(session, working folder, environment, standard streams, signals, exit code) forked from one that has imported the same
modules, and so saves the seconds every start spends importing numpy, torch or a vendor's library. The file is a small
client: it hands its streams, arguments and environment over, hands signals on, and ends as the forked process ended;
when it is killed, so is the forked process, and all the processes share one seed of `hash`. Where a forked process
would not be the same as a fresh one (a module or an option not prepared for, an environment variable that libraries
read while they are imported), the client becomes the real interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import io
import marshal
import os
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
BASE = dict(os.environ)
VERBS = (
    "recipes", "plan", "quantize", "calibrate", "validate", "inspect", "diff", "fix", "convert", "eval", "card", "push",
    "verify", "access", "rules", "jobs", "doctor", "version",
)  # fmt: skip
CLI = [*(f"publisher.cli.{verb}" for verb in VERBS), "publisher.pipeline.order", "rich.progress", "rich.table"]
PARTS = ("__main__", "quantize", "recode", "work", "crew", "units", "devices", "kernels", "worker")
NATIVE = [*(f"publisher.native.{part}" for part in PARTS), "numba"]
MODELOPT = [
    *NATIVE,
    *(f"publisher.engines.programs.{name}" for name in ("modelopt_job", "modelopt_model", "exported")),
    "transformers.models.llama.modeling_llama",
    "transformers.models.mixtral.modeling_mixtral",
]
# A parent's name: what it imports before any program is asked for, and the programs it starts.
PARENTS = {
    "cli": (CLI, ("publisher",)),
    "native": (NATIVE, ("publisher.native", "publisher.native.calibrate", "publisher.native.evaluate")),
    "modelopt": (MODELOPT, ("publisher.engines.programs.modelopt_job",)),
}
# Beginnings of names that are read when they are needed, not while a module is imported, or imitated by `become`.
FREE = (
    "FP4_PUBLISHER_", "GRADIO_", "HF_ENDPOINT", "HF_TOKEN", "HF_XET_", "NO_COLOR", "PUBLISHER_", "PYTEST_",
    "PYTHONIOENCODING", "PYTHONSAFEPATH", "PYTHONUNBUFFERED", "TORCHINDUCTOR_",
)  # fmt: skip
ENGINE = {  # what publisher.engines.run gives a program
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHAO_FORCE_SKIP_LOADING_SO_FILES": "1",
}
# Starts with -IS and builtin modules only: this is what every start still pays.
CLIENT = """#!{python} -IS
import marshal, os, sys
import _signal, _socket
known, free = marshal.loads({known!r}), {free!r}
def normal(value):
    value = {{k: v for k, v in value.items() if not k.startswith(free)}}
    return value | {{"PYTHONPATH": sorted({{p for p in value.get("PYTHONPATH", "").split(os.pathsep) if p}})}}
path, expected = known.get(sys.argv[2], ("", {{}})) if sys.argv[1:2] == ["-m"] and len(sys.argv) > 2 else ("", {{}})
peer = _socket.socket(_socket.AF_UNIX)
try:
    if normal(dict(os.environ)) != normal(expected):
        raise OSError
    peer.connect(path)
except OSError:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
said = marshal.dumps((sys.argv[2], sys.argv[3:], os.getcwd(), dict(os.environ), sys.argv[0]))
fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT, _signal.SIGUSR1):
    _signal.signal(number, lambda number, frame: peer.send(bytes([number])))
peer.sendmsg([len(said).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
peer.sendall(said)
told = peer.recv(4)
if len(told) < 4:
    os.write(2, b"the parent of the warm programs is gone\\n")
    os._exit(70)
status = int.from_bytes(told, "big")
if os.WIFSIGNALED(status):
    _signal.signal(os.WTERMSIG(status), _signal.SIG_DFL) if os.WTERMSIG(status) != _signal.SIGKILL else None
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))
"""


@functools.cache
def python(*parents: str) -> str:
    """The interpreter; its parents (`cli` and `native` when none is named) live until this process ends."""
    warm = Warm(parents or ("cli", "native"))
    atexit.register(warm.close)
    return warm.python


class Warm:
    """The programs' parents, from the test's side."""

    def __init__(self, parents: Sequence[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="warm-"))
        self._servers: list[subprocess.Popen[bytes]] = []
        known: dict[str, tuple[str, dict[str, str]]] = {}
        for parent in parents:
            settings = BASE | {"PYTHONPATH": str(ROOT)} | ({} if parent == "cli" else ENGINE)
            place = self._folder / parent
            self._serve(parent, place, settings)
            known |= {program: (str(place), settings) for program in PARENTS[parent][1]}
        self.python = str(self._folder / "python")
        Path(self.python).write_text(CLIENT.format(python=sys.executable, known=marshal.dumps(known), free=FREE))
        Path(self.python).chmod(0o755)

    def _serve(self, parent: str, place: Path, settings: Mapping[str, str]) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen(64)
            command = [sys.executable, "-m", "tests.warm", parent, str(listener.fileno())]
            self._servers.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=dict(settings),
                    stdin=subprocess.PIPE,  # its end is the end of the tests, whatever became of them
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[listener.fileno()],
                    start_new_session=True,
                )
            )

    def close(self) -> None:
        """End the parents and what they still run."""
        for server in self._servers:
            assert server.stdin is not None
            server.stdin.close()
            server.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)


# --- the parents ---------------------------------------------------------------------------------------------------

Request = tuple[str, list[str], str, dict[str, str], str]


def serve(listener: socket.socket) -> tuple[Request, list[int]]:
    """Fork for every connection until standard input ends; returns in the forked processes only."""
    waker, wakes = socket.socketpair()
    for end in (waker, wakes):
        end.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    waiting: dict[int, socket.socket] = {}
    running: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        for source in (listener, waker, sys.stdin):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    for pid in waiting:
                        os.kill(pid, signal.SIGKILL)
                    sys.exit(0)
                elif key.fileobj is waker:
                    with contextlib.suppress(BlockingIOError):
                        waker.recv(4096)
                elif key.fileobj is listener:
                    peer = listener.accept()[0]
                    asked = _request(peer)
                    if asked is None:
                        peer.close()
                        continue
                    pid = os.fork()
                    if pid == 0:
                        for mine in (peer, waker, wakes, listener, *running):
                            mine.close()
                        return asked
                    for fd in asked[1]:
                        os.close(fd)
                    waiting[pid], running[peer] = peer, pid
                    selector.register(peer, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in running:
                    _signals(key.fileobj, running[key.fileobj], selector)
            for pid, status in _ended():
                if pid in waiting:
                    peer = waiting.pop(pid)
                    with contextlib.suppress(OSError):
                        peer.sendall(struct.pack(">I", status))
                    with contextlib.suppress(KeyError):
                        selector.unregister(peer)
                    del running[peer]
                    peer.close()


def _request(peer: socket.socket) -> tuple[Request, list[int]] | None:
    """What a client asks for, and its streams; None from one that is gone."""
    try:
        head, fds, _, _ = socket.recv_fds(peer, 4, 3)
        text = b""
        while len(text) < struct.unpack(">I", head)[0]:
            text += peer.recv(1 << 16) or b"\0" * (1 << 30)
        return marshal.loads(text), fds
    except (OSError, struct.error, ValueError, EOFError):
        return None


def _signals(peer: socket.socket, pid: int, selector: selectors.BaseSelector) -> None:
    """Hand a client's signals on; a client that is gone was killed."""
    try:
        numbers = peer.recv(64)
    except OSError:
        numbers = b""
    if not numbers:
        selector.unregister(peer)
    for number in numbers or [signal.SIGKILL]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _ended() -> list[tuple[int, int]]:
    found = []
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(one)
    return found


def become(request: Request, fds: Sequence[int]) -> NoReturn:
    """Run a program in this process, as if it had been started."""
    module, arguments, folder, environment, python = request
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _endpoint(environment.get("HF_ENDPOINT"))
    _streams(environment)
    sys.path[:] = [path for path in sys.path if path != str(ROOT)] + [str(ROOT)]
    if "PYTHONSAFEPATH" not in environment:
        sys.path.insert(0, folder)
    sys.argv = [module, *arguments]
    sys.executable = python
    for own in (module, f"{module}.__main__"):  # what is run is not there beforehand, as runpy says in a warning
        if own in sys.modules and not hasattr(sys.modules[own], "__path__"):
            del sys.modules[own]
    os._exit(_ending(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)))


def _ending(program: Callable[[], object]) -> int:
    """How a program ended, with what an interpreter does at its end but for taking apart what the parent imported."""
    code: object = 0
    try:
        program()
    except SystemExit as stop:
        code = 0 if stop.code is None else stop.code
    except BaseException:  # the edge of a process
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120  # as Python itself does
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return code & 0xFF


def _endpoint(address: str | None) -> None:
    """Mend what huggingface_hub read of HF_ENDPOINT when it was imported: constants and the endpoint of its client."""
    constants, client = sys.modules.get("huggingface_hub.constants"), sys.modules.get("huggingface_hub.hf_api")
    if constants is None or address is None:
        return
    before = constants.ENDPOINT
    for name, value in list(vars(constants).items()):
        if isinstance(value, str) and before in value:
            setattr(constants, name, value.replace(before, address))
    if client is not None:
        client.api.endpoint = address


def _streams(environment: Mapping[str, str]) -> None:
    encoding, _, errors = environment.get("PYTHONIOENCODING", "").partition(":")
    at_once = bool(environment.get("PYTHONUNBUFFERED"))
    options: dict[str, Any] = {"encoding": encoding or "utf-8", "errors": errors or "strict"}
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(open(0, "rb", closefd=False), **options)  # type: ignore[misc]  # noqa: SIM115
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw = open(number, "wb", 0 if at_once else -1, closefd=False)  # noqa: SIM115
        if name == "stderr":
            options["errors"] = "backslashreplace"
        lines = name == "stderr" or os.isatty(number)
        stream = io.TextIOWrapper(raw, **options, line_buffering=lines, write_through=at_once)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    for wanted in PARENTS[sys.argv[1]][0]:
        importlib.import_module(wanted)
    gc.collect()
    gc.freeze()
    become(*serve(socket.socket(fileno=int(sys.argv[2]))))
