"""Facts a person wants beside a plan."""

from __future__ import annotations

from pathlib import Path

from publisher.checkpoint.open import open_checkpoint
from publisher.plan.decide import make_plan
from publisher.plan.notices import notices
from publisher.plan.recipe import load_recipe
from publisher.units import format_bytes
from tests.builders.edits import drop
from tests.builders.sources import fp8, fused
from tests.builders.tiny import Tensor, Tiny, llama, mixture


def told(tiny: Tiny, folder: Path, quantize: str = "*_proj") -> dict[str, str]:
    tiny.write(folder / "source")
    path = folder / "recipe.yaml"
    path.write_text(
        f"name: t\nsource: {folder / 'source'}\nformat: nvfp4\nlayout: modelopt\nengine: native\nmode: max\n"
        f"activations: none\nkv_cache: none\nquantize: ['{quantize}']\n"
    )
    checkpoint = open_checkpoint(folder / "source")
    return dict(notices(make_plan(load_recipe(path), checkpoint), checkpoint))


def test_layers_split_over_shards_are_counted(tmp_path: Path) -> None:
    tiny = llama()
    tiny.shards = 7
    text = told(tiny, tmp_path)["fused layers"]
    real = open_checkpoint(tmp_path / "source").modules
    pairs = [("q_proj", "k_proj"), ("q_proj", "v_proj"), ("gate_proj", "up_proj")]
    split = set()
    for layer in range(2):
        for a, b in pairs:
            block = "self_attn" if "q_" in a else "mlp"
            names = [f"model.layers.{layer}.{block}.{name}" for name in (a, b)]
            if real[names[0]].shards != real[names[1]].shards:
                split.add((layer, block))
    assert text.startswith(f"4, of which {len(split)} lie in two shards or more")
    assert split


def test_one_shard_says_nothing(tmp_path: Path) -> None:
    tiny = llama()
    tiny.shards = 1
    assert "fused layers" not in told(tiny, tmp_path)


def test_sizes_that_break_a_block_are_named(tmp_path: Path) -> None:
    """The widths are 64 and 96: over 4 GPUs 96 inputs are no whole blocks of 16, and 4 heads are not over 8."""
    found = told(llama(), tmp_path)
    assert found["tensor parallel"] == "1, 2"
    assert "96" in found["not over 4 GPUs"]
    assert "not over 2 GPUs" not in found


def test_tied_heads(tmp_path: Path) -> None:
    tiny = llama()
    tiny.config["tie_word_embeddings"] = True
    assert "lm_head is stored" in told(tiny, tmp_path / "a")["tied head"]
    drop("lm_head.weight")(tiny)
    assert "is also the output head" in told(tiny, tmp_path / "b")["tied head"]


def test_prediction_layers(tmp_path: Path) -> None:
    tiny = mixture()
    tiny.config["num_nextn_predict_layers"] = 1
    assert "stores none" in told(tiny, tmp_path / "a")["prediction layers"]
    tiny.tensors["model.layers.3.eh_proj.weight"] = Tensor("BF16", (64, 128), bytes(16384))
    assert told(tiny, tmp_path / "b")["prediction layers"].startswith("1 modules kept")


def test_what_the_source_s_weights_are_stored_as(tmp_path: Path) -> None:
    matrices = {name: tensor for name, tensor in llama().tensors.items() if len(tensor.shape) == 2}
    size = sum(len(tensor.data) for tensor in matrices.values())
    assert told(llama(), tmp_path / "a")["source weights"] == f"BF16 {len(matrices)} ({format_bytes(size)})"
    stored, _ = fp8(llama())
    text = told(stored, tmp_path / "b")["source weights"]
    assert text.startswith("FP8 14 (") or ", FP8 14 (" in text
    pair, _ = fused(mixture())
    assert "BF16 stacks of experts 2 (" in told(pair, tmp_path / "c")["source weights"]
