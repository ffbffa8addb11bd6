"""NVFP4 in the other layout: payload byte for byte, scales inverted, every rule satisfied, and back again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError
from publisher.native import dequantized
from publisher.repair import layouts
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.tiny import Tiny, compressed, f32, kimi, llama, mixture, mxfp4, nvfp4
from tests.builders.variants import expert_stacks, gpt_oss

MODULE = "model.layers.0.mlp.up_proj"
OTHER = {"modelopt": "compressed-tensors", "compressed-tensors": "modelopt"}
Make = Callable[[Tiny], Tiny]
GOOD: dict[str, tuple[str, Make, Callable[[], Tiny]]] = {
    "modelopt": ("modelopt", nvfp4, llama),
    "modelopt experts": ("modelopt", nvfp4, mixture),
    "modelopt wrapped": ("modelopt", nvfp4, kimi),
    "compressed-tensors": ("compressed-tensors", lambda source: compressed(source, "nvfp4"), llama),
    "compressed-tensors weights only": (
        "compressed-tensors",
        lambda source: compressed(source, "nvfp4", activations=False),
        mixture,
    ),
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for shard in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(shard).items()}


def without_cache(tiny: Tiny) -> Tiny:
    """The key-value cache's declaration and scales taken out: layouts name them differently."""
    tiny.tensors = {n: t for n, t in tiny.tensors.items() if not n.endswith((".k_scale", ".v_scale"))}
    tiny.config["quantization_config"].pop("kv_cache_scheme", None)
    if tiny.hf_quant_config is not None:
        tiny.hf_quant_config["quantization"]["kv_cache_quant_algo"] = None
    return tiny


def converted(folder: Path, place: Path, dialect: str) -> Path:
    return layouts.write(layouts.conversion(open_checkpoint(place), dialect), folder)


@pytest.mark.parametrize("kind", GOOD)
def test_the_payload_is_the_same_and_every_rule_satisfied(kind: str, tmp_path: Path) -> None:
    dialect, make, source = GOOD[kind]
    origin = source().write(tmp_path / "source")
    first = without_cache(make(source())).write(tmp_path / "first")
    (first / "publish.json").write_text("{}")
    second = converted(tmp_path / "second", first, OTHER[dialect])
    before, after = weights(first), weights(second)
    renamed = {"weight": "weight_packed"} if dialect == "modelopt" else {"weight_packed": "weight"}
    packed = [name for name, tensor in before.items() if tensor.dtype == torch.uint8]
    for name in packed:
        module, _, suffix = name.rpartition(".")
        assert before[name].equal(after[f"{module}.{renamed[suffix]}"])
        scales = f"{module}.weight_scale"
        assert before[scales].view(torch.uint8).equal(after[scales].view(torch.uint8))
    assert sum(t.dtype == torch.uint8 for t in after.values()) == len(packed) > 0
    evidence = Evidence(checkpoint=open_checkpoint(second), source=open_checkpoint(origin))
    found = [f"{f.code} {f.message}" for f in run(evidence, level="full", ignore=("LC",)).findings]
    assert found == []
    assert not {"README.md", "publish.json"} & {path.name for path in second.iterdir()}
    assert (second / "hf_quant_config.json").exists() is (dialect != "modelopt")
    assert (second / "LICENSE").read_bytes() == (first / "LICENSE").read_bytes()
    for name, tensor in before.items():
        if tensor.dtype == torch.bfloat16:
            assert tensor.equal(after[name])


@pytest.mark.parametrize("kind", ["modelopt", "compressed-tensors"])
def test_what_it_stands_for_stays_to_the_last_bit_but_one(kind: str, tmp_path: Path) -> None:
    dialect, make, source = GOOD[kind]
    first = without_cache(make(source())).write(tmp_path / "first")
    second = converted(tmp_path / "second", first, OTHER[dialect])
    third = converted(tmp_path / "third", second, dialect)
    meant = dequantized.state_dict(first, dtype=torch.float32)
    for folder, bits in ((second, 22), (third, 21)):
        found = dequantized.state_dict(folder, dtype=torch.float32)
        assert found.keys() == meant.keys()
        for name, tensor in meant.items():
            torch.testing.assert_close(found[name].float(), tensor.float(), rtol=2.0**-bits, atol=0)
    assert weights(third).keys() == weights(first).keys()
    assert {n: t.shape for n, t in weights(third).items()} == {n: t.shape for n, t in weights(first).items()}


