"""A list is proven as the engines read it; a list that says something else is caught."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.plan.declaration import exclude_list
from publisher.plan.proof import disagreements, engine_modules, moe_module

# Parts of a layer that engines load as one; each is quantized or kept as a whole.
UNITS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "dense": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
    "shared": ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"),
    "experts": tuple(f"mlp.experts.{e}.{p}_proj" for e in (0, 1, 10) for p in ("gate", "up", "down")),
}
ALWAYS_KEPT = ("mlp.gate", "mlp.shared_expert_gate", "self_attn.indexer.wk")


def model(chosen: set[tuple[int, str]], prefix: str, count: int = 12) -> tuple[list[str], list[str]]:
    quantized, kept = [], [f"{prefix}lm_head", f"{prefix}model.embed_tokens", "vision_tower.blocks.1.fc"]
    for layer in range(count):
        base = f"{prefix}model.layers.{layer}"
        kept += [f"{base}.{part}" for part in ALWAYS_KEPT]
        for unit, parts in UNITS.items():
            (quantized if (layer, unit) in chosen else kept).extend(f"{base}.{part}" for part in parts)
    return quantized, kept


LAYOUTS = ["modelopt", "quark", "compressed-tensors"]
CHOICES = st.sets(st.tuples(st.integers(0, 11), st.sampled_from(sorted(UNITS))), min_size=1)


@settings(max_examples=60, deadline=None)
@given(chosen=CHOICES, prefix=st.sampled_from(["", "language_model."]), layout=st.sampled_from(LAYOUTS))
def test_every_choice_of_whole_layers_can_be_written_and_proven(
    chosen: set[tuple[int, str]], prefix: str, layout: str
) -> None:
    quantized, kept = model(chosen, prefix)
    entries = exclude_list(layout, quantized, kept)
    assert disagreements(layout, entries, quantized, kept) == []
    assert len(entries) <= len(kept)


@settings(max_examples=60, deadline=None)
@given(chosen=CHOICES, index=st.integers(0, 1000), layout=st.sampled_from(LAYOUTS))
def test_an_entry_lost_on_the_way_is_caught(chosen: set[tuple[int, str]], index: int, layout: str) -> None:
    quantized, kept = model(chosen, "")
    entries = list(exclude_list(layout, quantized, kept))
    lost = entries.pop(index % len(entries))
    covered = any(fnmatch.fnmatchcase(lost, entry) for entry in entries)  # shared_expert* covers shared_expert_gate
    assert covered or disagreements(layout, entries, quantized, kept)


@pytest.mark.parametrize(
    ("layout", "entry", "reader"),
    [
        ("modelopt", "model.layers.1", "vLLM"),  # a substring: layers 10 and 11 too
        ("modelopt", "mlp.gate", "vLLM"),  # a substring of mlp.gate_up_proj
        ("modelopt", "down_proj", "vLLM"),
        ("modelopt", "model.layers.1*", "modelopt's own reading"),
        ("modelopt", "*.mlp.*", "SGLang"),
        ("quark", "re:.*mlp.*", "vLLM"),
        ("quark", "model.layers.3.mlp.experts.1.up_proj", "vLLM"),
    ],
)
def test_an_entry_that_reaches_too_far_is_caught(layout: str, entry: str, reader: str) -> None:
    quantized, kept = model({(n, u) for n in range(12) for u in ("dense", "down", "experts")}, "")
    entries = [*exclude_list(layout, quantized, kept), entry]
    found = disagreements(layout, entries, quantized, kept)
    assert any(sentence.startswith(reader) and "the plan quantizes it" in sentence for sentence in found)


def test_sglang_cannot_tell_the_layers_of_an_mla_projection_apart() -> None:
    names = [f"model.layers.{n}.self_attn.{p}" for n in range(2) for p in ("kv_b_proj", "q_b_proj")]
    quantized, kept = names[:1], names[1:]
    found = disagreements("modelopt", ["model.layers.0.self_attn.q_b_proj", *names[2:]], quantized, kept)
    assert len(found) == 1
    assert found[0].startswith("SGLang")


def test_a_list_that_cannot_be_read_back() -> None:
    for entries in (["a b"], ["x" * 501]):
        assert "cannot be read back" in disagreements("modelopt", entries, ["b"], ["a"])[0]
    assert "cannot be read back" in disagreements("quark", ["re:(a+)+"], ["b"], ["a"])[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.mlp.experts.7.down_proj", "model.layers.3.mlp.experts"),
        ("model.layers.3.block_sparse_moe.experts.7.w1", "model.layers.3.block_sparse_moe.experts"),
        ("model.layers.3.mlp.shared_experts.down_proj", None),
        ("model.layers.3.mlp.shared_experts.0.down_proj", None),
        ("model.layers.3.mlp.down_proj", None),
    ],
)
def test_moe_modules(name: str, expected: str | None) -> None:
    assert moe_module(name) == expected


def test_what_an_engine_builds() -> None:
    fused = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
    kept: dict[str, Any] = {
        "a.q_proj": True,
        "a.k_proj": True,
        "a.v_proj": True,
        "b.q_proj": False,
        "c.experts.0.x": True,
    }
    assert engine_modules(kept, fused) == {"a.qkv_proj": True, "b.q_proj": False, "c.experts": True}
    assert engine_modules({**kept, "c.experts.1.x": False}, fused)["c.experts"] is None
