"""Run one verb of the command line and read its answer: the page is a form over the command line and has no other way.

The verb runs in a process of its own, ends with the tab that asked for it, and answers in JSON. What it tells on
standard error is its progress. An answer without JSON becomes a sentence, never a traceback.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from publisher.errors import PublisherError
from publisher.journal import mask
from publisher.ui.place import program

POLL = 0.2  # seconds
MAX_ANSWER = 256 << 20
TAIL = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The verb is still at work.

    Args:
        seconds: since it started.
        told: the last line of its progress.
    """

    seconds: float
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a verb ended with.

    Args:
        exit_code: as the command line documents them.
        document: its JSON result, None where there is none.
        error: message and hint, None where it succeeded or only found something.
    """

    exit_code: int
    document: dict[str, Any] | None
    error: PublisherError | None


def ask(
    arguments: Sequence[str], environment: Mapping[str, str], *, limit: float | None = None
) -> Iterator[Waiting | Answer]:
    """Run `publisher <arguments>`; yields `Waiting` now and then and the `Answer` last.

    Args:
        arguments: verb and options; must ask for `--format json`.
        environment: of the process, complete.
        limit: seconds after which it is stopped; None waits for ever.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as side:
        process = subprocess.Popen(
            [*program(), *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=side, env=dict(environment)
        )
        started = time.monotonic()
        try:
            while process.poll() is None:
                waited = time.monotonic() - started
                if limit is not None and waited > limit:
                    hint = "Run it with the command line, which has no limit."
                    late = PublisherError(f"This took longer than the {limit:.0f} s this page allows.", hint=hint)
                    yield Answer(exit_code=2, document=None, error=late)
                    return
                yield Waiting(seconds=waited, told=_last_line(side))
                time.sleep(POLL)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        out.seek(0)
        yield answer(process.returncode, out.read(MAX_ANSWER).decode(errors="replace"), _last_line(side))


def answer(exit_code: int, output: str, told: str) -> Answer:
    """Read what a verb printed: a document, an error, or both, each a line of JSON."""
    document, error = None, None
    for line in output.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict):
            continue
        if set(value) == {"error"} and isinstance(value["error"], dict):
            said = value["error"]
            error = PublisherError(str(said.get("message", "")), hint=str(said.get("hint", "")))
        else:
            document = value
    if document is None and error is None:
        error = PublisherError(
            f"The command ended with {exit_code} and no result: {told or 'it said nothing'}",
            hint="Run it in a terminal to see more.",
        )
    return Answer(exit_code=exit_code, document=document, error=error)


def _last_line(side: IO[bytes]) -> str:
    """The last line of what the process wrote so far; its write position is not moved."""
    end = os.fstat(side.fileno()).st_size
    data = os.pread(side.fileno(), TAIL, max(0, end - TAIL))
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    return mask(lines[-1])[:500] if lines else ""
