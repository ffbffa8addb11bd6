"""Which of modelopt's quantizers a job switches on, asked of modelopt itself on a tiny Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("modelopt", reason="needs the extra [modelopt]")

from publisher.errors import CheckpointError

pytestmark = [pytest.mark.engine, pytest.mark.slow]
DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    from publisher.engines.programs import modelopt_model

    return modelopt_model.load(tiny_llama, "cpu")


def enabled(model: Any) -> set[str]:
    from modelopt.torch.quantization.nn import TensorQuantizer

    return {name for name, module in model.named_modules() if isinstance(module, TensorQuantizer) and module.is_enabled}


@pytest.mark.parametrize(
    ("activations", "kv_cache", "expected"),
    [
        (False, "none", {"weight_quantizer"}),
        (True, "none", {"weight_quantizer", "input_quantizer"}),
    ],
)
def test_only_the_named_module_is_quantized(model: Any, activations: bool, kv_cache: str, expected: set[str]) -> None:
    from publisher.engines.programs import modelopt_model

    rules = modelopt_model.rules(model, [DOWN], activations=activations, kv_cache=kv_cache)
    sequences = [[2, 3, 4]] if activations else []
    quantized, tokens = modelopt_model.quantize(model, rules, sequences, [DOWN] if activations else ())
    assert enabled(quantized) == {f"{DOWN}.{name}" for name in expected}
    assert tokens == ({DOWN: 3} if activations else {})


@pytest.mark.parametrize(("kv_cache", "constant"), [("fp8", False), ("fp8-cast", True)])
def test_the_kv_cache_is_measured_or_cast(model: Any, kv_cache: str, constant: bool) -> None:
    from publisher.engines.programs import modelopt_model

    rules = modelopt_model.rules(model, [DOWN], activations=False, kv_cache=kv_cache)
    quantized, _ = modelopt_model.quantize(model, rules, [[2, 3, 4]] if kv_cache == "fp8" else [], ())
    kv = {name for name in enabled(quantized) if "bmm" in name}
    assert kv == {f"model.layers.{i}.self_attn.{p}_bmm_quantizer" for i in (0, 1) for p in "kv"}
    attention = quantized.model.layers[0].self_attn.k_bmm_quantizer
    assert attention.num_bits == (4, 3)
    assert (not hasattr(attention, "_amax")) == constant


def test_a_module_the_model_does_not_have_is_named(model: Any) -> None:
    from publisher.engines.programs import modelopt_model

    with pytest.raises(CheckpointError, match=r"no module model\.layers\.61\.up \(1 such modules of 2\)"):
        modelopt_model.rules(model, [DOWN, "model.layers.61.up"], activations=False, kv_cache="none")


def test_a_tokenizer_that_is_not_there_is_named_with_the_way_round_it(tmp_path: Path) -> None:
    from publisher.engines.programs import modelopt_model

    with pytest.raises(CheckpointError) as caught:
        modelopt_model.load_tokenizer(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "activations: none" in caught.value.hint
