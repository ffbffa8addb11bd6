"""Models of packed checkpoints against ml_dtypes' decoding, and of plain ones against transformers' own loader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers

from publisher.errors import CheckpointError, PublisherError
from publisher.native import dequantized
from tests.builders.tiny import Tensor, Tiny, f32, llama, mxfp4, nvfp4

CPU = torch.device("cpu")
MODULE = "model.layers.0.mlp.down_proj"


def elements(tensor: Tensor) -> np.ndarray:
    packed = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)
    codes = np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(tensor.shape[0], -1)
    return codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32)


def expected(tiny: Tiny, module: str, block: int, scale: type) -> np.ndarray:
    scales = tiny.tensors[f"{module}.weight_scale"]
    steps = np.frombuffer(scales.data, scale).reshape(scales.shape).astype(np.float32)
    if f"{module}.weight_scale_2" in tiny.tensors:
        steps = steps * np.frombuffer(tiny.tensors[f"{module}.weight_scale_2"].data, "<f4")
    return elements(tiny.tensors[f"{module}.weight"]) * np.repeat(steps, block, axis=1)


def as_compressed_tensors(tiny: Tiny) -> Tiny:
    """The same codes under compressed-tensors' names: the global scale is stored as its reciprocal, shape (1,)."""
    for name in [name for name in tiny.tensors if name.endswith(".weight_scale_2")]:
        module = name.removesuffix(".weight_scale_2")
        second = np.frombuffer(tiny.tensors.pop(name).data, "<f4")[0]
        tiny.tensors[f"{module}.weight_global_scale"] = f32(float(1 / second), (1,))
        tiny.rename(f"{module}.weight", f"{module}.weight_packed")
        tiny.tensors.pop(f"{module}.input_scale", None)
    tiny.config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}
    tiny.hf_quant_config = None
    return tiny


@pytest.mark.parametrize(
    ("make", "block", "scale"),
    [
        (lambda: nvfp4(llama()), 16, ml_dtypes.float8_e4m3fn),
        (lambda: nvfp4(llama(), activations=False), 16, ml_dtypes.float8_e4m3fn),
        (lambda: mxfp4(llama()), 32, ml_dtypes.float8_e8m0fnu),
    ],
    ids=["modelopt W4A4", "modelopt W4A16", "quark MXFP4"],
)
def test_packed_weights_are_what_their_codes_say(
    tmp_path: Path, make: Callable[[], Tiny], block: int, scale: type
) -> None:
    tiny = make()
    model = dequantized.load_model(tiny.write(tmp_path), dtype=torch.float32, device=CPU)
    weights = model.state_dict()
    packed = [name.removesuffix(".weight_scale") for name in tiny.tensors if name.endswith(".weight_scale")]
    assert len(packed) == 14
    for module in packed:
        np.testing.assert_array_equal(weights[f"{module}.weight"].numpy(), expected(tiny, module, block, scale))
    head = np.frombuffer(tiny.tensors["lm_head.weight"].data, ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(weights["lm_head.weight"].numpy().ravel(), head)


def test_the_reciprocal_global_scale_is_divided_by(tmp_path: Path) -> None:
    direct = dequantized.state_dict(nvfp4(llama()).write(tmp_path / "modelopt"), dtype=torch.float32)
    other = as_compressed_tensors(nvfp4(llama())).write(tmp_path / "ct")
    reciprocal = dequantized.state_dict(other, dtype=torch.float32)
    torch.testing.assert_close(reciprocal[f"{MODULE}.weight"], direct[f"{MODULE}.weight"], rtol=1e-6, atol=0)


def test_a_source_gives_the_logits_of_transformers_own_loader(tmp_path: Path) -> None:
    folder = llama().write(tmp_path)
    ids = torch.arange(20).reshape(2, 10)
    ours = dequantized.load_model(folder, dtype=torch.float32, device=CPU)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=0)


def test_tied_embeddings_need_no_head(tmp_path: Path) -> None:
    tiny = mxfp4(llama())
    tiny.config["tie_word_embeddings"] = True
    del tiny.tensors["lm_head.weight"]
    model = dequantized.load_model(tiny.write(tmp_path), dtype=torch.float32, device=CPU)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def drop(name: str) -> Callable[[Tiny], None]:
    return lambda tiny: tiny.tensors.pop(name) and None


def declare(**changes: object) -> Callable[[Tiny], None]:
    def change(tiny: Tiny) -> None:
        tiny.config["quantization_config"] |= changes
        tiny.hf_quant_config = None

    return change


def undeclare(tiny: Tiny) -> None:
    del tiny.config["quantization_config"]
    tiny.hf_quant_config = None


def two_numbers(tiny: Tiny) -> None:
    tiny.tensors[f"{MODULE}.weight_scale_2"] = Tensor("F32", (2,), b"\0" * 8)


def retype_head(tiny: Tiny) -> None:
    tiny.tensors["lm_head.weight"] = Tensor("F8_E4M3", (32, 64), bytes(32 * 64))


def shorten_norm(tiny: Tiny) -> None:
    tiny.tensors["model.norm.weight"] = Tensor("BF16", (32,), bytes(64))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop(f"{MODULE}.weight_scale_2"), [f"{MODULE}.weight_scale_2", "missing"]),
        (drop("model.norm.weight"), ["1 parameters", "model.norm.weight"]),
        (shorten_norm, ["shape", "model.norm.weight"]),
        (declare(quant_algo="FP8"), ["modelopt fp8", "modelopt nvfp4"]),
        (undeclare, ["nothing declares"]),
        (two_numbers, [f"{MODULE}.weight_scale_2", "2 numbers"]),
        (retype_head, ["lm_head", "FP8 without scales"]),
    ],
    ids=["no global scale", "no norm", "short norm", "other format", "undeclared", "two scalars", "FP8 head"],
)
def test_what_cannot_be_evaluated_is_named(tmp_path: Path, damage: Callable[[Tiny], None], words: list[str]) -> None:
    tiny = nvfp4(llama())
    damage(tiny)
    with pytest.raises(CheckpointError) as caught:
        dequantized.load_model(tiny.write(tmp_path), dtype=torch.float32, device=CPU)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint


def test_custom_code_is_refused_and_never_run(tmp_path: Path) -> None:
    tiny = llama()
    tiny.config |= {"model_type": "stranger", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    tiny.files["code.py"] = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    tiny.files["tokenizer_config.json"] = json.dumps({"auto_map": {"AutoTokenizer": ["code.T", None]}}).encode()
    folder = tiny.write(tmp_path / "model")
    with pytest.raises(PublisherError, match="cannot load"):
        dequantized.load_model(folder, dtype=torch.float32, device=CPU)
    with pytest.raises(PublisherError, match="cannot load"):
        dequantized.load_tokenizer(folder)
    assert not (tmp_path / "ran").exists()
