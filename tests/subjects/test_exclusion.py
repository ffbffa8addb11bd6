"""An exclude list over a module table: states, readings by engine, groups, and what is not evaluated."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import module_table
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.quantconfig import parse_declaration
from publisher.subjects import Modules
from publisher.subjects.exclusion import Exclusion, grouped
from tests.builders.edits import Edit, plain_expert
from tests.builders.tiny import Tiny
from tests.rules.cases import GOOD
from tests.rules.exclusion_cases import add, listing, plain


def exclusion(folder: Path, base: str, edit: Edit | None = None) -> Exclusion:
    _, result = GOOD[base]()
    if edit is not None:
        edit(result)
    return Modules(open_checkpoint(result.write(folder))).exclusion


def test_experts_are_one_module_with_one_state_or_none(tmp_path: Path) -> None:
    found = exclusion(tmp_path, "mixture-nvfp4", plain_expert)
    assert found.kept("model.layers.1.mlp.experts") is False
    assert found.kept("model.layers.2.mlp.experts") is None
    assert found.kept("lm_head") is True
    assert found.unlike == (("model.layers.2.mlp.experts", 3, 12),)


@pytest.mark.parametrize(
    ("base", "engines"),
    [
        ("llama-nvfp4", ("vllm", "sglang", "tensorrt-llm")),
        ("kimi-nvfp4", ("vllm", "sglang")),
        ("kimi-mxfp4", ("vllm", "sglang", "atom")),
        ("kimi-ct-mxfp4", ("vllm", "sglang")),
    ],
)
def test_who_reads_the_list_of_a_model(base: str, engines: tuple[str, ...], tmp_path: Path) -> None:
    found = exclusion(tmp_path, base)
    assert found.readable
    assert found.engines == engines
    assert all(found.disagreements(engine)[1] == () for engine in engines)


def test_a_disagreement_names_the_engines_layer_and_the_layers_it_is_in(tmp_path: Path) -> None:
    found = exclusion(tmp_path, "llama-nvfp4", plain(r"self_attn\.[qkv]_proj$", "llama"))
    label, (odd,) = found.disagreements("vllm")
    assert label == "vLLM"
    assert (odd.kind, odd.stored, odd.modules, odd.layers) == ("model.layers.*.self_attn.qkv_proj", False, 2, (0, 1))


def test_some_members_of_a_fused_layer_are_a_refusal(tmp_path: Path) -> None:
    found = exclusion(tmp_path, "llama-nvfp4", add("model.layers.0.self_attn.q_proj"))
    assert [odd.partly for odd in found.disagreements("vllm")[1]] == [True]


@pytest.mark.parametrize(("model_type", "refused"), [("deepseek_v3", False), ("qwen3_moe", True)])
@pytest.mark.parametrize("base", ["mixture-nvfp4", "mixture-mxfp4", "mixture-ct-nvfp4"])
def test_an_unlisted_router_is_refused_where_the_engine_asks_the_list(
    base: str, model_type: str, refused: bool, tmp_path: Path
) -> None:
    """Exporters that list `nn.Linear` alone leave out the routers of transformers 5."""

    def edit(tiny: Tiny) -> None:
        tiny.config["model_type"] = model_type
        listing(lambda names: names.__setitem__(slice(None), [n for n in names if not n.endswith(".gate")]))(tiny)

    odds = exclusion(tmp_path, base, edit).disagreements("vllm")[1]
    assert [odd.kind for odd in odds] == ["model.layers.*.mlp.gate"] * refused


def test_groups_keep_classes_and_reasons_apart() -> None:
    wrong = [("a.layers.0.b", True, False), ("a.layers.1.b", True, False), ("a.layers.1.b", False, False)]
    assert [(odd.modules, odd.layers) for odd in grouped(wrong)] == [(2, (0, 1)), (1, (1,))]


def large(layers: int, experts: int, ignore: list[str]) -> Checkpoint:
    """A module table of a large mixture, without files."""
    names = []
    for layer in range(layers):
        at = f"model.layers.{layer}"
        names += [f"{at}.self_attn.{p}" for p in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")]
        names += [f"{at}.mlp.experts.{e}.{p}_proj" for e in range(experts) for p in ("gate", "up", "down")]
    refs = []
    for name in names:
        kinds = [("weight", "BF16", (4, 4))] if "self_attn" in name else [("weight", "U8", (4, 2))]
        kinds += [] if "self_attn" in name else [("weight_scale", "F8_E4M3", (4, 1)), ("weight_scale_2", "F32", ())]
        refs += [TensorRef(f"{name}.{suffix}", dtype, shape, "s", 0, 8) for suffix, dtype, shape in kinds]
    block = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ignore}
    checkpoint = open_checkpoint_of(Tiny(tensors={}, config={}))
    object.__setattr__(checkpoint, "modules", module_table(refs))
    object.__setattr__(checkpoint, "declarations", (parse_declaration(block, "config.json"),))
    return checkpoint


def open_checkpoint_of(tiny: Tiny) -> Checkpoint:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return open_checkpoint(tiny.write(Path(folder)))


@pytest.mark.parametrize(
    "ignore",
    [
        ["*self_attn*"],
        [f"model.layers.{n}.self_attn*" for n in range(61)],
        [f"model.layers.{n}.mlp.experts.{e}.up_proj" for n in range(61) for e in range(384)],
    ],
    ids=["one-glob", "one-a-layer", "one-an-expert"],
)
def test_a_checkpoint_of_a_quarter_million_tensors_takes_seconds(ignore: list[str]) -> None:
    checkpoint = large(61, 384, ignore)
    began = time.perf_counter()
    found = Modules(checkpoint).exclusion
    assert found.readable
    _ = [found.disagreements(engine) for engine in found.engines]
    _ = (found.misdeclared, found.substrings, found.unlike)
    assert time.perf_counter() - began < 15
