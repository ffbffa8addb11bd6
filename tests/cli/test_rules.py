"""`publisher rules`: listed and explained."""

from __future__ import annotations

from tests.cli.conftest import Workspace


def test_rules_are_listed_and_explained(workspace: Workspace) -> None:
    rules = workspace.publisher("rules", "--format", "json").json
    assert {"CN01", "SV01", "LC06"} <= {rule["code"] for rule in rules}
    assert "nan-block-scale" in workspace.publisher("rules").out
    done = workspace.publisher("rules", "explain", "sv01")
    assert "Why: " in done.out
    assert "Fix: " in done.out
    assert "no rule 'ZZ99'" in workspace.publisher("rules", "explain", "ZZ99", code=2).err
