"""A process that has imported the client and forks one push per line of its input, so that each can be killed cheaply.

A line is a JSON object: what `push_one` takes. The answers are lines too: the child's process id, then how it ended
(what it printed as JSON, or the signal). `audit` makes a child kill itself at a given call that changes files below a
folder; `limit` lets it write no file longer than so many bytes, as a full disk would.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.chmod"}


def quiet(seconds: float) -> None:
    """Do not wait."""


def push_one(job: dict[str, Any]) -> dict[str, Any]:
    """Run one push; how it ended as the command line would say it."""
    import huggingface_hub.utils._http as client
    from huggingface_hub import constants

    from publisher import manifest
    from publisher.errors import PublisherError
    from publisher.hub.folder import FolderTarget
    from publisher.hub.huggingface import HuggingFaceTarget
    from publisher.hub.push import push
    from publisher.hub.target import Publication

    os.environ.update(job["environment"])
    constants.HF_HUB_DISABLE_XET = job["transport"] != "xet"
    client.time = SimpleNamespace(sleep=quiet)  # type: ignore[assignment]
    folder = Path(job["folder"])
    wanted = Publication(folder=folder, manifest=manifest.read(folder / manifest.NAME), gate="manual")
    target: Any
    if job["transport"] == "folder":
        target = FolderTarget(Path(job["place"]), job["repo"])
    else:
        target = HuggingFaceTarget(job["repo"], endpoint=job["place"], token=job["token"], sleep=quiet)
    if job.get("limit"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    if job.get("audit") is not None:
        sys.addaudithook(killer(job["place"], job["audit"]))
    try:
        record = push(target, wanted, sleep=quiet)
    except PublisherError as error:
        return {"code": error.exit_code, "message": error.message, "hint": error.hint}
    return {"code": 0, "message": "", "hint": "", "sent": list(record.sent)}


def killer(place: str, number: int) -> Callable[[str, Any], None]:
    """An audit hook that kills this process at its `number`-th change of a file below a folder, from 0."""
    left = number

    def hook(event: str, arguments: Any) -> None:
        nonlocal left
        if event not in CHANGES or not str(arguments[0]).startswith(place):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def serve() -> None:
    """Fork and report, until the input ends."""
    import publisher.hub.huggingface
    import publisher.hub.push  # noqa: F401 - imported once for all children

    for line in sys.stdin:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as out:
                try:
                    found = push_one(json.loads(line))
                except BaseException as error:
                    found = {"code": -1, "message": repr(error), "hint": ""}
                out.write(json.dumps(found))
            os._exit(0)
        os.close(writer)
        print(pid, flush=True)
        with os.fdopen(reader) as told:
            text = told.read()
        _, status = os.waitpid(pid, 0)
        ended = {"code": -os.WTERMSIG(status), "message": "", "hint": ""} if os.WIFSIGNALED(status) else None
        print(json.dumps(ended) if ended else text, flush=True)


class Zygote:
    """The process, from the test's side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.zygote"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, job: dict[str, Any], started: Callable[[int], None] = lambda pid: None) -> dict[str, Any]:
        """How one push ended; `started` gets its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        started(int(self._process.stdout.readline()))
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


if __name__ == "__main__":
    serve()
