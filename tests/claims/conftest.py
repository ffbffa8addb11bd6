"""A card's words beside a tiny good checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.claims import Doubt
from publisher.subjects import Evidence, Meter
from publisher.subjects.claimed import read_claimed
from tests.builders.edits import Edit
from tests.rules.cases import GOOD

Lint = Callable[..., list[Doubt]]
MISSING = ("parties", "protocol")


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    """What is found of a text beside a good checkpoint; what the card leaves out is left out here too."""

    def found(text: str, base: str = "llama-nvfp4", *, front: str = "", edit: Edit | None = None) -> list[Doubt]:
        _, tiny = GOOD[base]()
        if edit is not None:
            edit(tiny)
        head = f"---\n{front}\n---\n" if front else ""
        tiny.files["README.md"] = f"{head}# Title\n\n{text}\n".encode()
        opened = open_checkpoint(tiny.write(tmp_path / f"{base}-{len(list(tmp_path.iterdir()))}"))
        doubts = read_claimed(Evidence(checkpoint=opened), Meter()).doubts
        return [doubt for doubt in doubts if doubt.topic not in MISSING]

    return found


def config(**keys: Any) -> Edit:
    return lambda tiny: tiny.config.update(keys)
