"""Running the stages of one order in its directory, to the end or to where it stopped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from publisher import jsonio
from publisher.errors import FindingsError, InterruptedRun, PublisherError
from publisher.hub.intention import intend
from publisher.journal import Event, Journal, RunDirectory
from publisher.pipeline.documents import document
from publisher.pipeline.order import Prepared
from publisher.pipeline.stages import Run
from publisher.secrets import mask

STAGES = ("plan", "quantize", "validate", "evaluate", "card", "manifest", "push")


def run(
    prepared: Prepared,
    directory: RunDirectory,
    listener: Callable[[Event], None] | None = None,
    *,
    since: str = "plan",
    until: str = "push",
) -> Run:
    """Run the stages from `since` up to and including `until`, skipping what is finished.

    Args:
        prepared: what to do.
        directory: where to work.
        listener: called with every event.
        since: the first stage; those before it have just been run.
        until: the last stage.

    Raises:
        FindingsError: the rules refuse the checkpoint.
        InterruptedRun: stopped on request; running again goes on.
        PublisherError: any other stage failed; what is finished is kept.
    """
    directory.lock()
    state: dict[str, Any] = {"status": "running", "pid": os.getpid(), "started": time.time(), "command": sys.argv[1:]}
    journal = Journal(directory.events, listener)
    _save(directory, state)
    work = Run(prepared=prepared, directory=directory, journal=journal)
    stages: dict[str, Callable[[], Any]] = {
        "plan": work.plan,
        "quantize": work.quantize,
        "validate": work.validate,
        "evaluate": work.evaluate,
        "card": work.card,
        "manifest": work.manifest,
        "push": work.push,
    }
    stage = "plan"
    try:
        for stage in STAGES[STAGES.index(since) : STAGES.index(until) + 1]:
            stages[stage]()
            if stage == "plan" and until == "push":
                work.require_access()
    except (KeyboardInterrupt, InterruptedRun):
        journal.emit(stage, "cancelled", message="stopped; run the same command again to go on")
        _save(directory, state, status="interrupted", exit_code=6, message=f"stopped during {stage}")
        raise InterruptedRun(f"Stopped during {stage}.", hint="Run the same command again to go on.") from None
    except PublisherError as error:
        if journal.last_error != error.message:  # a program has told its own already
            journal.emit(stage, "error", message=error.message, hint=error.hint)
        status = "findings" if isinstance(error, FindingsError) else "failed"
        _save(directory, state, status=status, exit_code=error.exit_code, message=error.message, hint=error.hint)
        raise
    except BaseException as error:
        journal.emit(stage, "error", message=f"{type(error).__name__}: {error}")
        _save(directory, state, status="failed", exit_code=2, message=f"{type(error).__name__}: {error}")
        raise
    else:
        _save(directory, state, status="done", exit_code=0, message=f"finished {until}")
    finally:
        directory.unlock()
    return work


def dry_run(work: Run) -> dict[str, Any]:
    """What a push would send and set, without changing anything."""
    return intend(work.target(), work.publication()).to_json()


def record(directory: RunDirectory) -> dict[str, Any]:
    """The record of a finished push, as it lies in the run directory."""
    return document(directory.push) or {}


def _save(directory: RunDirectory, state: dict[str, Any], **changes: Any) -> None:
    state.update(changes)
    if state["status"] != "running":
        state["ended"] = time.time()
    told = {name: mask(value) if isinstance(value, str) else value for name, value in state.items()}
    told["command"] = [mask(word) for word in state["command"]]
    jsonio.write_atomic(directory.state, jsonio.dump_json(told))
