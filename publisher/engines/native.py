"""The engine `native`: our own streaming quantizer, tensor by tensor, without loading the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.engines.base import distribution_problem, job_file, program
from publisher.plan.model import Plan


@dataclass(frozen=True, slots=True)
class Native:
    """NVFP4 in modelopt's layout, MXFP4 in Quark's, both in compressed-tensors', with torch alone."""

    name: str = "native"
    formats: tuple[str, ...] = ("nvfp4", "mxfp4")
    layouts: tuple[str, ...] = ("modelopt", "quark", "compressed-tensors")

    def available(self) -> str | None:
        """None when torch is there."""
        return distribution_problem(self.name, ("torch",), "native")

    def job(self, plan: Plan, source_dir: Path, output: Path, staging: Path, device: str) -> dict[str, Any]:
        """The job file's content."""
        return job_file(self.name, plan, source_dir, output, staging, device)

    def command(self, job_path: Path, python: str | None = None) -> list[str]:
        """`python -m publisher.native job.json`."""
        return program(self.name, "publisher.native", job_path, python)
