"""Three ways to the block scales of the smallest squared error; the codes are the same.

`search` is what the quantizer does. `all 126, same vectors` computes every candidate in its vector code, sixteen at a
time. `all 126, loops` is the documented algorithm written down in numba: for every block, candidate and weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Threads = Callable[[Callable[[slice], Any]], Any]


def contenders(weight: Any, over: Threads) -> dict[str, Callable[[], Any]]:
    """Name to what returns the codes, for one BF16 matrix; `over` gives chunks of rows to threads."""
    import torch

    from publisher.formats import sweep
    from publisher.native import kernels
    from publisher.native.kernels import compiled, search, thresholds
    from publisher.native.kernels.machine import machine_code

    amax = kernels.block_amax(weight, kernels.NVFP4_BLOCK)
    largest = kernels.largest(amax)
    scale = float(kernels.global_scale(largest))
    bits, peaks = (tensor.view(torch.int16).numpy().view(np.uint16) for tensor in (weight, amax))
    values, heights = weight.float().numpy(), amax.float().numpy()
    scales, _ = thresholds.nvfp4_rules(scale, "BF16")
    found, steps = search.candidates(float(largest)), sweep.candidate_steps(float(largest))
    loops = machine_code(_loops)

    def maker(work: Callable[[slice, Any], None]) -> Callable[[], Any]:
        codes = np.empty(peaks.shape, np.uint8)

        def run() -> Any:
            over(lambda rows: work(rows, codes[rows]))
            return codes

        return run

    def searched(rows: slice, codes: Any) -> None:
        compiled.scale_codes(peaks[rows], scales, codes)
        search.best_codes(bits[rows], heights[rows], found, codes)

    return {
        "search": maker(searched),
        "all 126, same vectors": maker(lambda rows, codes: search.all_tried(bits[rows], found, codes)),
        "all 126, loops": maker(lambda rows, codes: loops(values[rows].reshape(-1), steps, codes.reshape(-1))),
    }


def _loops(values: Any, steps: Any, codes: Any) -> None:
    for block in range(codes.shape[0]):
        best = np.float32(np.inf)
        for number in range(steps.shape[0]):
            step, loss = steps[number], np.float32(0)
            for place in range(16):
                magnitude = abs(values[block * 16 + place])
                scaled = magnitude / step
                if scaled <= 0.25:
                    element = np.float32(0)
                elif scaled < 0.75:
                    element = np.float32(0.5)
                elif scaled <= 1.25:
                    element = np.float32(1)
                elif scaled < 1.75:
                    element = np.float32(1.5)
                elif scaled <= 2.5:
                    element = np.float32(2)
                elif scaled < 3.5:
                    element = np.float32(3)
                elif scaled <= 5:
                    element = np.float32(4)
                else:
                    element = np.float32(6)
                error = magnitude - element * step
                loss += error * error
            if loss < best:
                best = loss
                codes[block] = number + 1