def broken(change: Callable[[Tiny], None], make: Make = nvfp4) -> Tiny:
    tiny = without_cache(make(llama()))
    change(tiny)
    return tiny


def drop(name: str) -> Callable[[Tiny], None]:
    return lambda tiny: tiny.tensors.__delitem__(name) and None


def set_scale(value: float) -> Callable[[Tiny], None]:
    return lambda tiny: tiny.tensors.__setitem__(f"{MODULE}.weight_scale_2", f32(value))


def cached(tiny: Tiny) -> None:
    tiny.config["quantization_config"]["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}


def smoothed(tiny: Tiny) -> None:
    tiny.tensors[f"{MODULE}.pre_quant_scale"] = f32(1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop(f"{MODULE}.weight_scale_2"), [MODULE, "no weight_scale_2"]),
        (drop(f"{MODULE}.input_scale"), ["13 of 14", "input scale"]),
        (set_scale(0.0), [f"{MODULE}.weight_scale_2", "no inverse"]),
        (set_scale(float("nan")), [f"{MODULE}.weight_scale_2", "no inverse"]),
        (cached, ["key-value cache"]),
        (smoothed, ["pre_quant_scale", "no place"]),
    ],
)
def test_what_cannot_be_converted_is_refused_and_leaves_no_folder(
    change: Callable[[Tiny], None], words: list[str], tmp_path: Path
) -> None:
    place = broken(change).write(tmp_path / "first")
    with pytest.raises(CheckpointError) as caught:
        converted(tmp_path / "second", place, "compressed-tensors")
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(("make", "words"), [(mxfp4, "quark"), (lambda source: source, "declares nothing")])
def test_other_checkpoints_are_refused(make: Make, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        layouts.conversion(open_checkpoint(make(llama()).write(tmp_path)), "modelopt")


@pytest.mark.parametrize("beside", [False, True])
def test_experts_in_one_tensor_are_refused_by_name(beside: bool, tmp_path: Path) -> None:
    """Also where other layers are packed: the stacks would be copied under declarations that do not know them."""
    stacked = without_cache(expert_stacks(gpt_oss()))
    if beside:
        packed = without_cache(nvfp4(llama())).tensors
        stacked.tensors |= {name: tensor for name, tensor in packed.items() if ".down_proj" in name}
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.experts\.gate_up_proj holds all experts of a layer"):
        layouts.conversion(open_checkpoint(stacked.write(tmp_path)), "compressed-tensors")


def test_the_layout_it_has_already(tmp_path: Path) -> None:
    place = without_cache(nvfp4(llama())).write(tmp_path / "first")
    with pytest.raises(CheckpointError, match="in modelopt layout already"):
        layouts.conversion(open_checkpoint(place), "modelopt")


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    place = without_cache(nvfp4(llama())).write(tmp_path / "first")
    whole = converted(tmp_path / "whole", place, "compressed-tensors")
    made = layouts.conversion(open_checkpoint(place), "compressed-tensors")

    def stop(done: int, total: int) -> None:
        if done > total * 3 // 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        layouts.write(made, tmp_path / "again", progress=stop)
    assert not (tmp_path / "again").exists()
    again = layouts.write(made, tmp_path / "again")
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in again.iterdir()} == names
    assert all((whole / name).read_bytes() == (again / name).read_bytes() for name in names if (whole / name).is_file())
    assert layouts.write(made, tmp_path / "again") == again  # done already


def test_a_folder_that_exists_is_not_touched(tmp_path: Path) -> None:
    place = without_cache(nvfp4(llama())).write(tmp_path / "first")
    (tmp_path / "second").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        converted(tmp_path / "second", place, "compressed-tensors")
    with pytest.raises(CheckpointError, match="inside the checkpoint"):
        converted(place / "second", place, "compressed-tensors")


def test_transformers_loads_what_modelopt_wrote(tmp_path: Path) -> None:
    """A checkpoint no release of transformers can read becomes one that it reads."""
    released = Path(__file__).parents[1] / "released/exports/slice-model-free-nvfp4a16"
    from transformers import AutoModelForCausalLM

    there = converted(tmp_path / "there", released, "modelopt")
    back = converted(tmp_path / "back", there, "compressed-tensors")
    tokens = torch.arange(3, 40)[None]
    logits = []
    for folder in (released, back):
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        with torch.no_grad():
            logits.append(model(tokens).logits.float())
    torch.testing.assert_close(logits[1], logits[0], rtol=2**-6, atol=0.25)
    assert json.loads((there / "config.json").read_text())["quantization_config"]["quant_algo"] == "W4A16_NVFP4"
