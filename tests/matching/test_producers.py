"""What producers mean by their lists: modelopt's globs against fnmatch, Quark's and compressed-tensors' names."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.matching import DIALECTS, PatternError, exact_or_regex_excluded, modelopt_excluded, quark_selected

NAMES = ["lm_head", "model.layers.1.mlp.up_proj", "model.layers.10.mlp.up_proj"]
PARTS = st.sampled_from(["model", "layers", "1", "10", "mlp", "*", "gate", "lm_head", "?"])
GLOBS = st.lists(PARTS, min_size=1, max_size=5).map(".".join)


def test_producers_readings() -> None:
    assert modelopt_excluded(["model.layers.1.*"], NAMES) == {NAMES[1]}
    assert modelopt_excluded(["model.layers.1*"], NAMES) == {NAMES[1], NAMES[2]}
    assert exact_or_regex_excluded(["lm_head", r"re:^model\.layers\.10\..*$"], NAMES) == {NAMES[0], NAMES[2]}
    assert exact_or_regex_excluded(["*.up_proj"], NAMES) == frozenset()
    assert quark_selected(["*.up_proj", "re:.*lm_head"], NAMES) == {NAMES[1], NAMES[2]}


@given(st.lists(GLOBS, max_size=4))
def test_globs_mean_what_fnmatch_means(entries: list[str]) -> None:
    expected = {name for name in NAMES if any(fnmatch.fnmatchcase(name, entry) for entry in entries)}
    assert modelopt_excluded(entries, NAMES) == expected


@pytest.mark.parametrize("layout", DIALECTS)
def test_an_entry_with_a_space_is_refused_by_those_who_write_lists(layout: str) -> None:
    entry = "a b" if layout == "modelopt" else "re:a b"
    with pytest.raises(PatternError):
        DIALECTS[layout]([entry], NAMES)
