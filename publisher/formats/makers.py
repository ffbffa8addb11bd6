"""Which arithmetic made stored blocks out of their source: producer, mode, and how many blocks it does not explain.

Two questions are asked apart. Are the scales those of a known rule (`max`, four-over-six, an MSE sweep, one of the four
MX modes)? And is every code the nearest one under the scale that is stored beside it? The second holds for every
producer that rounds to nearest, whatever its scales; GPTQ and AutoRound move codes on purpose. Order of operations
moves an E4M3 scale by one code and decides ties; neither counts as wrong here.

Scales of NVFP4 are judged by the stored global scale, so that a wrong global scale is not reported twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from publisher.formats import e2m1, e4m3, e8m0, nvfp4
from publisher.formats.blocks import Float32Array, UInt8Array, block_amax
from publisher.formats.spec import FORMATS, Direction

Mask = npt.NDArray[np.bool_]

OWN = "own scales"
UNEXPLAINED = 0.05  # share of scales a rule may miss and still be the rule
SWEPT = 256  # blocks of a sample that are swept for their best scale
_SWEEP_SHARE = 0.9  # of the swept blocks must have a best scale
_TIE = np.float32(1e-4)  # how much farther than the nearest code a code may be, in units of the element


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Some rows of a stored weight beside their source.

    Args:
        format: nvfp4 or mxfp4.
        weights: float32 (n, in), the source.
        payload: uint8 (n, in / 2).
        scales: uint8 (n, in / block).
        global_scale: the stored scalar; None for MX.
        direction: which way the global scale goes.
    """

    format: str
    weights: Float32Array
    payload: UInt8Array
    scales: UInt8Array
    global_scale: np.float32 | None = None
    direction: Direction | None = None

    @property
    def block(self) -> int:
        """Weights that share a scale."""
        return FORMATS[self.format].block

    def steps(self) -> Float32Array:
        """What one unit of an element is worth in each block, float32 (n, in / block)."""
        if self.global_scale is None:
            return e8m0.decode(self.scales)
        values = e4m3.decode(self.scales)
        with np.errstate(all="ignore"):
            return values / self.global_scale if self.direction == "divide" else values * self.global_scale

    def values(self, payload: UInt8Array | None = None) -> Float32Array:
        """The stored weights, or those another payload stands for, float32 (n, in)."""
        elements = e2m1.decode_packed(self.payload if payload is None else payload)
        grouped = _blocks(elements, self.block)  # a view
        with np.errstate(all="ignore"):
            np.multiply(grouped, self.steps()[:, :, None], out=grouped)
        return elements


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found of a sample's blocks.

    Args:
        maker: the rule the scales follow, such as `modelopt max` or `even`; `own scales` when none.
        blocks: blocks looked at, those without a usable scale or with nothing but zeros left out.
        wrong: blocks that are not explained: their scale is not the maker's, or a code is not the nearest one.
        wrong_codes: those of them that hold a code which is not the nearest under the stored scale.
        unrounded: those of these whose codes are the nearest under the scale before it was rounded.
    """

    maker: str = OWN
    blocks: int = 0
    wrong: int = 0
    wrong_codes: int = 0
    unrounded: int = 0

    @property
    def before_rounding(self) -> bool:
        """Whether the codes as a whole, and not a few by chance, belong to the scales before they were rounded."""
        many = self.wrong_codes >= 8 and self.wrong_codes * 50 >= self.blocks
        return many and self.unrounded * 20 >= self.wrong_codes * 19


def judge(sample: Sample) -> Verdict:
    """Find the arithmetic that explains most of a sample."""
    steps, maxima = sample.steps(), block_amax(sample.weights, sample.block)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(steps) & (steps > 0) & np.isfinite(maxima) & (maxima > 0)
    count = int(usable.sum())
    if not count:
        return Verdict()
    maker, wrong = _scales(sample, maxima, usable)
    far = _far(sample, steps) & usable
    unrounded = far & ~_far(sample, maxima / np.float32(e2m1.MAX)) if far.any() else far
    return Verdict(
        maker=maker,
        blocks=count,
        wrong=int((wrong | far).sum()),
        wrong_codes=int(far.sum()),
        unrounded=int(unrounded.sum()),
    )


def _far(sample: Sample, steps: Float32Array) -> Mask:
    """Blocks holding a code that is not the nearest to its weight under these steps."""
    with np.errstate(all="ignore"):
        scaled: Float32Array = _blocks(sample.weights, sample.block) / steps[:, :, None]
        stored = _blocks(e2m1.decode_packed(sample.payload), sample.block)
        nearest = e2m1.decode(e2m1.encode(scaled))
        room = _TIE * np.maximum(np.abs(scaled), np.float32(1))
        beyond = np.abs(stored - scaled) > np.abs(nearest - scaled) + room
    far: Mask = beyond.any(axis=2)
    return far


def _blocks(rows: Float32Array, block: int) -> Float32Array:
    return rows.reshape(rows.shape[0], -1, block)


# --- scales --------------------------------------------------------------------------------------------------------


def _scales(sample: Sample, maxima: Float32Array, usable: Mask) -> tuple[str, Mask]:
    """The rule that explains most of the scales, and which it does not; `own scales` when none explains enough."""
    mx = sample.global_scale is None
    rules = _mx_rules(maxima, usable, sample.scales) if mx else _nvfp4_rules(sample, maxima)
    missed = {name: wrong & usable for name, wrong in rules.items()}
    best = min(missed, key=lambda name: int(missed[name].sum()))
    if missed[best].sum() <= UNEXPLAINED * usable.sum():
        return best, missed[best]
    nothing = np.zeros_like(usable)
    if not mx and not (_not_four_over_six(sample, maxima) & usable).any():
        return "four-over-six", nothing
    if not mx and _is_swept(sample, usable):
        return "mse", nothing
    return OWN, nothing


def _nvfp4_rules(sample: Sample, maxima: Float32Array) -> dict[str, Mask]:
    names = ("modelopt",) if sample.direction == "multiply" else ("compressed-tensors", "compressed-tensors-bf16")
    scale = np.float32(sample.global_scale or 0)
    with np.errstate(all="ignore"):
        return {
            f"{name} max": _apart(sample.scales, nvfp4.block_scale_codes(maxima, scale, nvfp4.POLICIES[name]))
            for name in names
        }


def _apart(stored: UInt8Array, wanted: UInt8Array) -> Mask:
    """More than one code apart: E4M3 codes of positive numbers are in their order."""
    apart: Mask = np.abs(stored.astype(np.int16) - wanted.astype(np.int16)) > 1
    return apart


def _not_four_over_six(sample: Sample, maxima: Float32Array) -> Mask:
    """Scales that map the block's largest weight neither to 6 nor to 4."""
    scale = np.float32(sample.global_scale or 0)
    policy = nvfp4.POLICIES["compressed-tensors" if sample.direction == "divide" else "modelopt"]
    with np.errstate(all="ignore"):
        six = nvfp4.block_scale_codes(maxima, scale, policy)
        four = nvfp4.block_scale_codes(maxima * np.float32(1.5), scale, policy)
    return _apart(sample.scales, six) & _apart(sample.scales, four)


