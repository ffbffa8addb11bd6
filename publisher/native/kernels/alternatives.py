"""Of two steps for every NVFP4 block the one with the smaller loss, in machine code.

Both losses are lanes of the window that the sweep of all scales uses, so they are the sums the reference takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from publisher.formats.blocks import Float32Array, UInt8Array
from publisher.native.kernels.machine import machine_code
from publisher.native.kernels.windows import WINDOW, exact_window, float_magnitudes


@machine_code
def _better(weights: Any, codes: Any, steps: Any, out: Any) -> None:
    lanes, losses = np.ones(WINDOW, np.float32), np.empty(WINDOW, np.float32)
    magnitudes = np.empty(WINDOW, np.float32)
    for block in range(out.shape[0]):
        float_magnitudes(weights, block, magnitudes)
        lanes[0], lanes[1] = steps[block, 0], steps[block, 1]
        exact_window(magnitudes, lanes, 0, losses)
        out[block] = codes[block, 1] if losses[1] < losses[0] else codes[block, 0]


def better_codes(weights: Any, codes: UInt8Array, steps: Float32Array, out: UInt8Array) -> None:
    """Choose for every block; of equal losses the first.

    Args:
        weights: flat contiguous bits of finite weights (see `compiled`), sixteen a block.
        codes: uint8 (blocks, 2).
        steps: float32 (blocks, 2), what one unit of an element is worth.
        out: uint8 (blocks,), the chosen codes.
    """
    _better(weights, np.ascontiguousarray(codes), np.ascontiguousarray(steps), out)
