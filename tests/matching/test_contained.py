"""Parts of names, looked up: the same answers as comparing every entry, and a time that does not grow with the list."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from publisher.matching import contained
from publisher.matching.contained import DottedRuns, Substrings

ENTRIES = st.lists(st.text(st.sampled_from("ab.1"), min_size=1, max_size=4), max_size=90, unique=True)
NAMES = st.text(st.sampled_from("ab.1"), max_size=14)


@given(ENTRIES, NAMES)
def test_substrings(entries: list[str], name: str) -> None:
    assert Substrings(entries)(name) == any(entry in name for entry in entries)


@given(ENTRIES, NAMES)
def test_dotted_runs(entries: list[str], name: str) -> None:
    assert DottedRuns(entries)(name) == any(f".{entry}." in f".{name}." for entry in entries)


def test_a_list_of_every_expert_stays_linear() -> None:
    entries = [f"model.layers.{i // 384}.mlp.experts.{i % 384}.up_proj" for i in range(69_120)]
    names = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(1000) for p in ("q_a", "q_b", "o")]
    began = time.perf_counter()
    for kind in (Substrings, DottedRuns):
        matcher = kind(entries)
        assert not any(map(matcher, names))
    assert time.perf_counter() - began < 5  # 400 million comparisons would take minutes


def test_a_name_of_many_parts_ends() -> None:
    assert DottedRuns(["b"])("a." * (contained.FEW + 1) + "b")
