"""`publisher card`: the card on standard output, and any card beside its files."""

from __future__ import annotations

from tests.cli.conftest import Workspace


def test_card_prints_what_the_files_say(pushed: Workspace) -> None:
    done = pushed.publisher("card", "run/checkpoint", "--source", "source", "--card", "card.toml", "--repo", "demo/x")
    assert done.out.startswith("---\n")
    assert "# x" in done.out
    assert "MXFP4" in done.out


def test_our_own_card_claims_nothing_wrong(pushed: Workspace) -> None:
    for tree in (pushed.checkpoint, pushed.tree):
        done = pushed.publisher("card", "lint", str(tree), "--source", "source", "--complete", "--format", "json")
        assert done.json["findings"] == []


def test_a_wrong_card_is_told_line_by_line(pushed: Workspace) -> None:
    text = (pushed.checkpoint / "README.md").read_text()
    card = pushed.folder / "other.md"
    card.write_text(f"{text}\nStorage: 99 shards.\n\nThe MLP layers are stored â€” as MXFP4.\n")
    done = pushed.publisher("card", "lint", "run/checkpoint", "--card", "other.md", "--format", "json", code=1)
    found = {f["code"]: f for f in done.json["findings"]}
    assert set(found) == {"LC04", "LC09"}
    line = len(text.splitlines()) + 2
    assert found["LC04"]["where"] == {"file": "README.md", "tensor": None, "index": [line]}
    assert f'Line {line} says "Storage: 99 shards."' in found["LC04"]["message"]
    assert (pushed.checkpoint / "README.md").read_text() == text
    human = pushed.publisher("card", "lint", "run/checkpoint", "--card", "other.md", code=1)
    assert "99 shards" in human.out
    waived = ("--ignore", "LC04=counted otherwise", "--ignore", "LC09=as captured")
    pushed.publisher("card", "lint", "run/checkpoint", "--card", "other.md", *waived)


def test_without_a_card_the_next_step_is_named(workspace: Workspace) -> None:
    (workspace.source / "README.md").unlink()
    done = workspace.publisher("card", "lint", "source", code=2)
    assert "--card FILE" in done.err


def test_help_tells_of_both(pushed: Workspace) -> None:
    told = pushed.publisher("card", "--help").out
    assert "publisher card [OPTIONS] PATH" in told
    assert "publisher card lint [OPTIONS] PATH" in told
    assert "--complete" in pushed.publisher("card", "lint", "--help").out
