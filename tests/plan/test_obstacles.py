"""What about a source stops every plan; damage is done to real files, byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.plan.decide import make_plan
from publisher.plan.obstacles import by_class, listed, source_obstacles
from tests.builders.sources import fp8, int4
from tests.builders.tiny import Tiny, kimi, mixture, nvfp4
from tests.builders.tiny import llama as tiny_llama

SHARD = "model.safetensors"


def text(checkpoint: Any) -> str:
    return "\n".join(source_obstacles(checkpoint))


@pytest.fixture
def tensors(shapes: Any) -> dict[str, Any]:
    return dict(shapes("llama", layers=1))


def test_a_good_source_has_none(folder: Callable[..., Any], tensors: dict[str, Any]) -> None:
    assert text(folder({SHARD: tensors})) == ""


def test_a_truncated_shard(folder: Callable[..., Any], tensors: dict[str, Any], tmp_path: Path) -> None:
    folder({SHARD: tensors})
    path = tmp_path / "source" / SHARD
    whole = path.read_bytes()
    for cut in (5, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert SHARD in text(open_checkpoint(tmp_path / "source"))
    assert f"has {len(whole) - 1:,} of {len(whole):,} bytes" in text(open_checkpoint(tmp_path / "source"))


def test_a_dtype_nobody_knows(folder: Callable[..., Any], tensors: dict[str, Any], tmp_path: Path) -> None:
    folder({SHARD: tensors})
    path = tmp_path / "source" / SHARD
    path.write_bytes(path.read_bytes().replace(b'"BF16"', b'"XF16"', 1))
    found = text(open_checkpoint(tmp_path / "source"))
    assert (
        "1 tensors have a dtype that is not known here: model.embed_tokens.weight in model.safetensors (XF16)" in found
    )


def test_a_pointer_instead_of_weights(folder: Callable[..., Any], tensors: dict[str, Any], tmp_path: Path) -> None:
    folder({SHARD: tensors})
    (tmp_path / "source" / SHARD).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "Git LFS pointer" in text(open_checkpoint(tmp_path / "source"))


def test_a_shard_the_index_names_and_nobody_has(folder: Callable[..., Any], tensors: dict[str, Any]) -> None:
    index = [(name, SHARD) for name in tensors]
    checkpoint = folder({SHARD: tensors}, index=[*index, ("a.weight", "model-2.safetensors"), ("b.weight", SHARD)])
    found = text(checkpoint)
    assert "1 shards that are missing: model-2.safetensors" in found
    assert "1 tensors that no shard holds: b.weight" in found


def test_a_tensor_in_two_shards(folder: Callable[..., Any], tensors: dict[str, Any]) -> None:
    assert "11 tensors lie in two shards" in text(folder({"a.safetensors": tensors, "b.safetensors": tensors}))


def test_no_weights_and_no_configuration(folder: Callable[..., Any], tensors: dict[str, Any]) -> None:
    assert "no *.safetensors file" in text(folder({}))


def test_no_configuration(folder: Callable[..., Any], tensors: dict[str, Any]) -> None:
    assert "has no config.json" in text(folder({SHARD: tensors}, config=None))


@pytest.mark.parametrize("config", [{"architectures": []}, {"model_type": 3, "architectures": "x"}, {"a": 1}])
def test_a_configuration_that_does_not_name_the_architecture(
    folder: Callable[..., Any], tensors: dict[str, Any], config: dict[str, Any]
) -> None:
    found = text(folder({SHARD: tensors}, config=config))
    assert "`model_type`" in found
    assert "`architectures`" in found


def test_a_broken_configuration(folder: Callable[..., Any], tensors: dict[str, Any], tmp_path: Path) -> None:
    folder({SHARD: tensors})
    (tmp_path / "source" / "config.json").write_text('{"a": NaN}')
    assert "NaN" in text(open_checkpoint(tmp_path / "source"))


@pytest.mark.parametrize("source", [lambda: int4(kimi()), lambda: fp8(mixture())], ids=["INT4", "FP8"])
def test_int4_and_fp8_sources_have_none(tmp_path: Path, source: Any) -> None:
    assert text(open_checkpoint(source()[0].write(tmp_path))) == ""


def test_weights_that_cannot_be_decoded(folder: Callable[..., Any], tensors: dict[str, Any], recipe: Any) -> None:
    packed = {name: ("F8_E4M3", shape) if "mlp" in name else (d, shape) for name, (d, shape) in tensors.items()}
    plan = make_plan(recipe(), folder({SHARD: packed}))
    wanted = "3 weights are stored quantized and cannot be decoded, such as model.layers.0.mlp.down_proj: FP8 without"
    assert any(wanted in problem and "INT4" in problem for problem in plan.problems)
    done = nvfp4(tiny_llama())
    assert "14 weights are stored quantized" in text(folder({SHARD: shapes_of(done)}))


def test_a_declaration_that_no_weight_bears_out(folder: Callable[..., Any], tensors: dict[str, Any]) -> None:
    block = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}
    nested = {"model_type": "kimi_k25", "architectures": ["X"], "text_config": {"quantization_config": block}}
    found = text(folder({SHARD: tensors}, config=nested))
    where = "config.json: text_config.quantization_config: compressed-tensors, pack-quantized"
    assert f"declared quantized ({where}), but none of its weights is" in found


def test_rotated_weights(tmp_path: Path) -> None:
    stored, _ = int4(kimi())
    stored.config["text_config"]["quantization_config"]["transform_config"] = {"config_groups": {"u": {}}}
    assert "rotated" in text(open_checkpoint(stored.write(tmp_path)))


def shapes_of(tiny: Tiny) -> dict[str, Any]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tiny.tensors.items()}


@pytest.mark.parametrize("name", ["model.layers.0.mlp\n.up_proj", "a b", "x*", "[q]", ""])
def test_names_no_list_can_spell(headers: Any, tensors: dict[str, Any], recipe: Any, name: str) -> None:
    tensors[f"{name}.weight"] = ("BF16", (64, 64))
    plan = make_plan(recipe(), headers(tensors))
    assert any("no exclude list can spell" in problem for problem in plan.problems)
    assert all(entry.isprintable() and " " not in entry for entry in plan.exclude)


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert by_class(["l.0.a", "l.1.a", "l.0.b"]) == "l.*.a (2), l.*.b (1)"
