"""Pruning a weight 4 of 8 in pairs, in place, as `publisher.formats.sparse` does it: the same zeros on every machine.

On a CPU with numba weights of a million elements and more go to machine code, other ones and those on a GPU to torch.
Scores are float32 products and sums that nothing contracts, so both choose the same pairs, as the reference does.
Refused: nothing; whoever calls sees to it that the weight is finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from publisher.formats import sparse
from publisher.native.kernels import quantizers
from publisher.native.threads import at_once, row_chunks

_CPU_CHUNK = 1 << 17  # elements; their float32 values and products stay in the L2 cache
_GPU_CHUNK = 1 << 24
_LANES = 16  # of the machine code: rows of no such multiple go to torch


def prune(weight: Tensor, weighted_by: Tensor | None = None) -> Tensor:
    """Set the pairs that are not kept to +0.

    Args:
        weight: (rows, columns) BF16, F16 or F32, finite, contiguous; columns is a multiple of 8. Overwritten.
        weighted_by: float32 (columns,), from `formats.sparse.importance`; None for magnitudes alone.

    Returns:
        The sum of the squares that were dropped, a float64 scalar on the weight's device.
    """
    small = weight.numel() < quantizers.COMPILED_FROM or weight.shape[1] % _LANES
    if weight.device.type != "cpu" or small or not quantizers.accelerated():
        return _by_torch(weight, weighted_by)
    return _by_machine_code(weight, weighted_by)


def _by_torch(weight: Tensor, weighted_by: Tensor | None) -> Tensor:
    columns, gpu = weight.shape[1], weight.device.type != "cpu"
    factors = None if weighted_by is None else weighted_by.to(weight.device)

    def work(rows: slice) -> Tensor:
        values = weight[rows].float()
        products = values if factors is None else values * factors
        scores = (products * products).view(-1, columns // 2, 2)
        scores = (scores[..., 0] + scores[..., 1]).view(-1, columns // sparse.GROUP, sparse.PAIRS)
        gone = ~_kept(scores)
        pairs = weight[rows].view(*gone.shape, 2)
        lost = values.view(pairs.shape).masked_fill(~gone.unsqueeze(-1), 0)
        pairs.masked_fill_(gone.unsqueeze(-1), 0)
        return lost.double().square_().sum()

    chunks = row_chunks(weight.shape[0], columns, _GPU_CHUNK if gpu else _CPU_CHUNK)
    sums = [work(rows) for rows in chunks] if gpu else at_once(chunks, work)
    return torch.stack(sums).sum()


def _kept(scores: Tensor) -> Tensor:
    """Pairs that at least two of the other three do not beat; a later pair must be larger to beat an earlier one."""
    wins = torch.zeros(scores.shape, dtype=torch.uint8, device=scores.device)
    for one in range(sparse.PAIRS):
        for other in range(one + 1, sparse.PAIRS):
            first = scores[..., one] >= scores[..., other]
            wins[..., one] += first
            wins[..., other] += ~first
    return wins >= sparse.KEPT


def _by_machine_code(weight: Tensor, weighted_by: Tensor | None) -> Tensor:
    from publisher.native.kernels import pairs

    bits = quantizers._bits(weight)
    factors = None if weighted_by is None else weighted_by.numpy()

    def work(rows: slice) -> float:
        products = None if factors is None else (weight[rows].float().numpy() * factors).reshape(-1)
        return pairs.drop(bits[rows].reshape(-1), products)

    sums = at_once(row_chunks(weight.shape[0], weight.shape[1], _CPU_CHUNK), work)
    return torch.tensor(sums, dtype=torch.float64).sum()
