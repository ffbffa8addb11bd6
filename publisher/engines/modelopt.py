"""The engine `modelopt`: NVIDIA's Model Optimizer itself, calibrating the loaded model, exporting with its own code."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.engines.base import distribution_problem, foreign_python, job_file, program
from publisher.plan.model import Plan

SERIES = "0.47."  # what the program is written and tested against


@dataclass(frozen=True, slots=True)
class ModelOpt:
    """NVFP4 in modelopt's layout: calibrated activations, or weights only."""

    name: str = "modelopt"
    formats: tuple[str, ...] = ("nvfp4",)
    layouts: tuple[str, ...] = ("modelopt",)

    def available(self) -> str | None:
        """None when modelopt 0.47, torch and transformers are there, or another interpreter is named for them."""
        problem = distribution_problem(self.name, ("torch", "transformers", "modelopt"), "modelopt")
        if problem is not None or foreign_python(self.name) is not None:
            return problem
        version = importlib.metadata.version("nvidia-modelopt")
        if version.startswith(SERIES):
            return None
        return f"nvidia-modelopt {version} is installed, {SERIES}x is needed; `pip install 'fp4-publisher[modelopt]'`."

    def job(self, plan: Plan, source_dir: Path, output: Path, staging: Path, device: str) -> dict[str, Any]:
        """The job file's content."""
        return job_file(self.name, plan, source_dir, output, staging, device)

    def command(self, job_path: Path, python: str | None = None) -> list[str]:
        """`python -m publisher.engines.programs.modelopt_job job.json`."""
        return program(self.name, "publisher.engines.programs.modelopt_job", job_path, python)
