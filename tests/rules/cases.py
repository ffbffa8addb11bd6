"""What a rule's case is, and the good checkpoints that cases edit; each family keeps its own in `<family>_cases.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.builders.edits import Edit
from tests.builders.sources import SOURCES
from tests.builders.terms import LICENSED
from tests.builders.tiny import Tiny, compressed, kimi, llama, mixture, mxfp4, nvfp4
from tests.builders.variants import VARIANTS

FULL = {"card": True}

GOOD: dict[str, Callable[[], tuple[Tiny, Tiny]]] = {
    "llama-nvfp4": lambda: (s := llama(), nvfp4(s)),
    "llama-w4a16": lambda: (s := llama(), nvfp4(s, activations=False)),
    "llama-mxfp4": lambda: (s := llama(), mxfp4(s)),
    "llama-ct-nvfp4": lambda: (s := llama(), compressed(s, "nvfp4")),
    "llama-ct-mxfp4": lambda: (s := llama(), compressed(s, "mxfp4")),
    "mixture-nvfp4": lambda: (s := mixture(), nvfp4(s)),
    "mixture-w4a16": lambda: (s := mixture(), nvfp4(s, activations=False)),
    "mixture-mxfp4": lambda: (s := mixture(), mxfp4(s)),
    "mixture-ct-nvfp4": lambda: (s := mixture(), compressed(s, "nvfp4")),
    "kimi-nvfp4": lambda: (s := kimi(), nvfp4(s)),
    "kimi-mxfp4": lambda: (s := kimi(), mxfp4(s)),
    "kimi-ct-mxfp4": lambda: (s := kimi(), compressed(s, "mxfp4")),
    **VARIANTS,
    **SOURCES,
    **LICENSED,
}
# What is well made and yet read by few engines; everything else here is silent.
KNOWN = {"llama-awq": "CF03", "mixture-awq": "CF03", "int4-nvfp4": "NU14i"}
UNCOMPARED = ("llama-awq", "mixture-awq", "gpt-oss")  # smoothed weights, experts packed in one tensor


@dataclass(frozen=True)
class Case:
    """One edit of a good checkpoint and the codes it must raise; a small `w` marks a warning, an `i` information."""

    code: str
    name: str
    edit: Edit
    raises: str
    base: str = "llama-nvfp4"
    place: str = ""  # must stand in the finding's file or tensor
    evidence: dict[str, Any] = field(default_factory=dict)
    level: str = "full"
    source: Edit | None = None  # an edit of what it was made from
