"""Small words of a change's sentence."""

from __future__ import annotations

from publisher.repair.change import differing, listing


def test_differing_keys_are_dotted() -> None:
    mine = {"a": 1, "b": {"c": 1, "d": [1]}, "e": 1}
    theirs = {"a": 1, "b": {"c": 2, "d": [1]}, "e": 1.0, "f": None}
    assert list(differing(mine, theirs)) == ["b.c", "e"]


def test_a_long_list_is_cut() -> None:
    assert listing(["a", "b"]) == "a, b"
    assert listing([str(n) for n in range(1000)]) == "0, 1, 2, 3 and 996 more"
