"""Pruning in torch and in machine code: the zeros of the numpy reference, whatever the dtype, size and threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from publisher.formats import sparse as reference
from publisher.native import kernels
from publisher.native.kernels import quantizers, sparse
from publisher.native.threads import thread_by_chunk

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@pytest.fixture(params=["torch", "numba"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numba" and not kernels.accelerated():
        pytest.skip("numba, the extra `fast`, is not installed")
    monkeypatch.setattr(quantizers, "COMPILED_FROM", 0 if request.param == "numba" else 1 << 60)


def weights(kind: str, dtype: torch.dtype, shape: tuple[int, int] = (37, 320)) -> Tensor:
    random = torch.Generator().manual_seed(len(kind))
    values = torch.randn(shape, generator=random)
    if kind == "ties":
        values = torch.randint(-2, 3, shape, generator=random).float()
    elif kind == "spread":
        values = values * 10.0 ** torch.randint(-38, 38, (shape[0], 1), generator=random)
    elif kind == "zero":
        values = torch.zeros(shape).index_fill_(0, torch.tensor([3]), -0.0)
    return torch.nan_to_num(values.to(dtype), posinf=3.0, neginf=-3.0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "ties", "spread", "zero"])
def test_the_zeros_are_those_of_the_reference(kind: str, dtype: torch.dtype, weighted: bool) -> None:
    weight = weights(kind, dtype)
    factors = torch.rand(320, generator=torch.Generator().manual_seed(1)).mul_(4).floor_() if weighted else None
    before = weight.clone()
    lost = kernels.prune(weight, factors)
    rows = before.float().numpy()
    expected = reference.pruned(rows, None if factors is None else factors.numpy())
    assert np.array_equal(weight.float().numpy().view(np.uint32), expected.view(np.uint32))
    dropped = np.where(expected == 0, rows.astype(np.float64), 0)
    assert lost.dtype == torch.float64
    assert float(lost) == pytest.approx(float((dropped**2).sum()), rel=1e-12)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, pieces = weights("normal", torch.bfloat16), weights("normal", torch.bfloat16)
    one = kernels.prune(whole)
    monkeypatch.setattr(sparse, "_CPU_CHUNK", 321)
    thread_by_chunk()
    other = kernels.prune(pieces)
    assert torch.equal(whole, pieces)
    assert float(one) == pytest.approx(float(other), rel=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is false: no CUDA or ROCm device")
def test_a_gpu_drops_the_same(kernel: None) -> None:
    weight = weights("ties", torch.bfloat16)
    there = weight.cuda()
    kernels.prune(weight)
    kernels.prune(there)
    assert torch.equal(there.cpu(), weight)
