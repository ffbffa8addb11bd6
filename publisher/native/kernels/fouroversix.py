"""Four-over-six for weights of any device: the codes of `publisher.formats.fouroversix`, the same bytes everywhere.

What a block's two scales and steps are depends on its largest weight and the group's alone, so for 16-bit weights both
are looked up; the two losses are then taken weight by weight, in machine code on a CPU and in torch elsewhere.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from publisher.formats import fouroversix
from publisher.formats.blocks import Float32Array, UInt8Array
from publisher.native.kernels import portable
from publisher.native.kernels.portable import NVFP4_BLOCK
from publisher.native.threads import at_once, row_chunks

_CPU_CHUNK, _GPU_CHUNK = 1 << 18, 1 << 24  # elements


def choose(weights: Any, peaks: npt.NDArray[Any], largest: float, codes: UInt8Array) -> None:
    """Scale codes of the smaller losses, on a CPU.

    Args:
        weights: (rows, columns) contiguous bits of finite weights (see `compiled`).
        peaks: (rows, columns / 16) bits of the blocks' largest magnitudes.
        largest: the largest magnitude of the fused group.
        codes: uint8 (rows, columns / 16), overwritten.
    """
    from publisher.native.kernels import alternatives

    flat = peaks.reshape(-1)
    if flat.dtype == np.float32:
        rows, tables = np.arange(flat.size, dtype=np.uint32), fouroversix.candidates(flat, largest)
    else:
        rows, tables = flat.view(np.uint16), _tables(largest, flat.dtype == np.int16)
    alternatives.better_codes(weights.reshape(-1), rows, *tables, codes.reshape(-1))


# --- scales and steps ----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _tables(largest: float, half: bool) -> tuple[UInt8Array, Float32Array]:
    """Codes and steps (32768, 2) of blocks with every largest magnitude that BF16 or F16 has, by its bits."""
    bits = np.arange(1 << 15, dtype=np.uint32)
    values = bits.astype(np.uint16).view(np.float16).astype(np.float32) if half else (bits << 16).view(np.float32)
    return fouroversix.candidates(values, largest)


# --- losses --------------------------------------------------------------------------------------------------------


def by_torch(weight: Tensor, amax: Tensor, largest: float) -> Tensor:
    """E4M3 scales (rows, columns / 16) of a weight of any device and its block maxima."""
    found = torch.empty(amax.shape, dtype=torch.uint8, device=weight.device)

    def work(rows: slice) -> None:
        peaks = amax[rows].float().cpu().numpy()
        codes, steps = (torch.from_numpy(part).to(weight.device) for part in fouroversix.candidates(peaks, largest))
        values = weight[rows].float().abs().view(-1, amax.shape[1], NVFP4_BLOCK)
        six, four = (_loss(values, steps[..., number]) for number in range(2))
        found[rows] = torch.where(four < six, codes[..., 1], codes[..., 0])

    gpu = weight.device.type != "cpu"
    chunks = row_chunks(weight.shape[0], weight.shape[1], _GPU_CHUNK if gpu else _CPU_CHUNK)
    if gpu:
        for rows in chunks:
            work(rows)
    else:
        at_once(chunks, work)
    return found.view(torch.float8_e4m3fn)


def _loss(values: Tensor, steps: Tensor) -> Tensor:
    step = steps.unsqueeze(-1)
    error = values - torch.where(step > 0, portable._e2m1(values / step)[1] * step, 0)
    error.mul_(error)
    loss = error[..., 0].clone()
    for place in range(1, NVFP4_BLOCK):  # in this order on every device
        loss += error[..., place]
    return loss
