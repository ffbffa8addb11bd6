"""The edge of a program that works off one job file: its signals, its last event and its exit code.

Events go to standard output, one JSON object a line. Exit codes: 0 done, 2 bad input, 5 the libraries or the hardware
failed, 6 stopped, or nobody is left who reads what it tells. Nothing leaves a program of this package as a traceback
alone: what nobody foresaw becomes its last event too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from publisher import jsonio
from publisher.errors import EngineError, InterruptedRun, PublisherError
from publisher.native.events import emit


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a program says of itself.

    Args:
        stage: of its events.
        module: what `python -m` runs.
        failed: begins the sentence for what nobody foresaw.
        hint: ends it.
        stopped: the sentence for a stop.
        again: what to do after one.
    """

    stage: str
    module: str
    failed: str
    hint: str
    stopped: str = "Stopped."
    again: str = "Run the same command again to go on."


def run(program: Program, arguments: Sequence[str], work: Callable[[Path], None]) -> int:
    """Do the work of the job file the arguments name; the exit code.

    Args:
        program: who works.
        arguments: of the command line, without its name: one path.
        work: does it; ends in a PublisherError or a KeyboardInterrupt where it cannot.
    """
    try:
        return _run(program, arguments, work)
    except BrokenPipeError:  # whoever started this is gone; what is finished is kept
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return InterruptedRun.exit_code


def _run(program: Program, arguments: Sequence[str], work: Callable[[Path], None]) -> int:
    try:
        if len(arguments) != 1:
            raise PublisherError(f"Usage: python -m {program.module} JOB.json")
        work(Path(arguments[0]))
    except KeyboardInterrupt:
        return _last(program, "cancelled", InterruptedRun(program.stopped, hint=program.again))
    except InterruptedRun as error:
        return _last(program, "cancelled", error)
    except PublisherError as error:
        return _last(program, "error", error)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
        message = f"{program.failed}: {type(error).__name__}: {str(error)[:500]}"
        return _last(program, "error", EngineError(message, hint=program.hint))
    return 0


def _last(program: Program, kind: str, error: PublisherError) -> int:
    """Tell how it ended; where that cannot be written, as in a log on a full disk, the exit code still says it."""
    try:
        emit(program.stage, kind, message=error.message, hint=error.hint)
    except BrokenPipeError:
        raise
    except OSError as refused:
        with contextlib.suppress(OSError):
            print(f"{error.message} (standard output: {refused.strerror})", file=sys.stderr, flush=True)
    return error.exit_code


def leave(code: int) -> NoReturn:
    """End this process now: a read that hangs in a thread is not waited for, nor is torch taken down."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def interruptible() -> None:
    """Let SIGTERM and SIGINT end the work wherever it is; a second one ends the process at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


def read_fields(path: Path, schema: str, *, paths: Collection[str], hint: str) -> dict[str, Any]:
    """A job file's values by key, those of `paths` as paths.

    Args:
        path: the file.
        schema: what it must fit.
        paths: keys of paths.
        hint: who should have written it.

    Raises:
        DocumentError: naming every problem.
    """
    raw = jsonio.load_json(path)
    jsonio.require(raw, schema, str(path), hint=hint)
    return {key: Path(value) if key in paths else value for key, value in raw.items()}


def require_transformers(what: str, extra: str) -> None:
    """See that torch and transformers are there, and keep them quiet and off the network.

    Args:
        what: needs them; begins the sentence.
        extra: of this package, which installs them.

    Raises:
        EngineError: they are not installed.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise EngineError(
            f"{what} needs torch and transformers: {error}.",
            hint=f"Install them with `pip install 'fp4-publisher[{extra}]'`.",
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
