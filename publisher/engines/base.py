"""What an engine is, and how its job file comes about (docs/job-file.md).

An engine names a program; it never imports the library the program uses, so that a plan can be made, and a missing
library be named, where nothing of it is installed. A library that cannot live beside the rest has an environment of
its own: `PUBLISHER_<ENGINE>_PYTHON` names that environment's interpreter.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from publisher import jsonio
from publisher.engines.run import run_job
from publisher.errors import EngineError
from publisher.plan import sparsity
from publisher.plan.model import Plan

__all__ = ["Engine", "distribution_problem", "foreign_python", "job_file", "program", "run_job", "write_job"]


class Engine(Protocol):
    """One way to quantize.

    Adding one is a class with these members, a program, and a line in `ENGINES`.
    """

    @property
    def name(self) -> str:
        """What recipes call it."""
        ...

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats it makes: nvfp4, mxfp4."""
        ...

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts it writes: modelopt, quark."""
        ...

    def available(self) -> str | None:
        """None when its program can be started; else why not, with what to install. Imports nothing of it."""
        ...

    def job(self, plan: Plan, source_dir: Path, output: Path, staging: Path, device: str) -> dict[str, Any]:
        """The job file's content; paths absolute."""
        ...

    def command(self, job_path: Path, python: str | None = None) -> list[str]:
        """The program and its arguments; `python` overrides the interpreter."""
        ...


def job_file(engine: str, plan: Plan, source_dir: Path, output: Path, staging: Path, device: str) -> dict[str, Any]:
    """What every engine's job file holds."""
    recipe = plan.recipe
    calibration = recipe.to_json().get("calibration") if recipe.activations == "calibrated" else None
    if calibration is None and recipe.kv_cache == "fp8":
        calibration = recipe.to_json().get("calibration")
    return {
        "schema": 1,
        "engine": engine,
        "source": str(source_dir.absolute()),
        "output": str(output.absolute()),
        "staging": str(staging.absolute()),
        "format": recipe.format,
        "layout": recipe.layout,
        "mode": recipe.mode,
        "activations": recipe.activations,
        "kv_cache": recipe.kv_cache,
        "quantize": [decision.module for decision in plan.quantized if decision.format is None],
        "fp8": [decision.module for decision in plan.quantized if decision.format == "fp8"],
        "groups": _groups(plan),
        "exclude": list(plan.exclude),
        "quantization_config": dict(plan.quantization_config),
        "hf_quant_config": None if plan.hf_quant_config is None else dict(plan.hf_quant_config),
        "calibration": calibration,
        "statistics": None if recipe.statistics is None else str(recipe.statistics),
        "sparsity": _sparsity(plan),
        "shard_size": recipe.shard_size,
        "device": device,
        "plan_digest": plan.digest if recipe.statistics is None else _with_content(plan, recipe.statistics),
    }


def _with_content(plan: Plan, statistics: Path) -> str:
    """The plan's digest with that of the statistics: other numbers in the same place are another job.

    Raises:
        EngineError: the file cannot be read.
    """
    try:
        with statistics.open("rb") as file:
            return jsonio.digest([plan.digest, hashlib.file_digest(file, "sha256").hexdigest()])
    except OSError as error:
        raise EngineError(
            f"{statistics} cannot be read: {error.strerror or error}.", hint="Correct `statistics` in the recipe."
        ) from None


def _sparsity(plan: Plan) -> dict[str, Any] | None:
    asked, names = plan.recipe.sparsity, sparsity.prunable(plan.decisions)
    if asked is None:
        return None
    return {
        "pattern": asked.pattern,
        "choose": asked.choose,
        "modules": list(sparsity.pruned(plan.recipe, names)),
        "statement": sparsity.statement(plan.recipe),
    }


def _groups(plan: Plan) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for decision in plan.quantized:
        if decision.group is not None:
            groups.setdefault(decision.group, []).append(decision.module)
    return groups


def write_job(
    engine: Engine,
    path: Path,
    *,
    plan: Plan,
    source_dir: Path,
    output: Path,
    staging: Path,
    device: str = "auto",
    **more: Any,
) -> None:
    """Write a job file, checked against its schema; `more` are further keys of it.

    Raises:
        EngineError: the engine's program cannot be started here.
        DocumentError: the plan does not make a valid job.
    """
    problem = engine.available()
    if problem is not None:
        raise EngineError(
            f"The engine {engine.name} is not available: {problem}", hint="`publisher doctor` tells more."
        )
    job = {**engine.job(plan, source_dir, output, staging, device), **more}
    jsonio.require(job, "job", str(path))
    jsonio.write_atomic(path, jsonio.dump_json(job))


def foreign_python(engine: str) -> str | None:
    """The interpreter `PUBLISHER_<ENGINE>_PYTHON` names, None when it is unset or empty."""
    return os.environ.get(f"PUBLISHER_{engine.upper().replace('-', '_')}_PYTHON") or None


def program(engine: str, module: str, job_path: Path, python: str | None) -> list[str]:
    """`python -m module job.json` with the interpreter that the caller, the environment or this process names."""
    return [python or foreign_python(engine) or sys.executable, "-m", module, str(job_path)]


def distribution_problem(engine: str, modules: Iterable[str], extra: str) -> str | None:
    """Why a program that imports `modules` cannot be started; None when it can, as far as can be seen from outside."""
    foreign = foreign_python(engine)
    if foreign is not None:
        found = shutil.which(foreign) is not None
        return None if found else f"PUBLISHER_{engine.upper()}_PYTHON names {foreign}, which is no program."
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} not installed here; install with `pip install 'fp4-publisher[{extra}]'`."
