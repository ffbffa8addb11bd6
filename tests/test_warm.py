"""A warm interpreter's programs are told from fresh ones by nobody: output, exit code, folder, environment, signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm


def both(folder: Path, *arguments: str, **env: str) -> list[tuple[int, str, str]]:
    """How a command ends, fresh and warm."""
    ended = []
    for python in (sys.executable, warm.python()):
        done = subprocess.run(
            [python, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(warm.ROOT), **env},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        ended.append((done.returncode, done.stdout, done.stderr))
    return ended


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-m", "publisher", "rules", "list", "SV"), 0),
        (("-m", "publisher", "validate", "nowhere", "--format", "json"), 2),
        (("-m", "publisher.native"), 2),
        (("-c", "import os, sys; print(os.getcwd()); sys.exit(7)"), 7),
    ],
)
def test_a_program_ends_as_a_fresh_one_does(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    fresh, forked = both(tmp_path, *arguments)
    if arguments[1] == "publisher.native":  # events have a time
        fresh, forked = ((one[0], one[1].partition('"stage"')[2], one[2]) for one in (fresh, forked))
    assert fresh == forked
    assert forked[0] == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_program_that_speaks_to_the_hub_of_its_environment(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The Hub never answers; the program's end is the end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.settimeout(120)
        process = subprocess.Popen(
            [warm.python(), "-m", "publisher", "inspect", "hf://org/name"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(warm.ROOT),
                "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with hub.accept()[0] as connection:
            connection.settimeout(120)
            assert b"org/name" in connection.recv(1 << 16)
            process.send_signal(number)
            assert process.wait(120) == (-number if number == signal.SIGKILL else 6)
            assert connection.recv(1) == b""
