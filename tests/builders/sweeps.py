"""modelopt's FP8 scale sweep written out in torch, element after element, as its documentation gives it.

Independent of the product: candidates are torch's own E4M3, elements a table, sixteen errors added in their order.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
MIDDLES = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
UP_AT_A_TIE = torch.tensor([False, True, False, True, False, True, False])  # to the even code


def candidates() -> Tensor:
    """The positive finite E4M3 values over 448, ascending, float32 (126,)."""
    values = torch.arange(1, 127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    return values / 448.0


def rounded(magnitudes: Tensor) -> Tensor:
    """The nearest E2M1 magnitude, ties to the even code."""
    above = magnitudes[..., None] > MIDDLES
    above |= (magnitudes[..., None] == MIDDLES) & UP_AT_A_TIE
    return LEVELS[above.sum(-1)]


def losses(weight: Tensor, largest: Tensor) -> Tensor:
    """(rows, in) and a float32 scalar to float32 (126, rows, in / 16)."""
    blocks = weight.float().abs().view(weight.shape[0], -1, 16)
    found = []
    for share in candidates():
        step = share * largest.float() / 6.0
        step = torch.where(step == 0, torch.ones(()), step)
        errors = (blocks - rounded(blocks / step) * step) ** 2
        total = errors[..., 0].clone()
        for place in range(1, 16):
            total += errors[..., place]
        found.append(total)
    return torch.stack(found)


def swept_scales(weight: Tensor, largest: Tensor) -> Tensor:
    """The E4M3 block scales of the first smallest loss, (rows, in / 16)."""
    best = losses(weight, largest).argmin(0)
    return (best + 1).to(torch.uint8).view(torch.float8_e4m3fn)
