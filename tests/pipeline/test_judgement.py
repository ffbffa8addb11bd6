"""The rules on what an order makes, and the refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher import pipeline
from publisher.checkpoint.open import open_checkpoint
from publisher.errors import FindingsError
from publisher.journal import Journal
from publisher.pipeline import Order
from publisher.pipeline.judgement import judge, require_publishable
from publisher.plan.recipe import load_recipe
from tests.cli.conftest import Workspace


def test_what_the_rules_refuse_is_not_published_unless_waived(pushed: Workspace, tmp_path: Path) -> None:
    loaded = load_recipe(pushed.folder / pushed.recipe())
    tree = tmp_path / "tree"
    tree.mkdir()
    for path in pushed.tree.iterdir():
        if path.is_file() and path.name != "config.json":
            (tree / path.name).write_bytes(path.read_bytes())
    (tree / "config.json").write_text("{}")
    report = judge(
        pipeline.prepare(Order(recipe=loaded)),
        Journal(None),
        open_checkpoint(tree),
        select=("CF",),
        level="headers",
        left_out="not asked for",
    )
    assert {item.reason for item in report.not_run} >= {"not asked for"}
    with pytest.raises(FindingsError, match="not publishable") as refused:
        require_publishable(report, tmp_path / "report.json")
    assert "report.json" in refused.value.hint
    waivers = {finding.code: "a test" for finding in report.errors}
    waived = judge(
        pipeline.prepare(Order(recipe=loaded, waivers=waivers)),
        Journal(None),
        open_checkpoint(tree),
        select=("CF",),
        level="headers",
        left_out="not asked for",
    )
    require_publishable(waived, tmp_path / "report.json")
