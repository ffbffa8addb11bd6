"""Documents key by key, checked by putting the changes back."""

from __future__ import annotations

import json
import time

from hypothesis import given
from hypothesis import strategies as st

from publisher.checkpoint.keys import KeyChange, changes

plain = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, width=16) | st.text(max_size=3)
documents = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=9,
)


@given(documents, documents)
def test_equal_documents_and_only_those_have_no_changes(before: object, after: object) -> None:
    same = json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)
    assert (changes(before, after) == ()) == same
    assert changes(before, before) == ()


def test_added_removed_changed_by_path() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": True}, "e": None}
    after = {"a": 1.0, "b": {"c": [1, 3]}, "f": "x"}
    assert [(c.key, c.kind, c.before, c.after) for c in changes(before, after)] == [
        ("a", "changed", "1", "1.0"),
        ("b.c", "changed", "[1, 2]", "[1, 3]"),
        ("b.d", "removed", "true", ""),
        ("e", "removed", "null", ""),
        ("f", "added", "", '"x"'),
    ]


def test_long_lists_say_what_only_one_holds() -> None:
    names = [f"model.layers.{n}" for n in range(50)]
    (change,) = changes({"ignore": names}, {"ignore": [*names[1:], "lm_head"]})
    assert change.before == '50 entries, only here "model.layers.0"'
    assert change.after == '50 entries, only here "lm_head"'
    (change,) = changes({"ignore": names}, {"ignore": names[::-1]})
    assert change.after == "the same in another order"


def test_keys_that_differ_in_numbers_are_one_entry_and_time_is_linear() -> None:
    before = {
        f"model.layers.{n}.mlp.experts.{m}.up_proj": {"quant_algo": "NVFP4"} for n in range(60) for m in range(500)
    }
    began = time.perf_counter()
    (change,) = changes({"quantized_layers": {}}, {"quantized_layers": before})
    assert change == KeyChange(
        key="quantized_layers.model.layers.*.mlp.experts.*.up_proj", kind="added", before="",
        after='{"quant_algo": "NVFP4"}', count=30_000,
    )  # fmt: skip
    assert time.perf_counter() - began < 5


def test_a_value_of_any_length_is_cut() -> None:
    (change,) = changes({"a": "x" * 10_000}, {"a": ["y"] * 1000})
    assert max(len(change.before), len(change.after)) < 200
