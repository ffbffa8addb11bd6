"""`publisher version`: in every format."""

from __future__ import annotations

import pytest

from publisher import __version__
from tests.cli.conftest import Workspace


@pytest.mark.parametrize("form", ["human", "json", "quiet"])
def test_version(workspace: Workspace, form: str) -> None:
    assert __version__ in workspace.publisher("version", "--format", form, fresh=form == "json").out
