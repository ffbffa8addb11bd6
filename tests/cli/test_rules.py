"""`publisher rules`: listed, narrowed and explained, for a person and for a shell."""

from __future__ import annotations

from tests.cli.conftest import Workspace


def test_rules_are_listed(workspace: Workspace) -> None:
    rules = workspace.publisher("rules", "--format", "json").json
    assert {"CN01", "SV01", "LC06"} <= {rule["code"] for rule in rules}
    assert "nan-block-scale" in workspace.publisher("rules", fresh=True).out


def test_a_list_can_be_narrowed_and_read_by_a_shell(workspace: Workspace) -> None:
    codes = workspace.publisher("rules", "list", "SV", "CN01", "--format", "quiet").out.split()
    assert "CN01" in codes
    assert "SV01" in codes
    assert {code[:2] for code in codes} == {"SV", "CN"}
    assert codes.count("CN01") == 1
    assert "No rule is called 'QQ'" in workspace.publisher("rules", "list", "QQ", code=2).err


def test_a_rule_is_explained_by_code_or_name(workspace: Workspace) -> None:
    done = workspace.publisher("rules", "explain", "sv01")
    for words in ("Why: ", "Fix: ", "Seen: ", "--level scales", "computes wrong", "--ignore 'SV01="):
        assert words in done.out, words
    assert workspace.publisher("rules", "explain", "nan-block-scale").out == done.out
    assert "Refuses to load: vllm" in workspace.publisher("rules", "explain", "CF10").out
    both = workspace.publisher("rules", "explain", "SV01", "CN09", "--format", "json").json
    assert [row["code"] for row in both] == ["SV01", "CN09"]
    assert workspace.publisher("rules", "explain", "SV01", "--format", "json").json["slug"] == "nan-block-scale"


def test_an_unknown_rule_names_near_ones(workspace: Workspace) -> None:
    done = workspace.publisher("rules", "explain", "ZZ99", code=2)
    assert "no rule 'ZZ99'" in done.err
    assert "nan-block-scale" in workspace.publisher("rules", "explain", "nan-block-scales", code=2).err
    assert "No rule is named" in workspace.publisher("rules", "explain", code=2).err
