"""Patterns: globs against fnmatch itself, foreign regexes that may never end, exact-or-regex entries."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.matching import (
    ExactOrRegex,
    Fnmatches,
    Globs,
    NoRegex,
    PatternError,
    check_pattern,
    compile_foreign,
    regex_cost,
)

# --- globs ---------------------------------------------------------------------------------------------------------

ALPHABET = st.sampled_from("ab.*?[]!-1")
PATTERNS = st.text(ALPHABET, min_size=1, max_size=8)
NAMES = st.text(st.sampled_from("ab.1-"), max_size=10)


@given(st.lists(PATTERNS, max_size=6), NAMES)
def test_globs_agree_with_fnmatch_and_keep_the_order(patterns: list[str], name: str) -> None:
    expected = next((p for p in patterns if fnmatch.fnmatchcase(name, p)), None)
    assert Globs(patterns).first_match(name) == expected


@given(st.lists(PATTERNS, max_size=6, unique=True), st.lists(NAMES, max_size=6))
def test_unused_patterns_are_those_that_match_nothing_alone(patterns: list[str], names: list[str]) -> None:
    expected = [p for p in patterns if not any(fnmatch.fnmatchcase(name, p) for name in names)]
    assert list(Globs(patterns).unused(names)) == expected


def test_globs_are_case_sensitive_and_cross_dots() -> None:
    globs = Globs(["*.mlp.*_proj"])
    assert globs.first_match("model.layers.0.mlp.experts.3.up_proj") == "*.mlp.*_proj"
    assert globs.first_match("model.layers.0.MLP.up_proj") is None


def test_a_long_list_over_many_names_stays_linear() -> None:
    names = [f"model.layers.{i // 1000}.mlp.experts.{i % 1000}.up_proj" for i in range(100_000)]
    globs = Globs(
        [f"model.layers.{i}.self_attn*" for i in range(2000)] + [f"model.layers.{i}.mlp.gate" for i in range(2000)]
    )
    started = time.perf_counter()
    assert not any(map(globs.first_match, names))
    assert time.perf_counter() - started < 5  # 400 million comparisons would take minutes


@pytest.mark.parametrize("pattern", ["", "a b", "a\nb", "a\x00", "a\x7f", "x" * 501])
def test_what_cannot_be_a_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        check_pattern(pattern)
    with pytest.raises(PatternError):
        Globs([pattern])


# --- foreign regexes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|aa)*b",
        "(a|a){2,}b",
        r"(a)\1",
        "(?=a)b",
        "(?P<n>a)",
        ".*a.*a.*a.*b",
        "([a-z]+)*x",
        "a{1,9}b{1,9}c{1,9}d{1,9}e",
        "(",
        "[",
        "x" * 501,
        "",
    ],
)
def test_a_regex_that_may_run_away_or_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        compile_foreign(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r".*self_attn.*",
        r"^(.*\.)?name(\..*)?$",
        r".*mlp\.(gate|up|gate_up|down)_proj.*",
        r".*layers\.\d+\.mlp\.experts\.\d+\..*",
        r"model\.[^.]+\.[)(*+]x",
        r"a\*b\+",
    ],
)
def test_regexes_as_published_lists_have_them_are_read(pattern: str) -> None:
    assert compile_foreign(pattern).pattern == pattern


def test_the_worst_regex_that_is_read_still_answers() -> None:
    started = time.perf_counter()
    assert not ExactOrRegex(["re:.*a.*a.*ab"])("a" * 512)
    assert time.perf_counter() - started < 5


def test_a_monstrous_name_is_refused_not_matched() -> None:
    with pytest.raises(PatternError, match="513"):
        ExactOrRegex(["re:.*x"])("a" * 513)


def test_a_glob_full_of_stars_ends() -> None:
    started = time.perf_counter()
    assert Globs(["*a" * 200 + "b"]).first_match("a" * 5000) is None
    assert time.perf_counter() - started < 5


@given(st.lists(PATTERNS, max_size=6), NAMES)
def test_many_entries_agree_with_fnmatch(patterns: list[str], name: str) -> None:
    assert Fnmatches(patterns)(name) == any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@given(
    name=st.text(st.sampled_from("ab.1_"), min_size=1, max_size=12), entry=st.sampled_from(["a.b", "re:a.*", "re:b"])
)
def test_entries_match_as_compressed_tensors_own_code_does(name: str, entry: str) -> None:
    match_name = pytest.importorskip("compressed_tensors.utils.match").match_name
    assert ExactOrRegex([entry])(name) == match_name(name, entry)


def test_no_regex_is_told_apart_from_one_that_is_not_evaluated() -> None:
    with pytest.raises(NoRegex):
        compile_foreign("a(")
    with pytest.raises(PatternError) as caught:
        compile_foreign("(?!a)b")
    assert not isinstance(caught.value, NoRegex)


def test_a_regex_costs_what_its_wide_repeats_cost() -> None:
    assert regex_cost(".*self_attn.*", 60) == 60
    assert regex_cost(r"^(.*\.)?name(\..*)?$", 60) == 3600
    assert regex_cost(r"^model\.layers\.\d+\.mlp$", 60) == 60
