"""Layers of a mixed checkpoint in FP8: which they are, and their error by ml_dtypes."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.stored import UnreadableWeight
from publisher.subjects import Meter
from publisher.subjects.recoded import compare, pair_of, recoded
from tests.builders.sources import fp8
from tests.builders.tiny import Tensor, Tiny, mixture, nvfp4, values_of
from tests.builders.variants import mixed

Q = "model.layers.0.self_attn.q_a_proj"


def pairs(source: Tiny, result: Tiny, folder: Path) -> tuple[object, object]:
    return open_checkpoint(result.write(folder / "result")), open_checkpoint(source.write(folder / "source"))


def test_the_error_is_that_of_ml_dtypes(tmp_path: Path) -> None:
    source = mixture()
    result = mixed(source)
    checkpoint, original = pairs(source, result, tmp_path)
    modules = recoded(checkpoint, original)  # type: ignore[arg-type]
    assert {module.name for module in modules} == {
        name.removesuffix(".weight")
        for name, tensor in result.tensors.items()
        if tensor.dtype == "F8_E4M3" and name.endswith(".weight")
    }
    module = next(module for module in modules if module.name == Q)
    one = compare(module, pair_of(checkpoint, original, module), None, Meter())  # type: ignore[arg-type]
    weights = values_of(source.tensors[f"{Q}.weight"]).astype(np.float64)
    codes = np.frombuffer(result.tensors[f"{Q}.weight"].data, ml_dtypes.float8_e4m3fn).astype(np.float64)
    scale = np.frombuffer(result.tensors[f"{Q}.weight_scale"].data, "<f4")[0]
    values = codes.reshape(weights.shape) * scale
    assert one.rel_rmse == pytest.approx(np.linalg.norm(values - weights) / np.linalg.norm(weights), rel=1e-4)
    assert (one.format, one.stored, one.looked) == ("fp8", "BF16", weights.size)
    part = compare(module, pair_of(checkpoint, original, module), 16, Meter())  # type: ignore[arg-type]
    assert 0 < part.looked < one.looked


def test_what_the_source_stores_alike_is_left_to_the_bytes(tmp_path: Path) -> None:
    stored, meant = fp8(mixture())
    result = nvfp4(meant)
    for suffix in ("weight_scale", "weight_scale_2", "input_scale"):
        del result.tensors[f"{Q}.{suffix}"]
    result.tensors |= {name: stored.tensors[name] for name in (f"{Q}.weight", f"{Q}.weight_scale_inv")}
    checkpoint, original = pairs(stored, result, tmp_path)
    assert recoded(checkpoint, original) == []  # type: ignore[arg-type]


def test_another_shape_is_refused(tmp_path: Path) -> None:
    source = mixture()
    result = mixed(source)
    source.tensors[f"{Q}.weight"] = Tensor("BF16", (16, 64), bytes(2048))
    checkpoint, original = pairs(source, result, tmp_path)
    module = next(m for m in recoded(checkpoint, original) if m.name == Q)  # type: ignore[arg-type]
    with pytest.raises(UnreadableWeight, match="the source has"):
        pair_of(checkpoint, original, module)  # type: ignore[arg-type]
