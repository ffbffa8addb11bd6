"""Evidence for rules, and a registry of a test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.rules import declared, load_rules, registry, running
from publisher.subjects import Evidence
from tests.builders.tiny import Tiny, llama, nvfp4


def evidence(folder: Path, tiny: Tiny | None = None, **given: Any) -> Evidence:
    return Evidence(checkpoint=open_checkpoint((tiny or nvfp4(llama())).write(folder / "c")), **given)


@pytest.fixture
def extra(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A registry of the test's own, beside the real one."""
    own = dict(load_rules())
    monkeypatch.setattr(declared, "REGISTRY", own)
    monkeypatch.setattr(registry, "load_rules", lambda: own)
    monkeypatch.setattr(running, "load_rules", lambda: own)
    return own
