"""What this machine must have before work starts: disk, memory, the engine's library, the texts a recipe names.

Kept apart from the plan, whose digest must not depend on the machine it was made on.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from publisher.errors import EngineError, PublisherError
from publisher.native.memory import available_host_bytes, limit_of_group
from publisher.plan.measured import misfits
from publisher.plan.model import Plan, Recipe
from publisher.plan.sizes import memory_of
from publisher.units import format_bytes

LIBRARIES = {"native": ("torch",), "modelopt": ("torch", "transformers", "modelopt")}
SLACK = 0.9  # memory estimates err on the large side
MOST_PROCESSES = 64  # the engine native starts no more
DEVICES = Path("/dev")
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """One thing this machine lacks.

    Args:
        kind: disk, memory, engine or file.
        message: what is missing, with numbers.
        hint: what to do.
        fatal: whether work must not start; otherwise it is a warning.
    """

    kind: str
    message: str
    hint: str
    fatal: bool = True


def preflight(plan: Plan, run_dir: Path, *, device: str = "auto", workers: int | None = None) -> tuple[Lack, ...]:
    """Everything this machine lacks for a plan.

    Args:
        plan: what is to be done.
        run_dir: where it is to be done; need not exist yet.
        device: where the arithmetic runs; `all` is one process for every GPU.
        workers: processes that share the work; None lets the engine choose as many as fit into memory.
    """
    processes = _processes(plan, device, workers)
    measured = (Lack(kind="file", message=m, hint=hint, fatal=fatal) for m, hint, fatal in misfits(plan))
    return (*_disk(plan, run_dir), *_memory(plan, processes), *_engine(plan.recipe), *_files(plan.recipe), *measured)


def refuse(lacks: tuple[Lack, ...]) -> None:
    """Stop before any work when something fatal is lacking.

    Raises:
        EngineError: the engine or its memory is lacking.
        PublisherError: disk or files are lacking.
    """
    fatal = [lack for lack in lacks if lack.fatal]
    if not fatal:
        return
    hints = " ".join(dict.fromkeys(lack.hint for lack in fatal))
    kind = EngineError if all(lack.kind in ("engine", "memory") for lack in fatal) else PublisherError
    raise kind(" ".join(lack.message for lack in fatal), hint=hints)


def _disk(plan: Plan, run_dir: Path) -> Iterator[Lack]:
    place = run_dir.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield Lack(kind="disk", message=f"{run_dir} cannot be written.", hint="Name another folder with --run-dir.")
        return
    free = shutil.disk_usage(place).free
    if free < plan.disk_needed:
        yield Lack(
            kind="disk",
            message=f"{place} has {format_bytes(free)} free; this plan needs {format_bytes(plan.disk_needed)}.",
            hint="Free some space, or name a folder on a larger disk with --run-dir.",
        )


def _memory(plan: Plan, processes: int) -> Iterator[Lack]:
    machine, limit = psutil.virtual_memory(), limit_of_group()
    total, free = int(machine.total), int(machine.available)
    if limit is not None and limit < total:
        total, free = limit, min(free, available_host_bytes() or free)
    needed = memory_of(plan.memory_needed, processes)
    told = "this plan" if processes < 2 else f"this plan with {processes} processes"
    hint = "Take fewer --workers." if processes > 1 else "Use a larger machine."
    if plan.recipe.engine == "modelopt":
        hint = "Use engine native, which streams."
    if needed * SLACK > total and plan.recipe.engine == "native":
        message = f"The machine has {format_bytes(total)} of memory; {told} needs {format_bytes(needed)}."
        yield Lack(kind="memory", message=message, hint=hint)
    elif needed * SLACK > free:
        message = f"{format_bytes(free)} of memory are free; {told} may need {format_bytes(needed)}."
        yield Lack(kind="memory", message=message, hint=hint, fatal=False)


def _processes(plan: Plan, device: str, workers: int | None) -> int:
    """How many processes will share the work, as far as that is asked for and not chosen by what fits."""
    if plan.recipe.engine != "native":
        return 1
    asked = workers or (_gpus() if device == "all" else 1)
    return max(1, min(asked, plan.shards, MOST_PROCESSES))


def _gpus() -> int:
    """GPUs a process would see, by the files of their drivers, so that nothing large is loaded to count them."""
    for setting in VISIBLE:
        if os.environ.get(setting):
            return len(os.environ[setting].split(","))
    nvidia = [path for path in DEVICES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    amd = list(DEVICES.glob("dri/renderD*")) if (DEVICES / "kfd").exists() else []
    return max(1, len(nvidia) or len(amd))


def _engine(recipe: Recipe) -> Iterator[Lack]:
    if os.environ.get(f"PUBLISHER_{recipe.engine.upper().replace('-', '_')}_PYTHON"):
        return  # another environment's interpreter: that one is asked when the job is written
    missing = [name for name in LIBRARIES[recipe.engine] if importlib.util.find_spec(name) is None]
    if missing:
        yield Lack(
            kind="engine",
            message=f"Engine {recipe.engine} needs {', '.join(missing)}, which this environment lacks.",
            hint=f"Install fp4-publisher[{recipe.engine}].",
        )


def _files(recipe: Recipe) -> Iterator[Lack]:
    named = {
        "calibration.data": recipe.calibration.data if recipe.calibration else None,
        "statistics": recipe.statistics,
        "evaluation.data": recipe.evaluation.data if recipe.evaluation else None,
        "card": recipe.card,
    }
    for key, path in named.items():
        problem = _unreadable(path) if path is not None else None
        if problem:
            yield Lack(kind="file", message=f"`{key}`: {path} {problem}.", hint="Correct the path in the recipe.")


def _unreadable(path: Path) -> str | None:
    if not path.exists():
        return "does not exist"
    if not path.is_file():
        return "is not a file"
    if not os.access(path, os.R_OK):
        return "cannot be read"
    return "is empty" if path.stat().st_size == 0 else None
