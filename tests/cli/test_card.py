"""`publisher card`: the card on standard output."""

from __future__ import annotations

from tests.cli.conftest import Workspace


def test_card_prints_what_the_files_say(pushed: Workspace) -> None:
    done = pushed.publisher("card", "run/checkpoint", "--source", "source", "--card", "card.toml", "--repo", "demo/x")
    assert done.out.startswith("---\n")
    assert "# x" in done.out
    assert "MXFP4" in done.out
