"""Elements in torch: rounding on the bits against the reference's codes, ties and the largest float included."""

from __future__ import annotations

import numpy as np
import torch

from publisher.formats import e2m1
from publisher.native.kernels import portable


def test_elements_round_as_the_reference_does() -> None:
    magnitudes = np.array([0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6, 7, 3.4e38], np.float32)
    around = np.concatenate(
        [magnitudes, np.nextafter(magnitudes, np.float32(9)), np.nextafter(magnitudes, -magnitudes)]
    )
    codes, values = portable._e2m1(torch.from_numpy(np.abs(around)))
    assert codes.tolist() == e2m1.encode(np.abs(around)).tolist()
    assert values.tolist() == e2m1.decode(codes.numpy()).tolist()