def _is_swept(sample: Sample, usable: Mask) -> bool:
    """Whether the stored scales are, block by block, the best of all 126."""
    rows, columns = np.nonzero(usable)
    picked = slice(None, None, max(1, len(rows) // SWEPT))
    blocks = _blocks(sample.weights, sample.block)[rows[picked], columns[picked]]
    stored = sample.scales[rows[picked], columns[picked]]
    codes = np.arange(1, e4m3.MAX_CODE + 1, dtype=np.uint8)
    scale = np.float32(sample.global_scale or 0)
    with np.errstate(all="ignore"):
        units = e4m3.decode(codes)
        steps = units / scale if sample.direction == "divide" else units * scale
        errors = np.stack([_error(blocks, step) for step in steps], axis=1)
    own = errors[np.arange(len(blocks)), np.clip(stored.astype(np.int64) - 1, 0, len(codes) - 1)]
    good = own <= errors.min(axis=1) * np.float32(1 + 1e-4) + np.float32(1e-30)
    return bool(good.mean() >= _SWEEP_SHARE)


def _error(blocks: Float32Array, step: np.float32) -> Float32Array:
    """Sum of squared errors of each block under one step."""
    rounded = e2m1.decode(e2m1.encode(blocks / step)) * step
    error: Float32Array = np.square(rounded - blocks).sum(axis=1)
    return error


def _mx_rules(maxima: Float32Array, usable: Mask, stored: UInt8Array) -> dict[str, Mask]:
    safe = np.where(usable, maxima, np.float32(0))
    return {mode: stored != e8m0.encode(safe, mode) for mode in e8m0.MODES}
