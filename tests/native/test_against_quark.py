"""Quark 0.13's own exports, made once in its environment, against the kernels: every tie, every maximum, edges, zeros.

`tests/golden/quark_adversarial.py` made the digests. Quark writes 1 where native writes 0: the scale of a block whose
largest weight is below 2**-124, all-zero ones included; nothing else may differ.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from publisher.native import kernels
from publisher.native.kernels import quantizers
from tests.builders import adversarial

TESTS = Path(__file__).parents[1]
CASES: dict[str, Any] = json.loads((TESTS / "golden/quark-adversarial.json").read_text())["cases"]


@pytest.fixture(params=["torch", "numba"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numba" and not kernels.accelerated():
        pytest.skip("numba, the extra `fast`, is not installed")
    monkeypatch.setattr(quantizers, "COMPILED_FROM", 0 if request.param == "numba" else 1 << 60)
    name: str = request.param
    return name


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def test_every_case_was_exported() -> None:
    assert CASES.keys() == adversarial.CASES.keys()


@pytest.mark.parametrize("case", adversarial.CASES)
def test_adversarial_weights(case: str, kernel: str) -> None:
    golden = CASES[case]
    weight = torch.from_numpy(adversarial.CASES[case](32).view("int16").copy()).view(torch.bfloat16)
    assert digest(weight) == golden["weights"], "the case is not the one that was exported"
    payload, scales = kernels.quantize_mxfp4(weight, kernels.block_amax(weight, 32), "even")
    scales = scales.clamp(min=1)
    rows = {"payload": payload[0, :64], "scales": scales[0]}
    for part, first in rows.items():
        assert first.contiguous().numpy().tobytes().hex() == golden[f"first_{part}"], part
    assert digest(scales) == golden["scales"]
    assert digest(payload) == golden["payload"]


@pytest.mark.parametrize("source", ["slice", "kimi"])
def test_real_and_random_weights_of_its_exports(source: str, kernel: str) -> None:
    stored, weights = (
        {
            n: t
            for path in sorted((TESTS / "released" / where).glob("*.safetensors"))
            for n, t in load_file(path).items()
        }
        for where in (f"exports/{source}-quark-mxfp4", f"sources/{source}")
    )
    packed = [name for name in stored if f"{name}_scale" in stored]
    assert len(packed) >= 14
    for name in packed:
        weight = weights[name]
        payload, scales = kernels.quantize_mxfp4(weight, kernels.block_amax(weight, 32), "even")
        assert torch.equal(payload, stored[name]), name
        assert torch.equal(scales, stored[f"{name}_scale"]), name
