"""Pattern matching: globs against fnmatch itself, engines against the behaviour read from their sources."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.matching import (
    ExactOrRegex,
    Globs,
    PartlyFused,
    PatternError,
    SglangModelopt,
    VllmExactOrRegex,
    VllmModelopt,
    check_pattern,
    compile_foreign,
    exact_or_regex_excluded,
    modelopt_excluded,
)

FUSED = {
    "qkv_proj": ["q_proj", "k_proj", "v_proj"],
    "fused_qkv_a_proj": ["q_a_proj", "kv_a_proj_with_mqa"],
    "gate_up_proj": ["gate_proj", "up_proj"],
}
TAILS = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")

# pattern, module, then vLLM-modelopt, SGLang-modelopt, vLLM-CT, vLLM-Quark: x unquantized, . quantized, E refuses.
# vLLM 0.33 modelopt.py, config_utils.py, quark/utils.py; SGLang 0.5.23 modelopt_quant.py.
TRUTH = [
    ("lm_head", "lm_head", "xxxx"),
    ("lm_head", "language_model.lm_head", "xx.."),
    ("*self_attn*", "model.layers.3.self_attn.o_proj", "xx.."),
    ("re:.*self_attn.*", "model.layers.3.self_attn.o_proj", "..xx"),
    ("re:.*self_attn.*", "model.layers.3.self_attn.fused_qkv_a_proj", "..xx"),
    ("model.layers.1", "model.layers.10.mlp.experts", "x..."),
    ("model.layers.1.*", "model.layers.10.mlp.experts", "...."),
    ("model.layers.1*", "model.layers.10.mlp.experts", "xx.."),
    ("mlp.gate", "model.layers.3.mlp.gate_up_proj", "x..."),
    ("*.mlp.gate", "model.layers.3.mlp.gate", "xx.."),
    ("*mlp.gate*", "model.layers.0.mlp.gate_up_proj", "xx.."),
    ("model.layers.0.mlp.gate", "model.layers.0.mlp.gate_up_proj", "x..."),
    ("model.layers.3.self_attn.q_proj", "model.layers.3.self_attn.qkv_proj", "EEEE"),
    ("model.layers.3.mlp.experts.7.down_proj", "model.layers.3.mlp.experts", "x..x"),
    ("gate", "model.layers.3.mlp.gate", "xx.."),
    ("re:mm_projector.*", "mm_projector.linear_1", "..xx"),
    ("re:mm_projector.*", "model.mm_projector.linear_1", "...."),
    (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "model.layers.0.mlp.gate_up_proj", "..xx"),
    (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "model.layers.3.mlp.experts", "...."),
    ("model.layers.3.mlp.shared_experts", "model.layers.3.mlp.shared_experts.down_proj", "xx.."),
    ("model.layers.3.mlp.shared_experts*", "model.layers.3.mlp.shared_experts.down_proj", "xx.."),
    ("*shared_experts*", "model.layers.3.mlp.shared_experts.gate_up_proj", "xx.."),
    ("language_model.model.layers.0.mlp.gate_up_proj", "model.layers.0.mlp.gate_up_proj", "...."),
    ("language_model.model.layers.0.*", "model.layers.0.mlp.gate_up_proj", "...."),
    ("model.layers.0.*", "language_model.model.layers.0.mlp.gate_up_proj", ".x.."),
    ("*[0-3].mlp*", "model.layers.2.mlp.gate", "xx.."),
]


@pytest.mark.parametrize(("pattern", "module", "expected"), TRUTH)
def test_each_engine_reads_an_entry_its_own_way(pattern: str, module: str, expected: str) -> None:
    readers = [
        VllmModelopt([pattern], FUSED),
        SglangModelopt([pattern], FUSED, tails=TAILS),
        VllmExactOrRegex([pattern], FUSED, moe_children=False),
        VllmExactOrRegex([pattern], FUSED, moe_children=True),
    ]
    found = ""
    for reader in readers:
        try:
            found += "x" if reader(module) else "."
        except PartlyFused:
            found += "E"
    assert found == expected


def test_vllm_splits_a_star_where_the_model_has_a_mapper() -> None:
    entries = ["model.layers.3.self_attn*"]
    for mapped in (False, True):
        matcher = VllmModelopt(entries, FUSED, mapped=mapped)
        assert matcher("model.layers.3.self_attn.qkv_proj")
        assert not matcher("model.layers.31.self_attn.qkv_proj")
    # Split, the bare prefix becomes a substring: `layers.1*` then hits layer 10 either way.
    assert VllmModelopt(["a.gat*"], FUSED, mapped=True)("model.a.gate")
    assert not VllmModelopt(["a.gat*"], FUSED, mapped=False)("model.a.gate")


def test_all_members_of_a_fused_layer_named_leaves_it_out_everywhere() -> None:
    names = [f"model.layers.3.self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj")]
    fused = "model.layers.3.self_attn.qkv_proj"
    assert VllmModelopt(names, FUSED)(fused)
    assert SglangModelopt(names, FUSED)(fused)
    assert VllmExactOrRegex(names, FUSED, moe_children=True)(fused)


def test_sglang_compares_mla_projections_by_their_last_part_in_any_layer() -> None:
    matcher = SglangModelopt(["model.layers.3.self_attn.kv_b_proj"], FUSED, tails=TAILS)
    assert matcher("model.layers.9.self_attn.kv_b_proj")
    assert not matcher("model.layers.9.self_attn.o_proj")


def test_vision_towers_are_never_quantized_in_vllm() -> None:
    assert VllmModelopt([], FUSED, always=["vision_tower"])("vision_tower.encoder.blocks.0.wqkv")


def test_producers_readings() -> None:
    names = ["lm_head", "model.layers.1.mlp.up_proj", "model.layers.10.mlp.up_proj"]
    assert modelopt_excluded(["model.layers.1.*"], names) == {names[1]}
    assert modelopt_excluded(["model.layers.1*"], names) == {names[1], names[2]}
    assert exact_or_regex_excluded(["lm_head", r"re:^model\.layers\.10\..*$"], names) == {names[0], names[2]}
    assert exact_or_regex_excluded(["*.up_proj"], names) == frozenset()


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
