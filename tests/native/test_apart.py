"""Experts out of fused tensors against torch's own slices; what would lose a weight is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError
from publisher.formats import LAYOUTS
from publisher.native.apart import take_apart
from publisher.native.source import SourceTensors

E, H, INNER = 3, 64, 32
NAME = "model.layers.0.mlp.experts"
Source = Callable[..., Path]


def stacks(dtype: torch.dtype, *, turned: bool, bias: bool = False) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    both, down = torch.randn(E, 2 * INNER, H).to(dtype), torch.randn(E, H, INNER).to(dtype)
    found = {f"{NAME}.gate_up_proj": both, f"{NAME}.down_proj": down}
    if turned:
        found = {name: tensor.transpose(1, 2).contiguous() for name, tensor in found.items()}
    if bias:
        found |= {f"{NAME}.gate_up_proj_bias": torch.randn(E, 2 * INNER).to(dtype)}
        found |= {f"{NAME}.down_proj_bias": torch.randn(E, H).to(dtype)}
    return found


def names(*parts: str) -> list[str]:
    return [f"{NAME}.{number}.{part}" for number in range(E) for part in parts]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
def test_every_expert_is_the_slice_it_is(
    dtype: torch.dtype, turned: bool, interleaved: bool, source: Source, tmp_path: Path
) -> None:
    stored = stacks(dtype, turned=turned)
    folder = source(tmp_path / "s", [stored], model_type="gpt_oss" if interleaved else "qwen3_moe")
    asked = names("gate_proj", "up_proj", "down_proj")
    tensors = SourceTensors(folder, asked)
    assert set(tensors.refs) == {f"{name}.weight" for name in asked}
    both, down = stored[f"{NAME}.gate_up_proj"], stored[f"{NAME}.down_proj"]
    if turned:
        both, down = both.transpose(1, 2), down.transpose(1, 2)
    for number in range(E):
        halves = (both[number, 0::2], both[number, 1::2]) if interleaved else both[number].chunk(2)
        for part, meant in zip(("gate_proj", "up_proj", "down_proj"), (*halves, down[number]), strict=True):
            ref = tensors.refs[f"{NAME}.{number}.{part}.weight"]
            got = tensors.load(ref)
            assert got.dtype == dtype
            assert got.is_contiguous()
            assert torch.equal(got, meant)
            copied = b"".join(bytes(piece) for piece in tensors.pieces(ref))
            assert copied == meant.contiguous().view(torch.uint8).numpy().tobytes()
    sizes = sum(ref.size for ref in tensors.refs.values())
    assert sizes == sum(tensor.nbytes for tensor in stored.values())
    order = [name.removeprefix(f"{NAME}.") for name in tensors.refs]
    assert order.index("0.down_proj.weight") < order.index("1.down_proj.weight")


@pytest.mark.parametrize("parts", [("gate_proj", "up_proj", "down_proj"), ("gate_up_proj", "down_proj")])
def test_biases_go_with_their_experts(parts: tuple[str, ...], source: Source, tmp_path: Path) -> None:
    stored = stacks(torch.bfloat16, turned=False, bias=True)
    tensors = SourceTensors(source(tmp_path / "s", [stored], model_type="x"), names(*parts))
    both, down = stored[f"{NAME}.gate_up_proj_bias"], stored[f"{NAME}.down_proj_bias"]
    meant = {"gate_up_proj": both, "down_proj": down, "gate_proj": both[:, :INNER], "up_proj": both[:, INNER:]}
    for number in range(E):
        for part in parts:
            assert torch.equal(tensors.load(tensors.refs[f"{NAME}.{number}.{part}.bias"]), meant[part][number])
    assert not any(name.endswith("_bias") for name in tensors.refs)


def test_a_stack_that_nobody_names_stays(source: Source, tmp_path: Path) -> None:
    stored = stacks(torch.bfloat16, turned=False)
    folder = source(tmp_path / "s", [stored])
    assert set(SourceTensors(folder).refs) == set(stored)
    assert set(SourceTensors(folder, ["model.layers.0.mlp.gate"]).refs) == set(stored)


def test_a_job_that_would_lose_experts_is_refused(source: Source, tmp_path: Path) -> None:
    folder = source(tmp_path / "s", [stacks(torch.bfloat16, turned=False)])
    asked = names("gate_proj", "up_proj", "down_proj")
    for some, said in ((asked[:-1], "8 of its 9"), (names("gate_proj", "up_proj"), "6 of its 6")):
        with pytest.raises(CheckpointError) as caught:
            SourceTensors(folder, some)
        assert caught.value.message == f"{NAME}: {said} matrices are to be quantized, not all."


@pytest.mark.parametrize(
    ("bias", "kind", "said"),
    [
        ((E, 2 * INNER + 2), "x", f"{NAME}.gate_up_proj_bias is [3, 66], its experts have 64 rows"),
        ((E, 2 * INNER), "gpt_oss", f"gate and up alternate in {NAME}.gate_up_proj_bias, which cannot be told apart"),
    ],
)
def test_biases_that_cannot_be_told_apart_are_refused(
    bias: tuple[int, ...], kind: str, said: str, source: Source, tmp_path: Path
) -> None:
    stored = {**stacks(torch.bfloat16, turned=False), f"{NAME}.gate_up_proj_bias": torch.zeros(bias).bfloat16()}
    with pytest.raises(CheckpointError) as caught:
        SourceTensors(source(tmp_path / "s", [stored], model_type=kind), names("gate_proj", "up_proj", "down_proj"))
    assert said in caught.value.message


def blocks() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)

    def bytes_of(*shape: int, high: int = 256) -> torch.Tensor:
        return torch.randint(0, high, shape, dtype=torch.uint8, generator=generator)

    found: dict[str, torch.Tensor] = {}
    for projection, rows, columns in (("gate_up_proj", 2 * INNER, H), ("down_proj", H, INNER)):
        found[f"{NAME}.{projection}_blocks"] = bytes_of(E, rows, columns // 32, 16)
        found[f"{NAME}.{projection}_scales"] = bytes_of(E, rows, columns // 32, high=130)
        found[f"{NAME}.{projection}_bias"] = torch.randn(E, rows, generator=generator).bfloat16()
    return found


def test_blocks_are_repacked_bit_for_bit(source: Source, tmp_path: Path) -> None:
    stored = blocks()
    asked = names("gate_up_proj", "down_proj")
    tensors = SourceTensors(source(tmp_path / "s", [stored], model_type="gpt_oss"), asked, LAYOUTS["quark", "mxfp4"])
    assert tensors.repacked == set(asked)
    for number in range(E):
        for part in ("gate_up_proj", "down_proj"):
            module = f"{NAME}.{number}.{part}"
            expected = {
                "weight": stored[f"{NAME}.{part}_blocks"][number].flatten(1),
                "weight_scale": stored[f"{NAME}.{part}_scales"][number],
                "bias": stored[f"{NAME}.{part}_bias"][number],
            }
            for suffix, meant in expected.items():
                ref = tensors.refs[f"{module}.{suffix}"]
                assert ref.shape == tuple(meant.shape)
                copied = b"".join(bytes(piece) for piece in tensors.pieces(ref))
                assert copied == meant.contiguous().view(torch.uint8).numpy().tobytes()
    assert len(tensors.refs) == E * 2 * 3


def test_blocks_for_another_format_are_decoded_as_transformers_does(source: Source, tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    stored = {name: tensor for name, tensor in blocks().items() if not name.endswith("_bias")}
    folder = source(tmp_path / "s", [stored], model_type="gpt_oss")
    tensors = SourceTensors(folder, names("gate_up_proj", "down_proj"), LAYOUTS["modelopt", "nvfp4"])
    for part in ("gate_up_proj", "down_proj"):
        pieces: list[Any] = [stored[f"{NAME}.{part}_{kind}"] for kind in ("blocks", "scales")]
        meant = convert_moe_packed_tensors(*pieces, dtype=torch.bfloat16).transpose(1, 2)
        for number in range(E):
            assert torch.equal(tensors.load(tensors.refs[f"{NAME}.{number}.{part}.weight"]), meant[number])


def test_whole_stacks_stay_one_tensor_with_their_experts(source: Source, tmp_path: Path) -> None:
    folder = source(tmp_path / "s", [blocks()], model_type="gpt_oss")
    both = [f"{NAME}.gate_up_proj", f"{NAME}.down_proj"]
    tensors = SourceTensors(folder, both, LAYOUTS["modelopt", "nvfp4"])
    assert tensors.refs[both[0]].shape == (E, 2 * INNER, H)
    assert [len(tensors.stacks[name]) for name in both] == [E, E]
    assert {f"{name}_bias" for name in both} <= set(tensors.refs)
    found = take_apart(open_checkpoint(folder), both, None)
    assert found.gone == {f"{name}_{kind}" for name in both for kind in ("blocks", "scales")}
