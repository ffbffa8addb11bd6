"""`publisher doctor`: engines and what is missing."""

from __future__ import annotations

from tests.cli.conftest import Workspace


def test_doctor_names_engines_and_what_is_missing(workspace: Workspace) -> None:
    checks = workspace.publisher("doctor", "--format", "json").json
    names = {check["name"] for check in checks}
    assert "engine native" in names
    assert any("GPU" in name for name in names)
