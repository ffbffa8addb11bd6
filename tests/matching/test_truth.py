"""Seven readings of 26 entries, as the engines' own functions answer them.

vLLM 0.33 `modelopt.py`, `config_utils.py`, `quark/utils.py`; SGLang 0.5.23 `modelopt_quant.py`; TensorRT-LLM
`modeling_utils.py` of 2026 and before; ATOM `config.py`.
"""

from __future__ import annotations

import pytest

from publisher.matching import (
    Atom,
    Matcher,
    PartlyFused,
    SglangModelopt,
    TensorrtNew,
    TensorrtOld,
    VllmExactOrRegex,
    VllmModelopt,
)

FUSED = {
    "qkv_proj": ["q_proj", "k_proj", "v_proj"],
    "fused_qkv_a_proj": ["q_a_proj", "kv_a_proj_with_mqa"],
    "gate_up_proj": ["gate_proj", "up_proj"],
}
TAILS = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")

# entry, module, then vLLM-modelopt, SGLang-modelopt, TensorRT-LLM new and old, vLLM-CT, vLLM-Quark, ATOM:
# x unquantized, . quantized, E refuses. TensorRT-LLM's and ATOM's fused names are judged elsewhere.
TRUTH = [
    ("lm_head", "lm_head", "xxxxxxx"),
    ("lm_head", "language_model.lm_head", "xx....."),
    ("*self_attn*", "model.layers.3.self_attn.o_proj", "xxxx..x"),
    ("re:.*self_attn.*", "model.layers.3.self_attn.o_proj", "..x.xxx"),
    ("re:.*self_attn.*", "model.layers.3.self_attn.fused_qkv_a_proj", "..x.xxx"),
    ("model.layers.1", "model.layers.10.mlp.experts", "x......"),
    ("model.layers.1.*", "model.layers.10.mlp.experts", "......."),
    ("model.layers.1*", "model.layers.10.mlp.experts", "xxxx..x"),
    ("mlp.gate", "model.layers.3.mlp.gate_up_proj", "x......"),
    ("*.mlp.gate", "model.layers.3.mlp.gate", "xxxx..x"),
    ("*mlp.gate*", "model.layers.0.mlp.gate_up_proj", "xxxx..x"),
    ("model.layers.0.mlp.gate", "model.layers.0.mlp.gate_up_proj", "x......"),
    ("model.layers.3.self_attn.q_proj", "model.layers.3.self_attn.qkv_proj", "EE..EE."),
    ("model.layers.3.mlp.experts.7.down_proj", "model.layers.3.mlp.experts", "x....x."),
    ("gate", "model.layers.3.mlp.gate", "xx....."),
    ("re:mm_projector.*", "mm_projector.linear_1", "..x.xxx"),
    ("re:mm_projector.*", "model.mm_projector.linear_1", "......x"),
    (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "model.layers.0.mlp.gate_up_proj", "..x.xxx"),
    (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "model.layers.3.mlp.experts", "......."),
    ("model.layers.3.mlp.shared_experts", "model.layers.3.mlp.shared_experts.down_proj", "xxx...x"),
    ("model.layers.3.mlp.shared_experts*", "model.layers.3.mlp.shared_experts.down_proj", "xxxx..x"),
    ("*shared_experts*", "model.layers.3.mlp.shared_experts.gate_up_proj", "xxxx..x"),
    ("language_model.model.layers.0.mlp.gate_up_proj", "model.layers.0.mlp.gate_up_proj", "......."),
    ("language_model.model.layers.0.*", "model.layers.0.mlp.gate_up_proj", "......."),
    ("model.layers.0.*", "language_model.model.layers.0.mlp.gate_up_proj", ".x....."),
    ("*[0-3].mlp*", "model.layers.2.mlp.gate", "xxxx..x"),
]


def readings(entry: str) -> list[Matcher]:
    return [
        VllmModelopt([entry], FUSED),
        SglangModelopt([entry], FUSED, tails=TAILS),
        TensorrtNew([entry], {}),
        TensorrtOld([entry], {}),
        VllmExactOrRegex([entry], FUSED, moe_children=False),
        VllmExactOrRegex([entry], FUSED, moe_children=True),
        Atom([entry], {}),
    ]


def answer(matcher: Matcher, module: str) -> str:
    try:
        return "x" if matcher(module) else "."
    except PartlyFused:
        return "E"


@pytest.mark.parametrize(("entry", "module", "expected"), TRUTH)
def test_each_engine_reads_an_entry_its_own_way(entry: str, module: str, expected: str) -> None:
    assert "".join(answer(matcher, module) for matcher in readings(entry)) == expected


def test_a_safe_spelling_means_the_same_everywhere() -> None:
    """A regex anchored at both ends, and a glob that ends at a dot: what this project writes."""
    modules = ["model.layers.1.mlp.down_proj", "model.layers.10.mlp.down_proj", "model.layers.1.self_attn.o_proj"]
    for entry, readers in (
        (r"re:^model\.layers\.1\.mlp(\..*)?$", (2, 4, 5, 6)),
        ("model.layers.1.mlp.*", (0, 1, 2, 3)),
    ):
        for number in readers:
            assert [answer(readings(entry)[number], module) for module in modules] == ["x", ".", "."]
