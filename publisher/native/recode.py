"""Weights stored otherwise than a job's other ones: FP8 beside FP4, and the experts of a layer as one NVFP4 tensor.

FP8: `code = E4M3(w / scale)` with `scale = largest / 448`, over the fused layer or, by rows, over each row; an all-zero
one counts as if its largest weight were 1. A stack is written as modelopt 0.47 exports gpt-oss's: packed codes
(E, in / 2, out) and block scales (E, in / 16, out), both turned around, and one global scale for all experts. Experts
in MXFP4 keep their codes wherever the scales reach (`formats.recast`); others are quantized in the job's mode. A few
experts are in memory at a time, and the block scales of all.
Refused: NaN and infinite weights, a NaN block scale, by name.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.layout import TensorSpec
from publisher.checkpoint.statistics import Observed, Statistics
from publisher.checkpoint.stored import StoredWeight
from publisher.errors import CheckpointError
from publisher.formats import FORMATS, e4m3, recast
from publisher.formats.blocks import TensorError
from publisher.formats.fp8 import BESIDE
from publisher.native.job import Job
from publisher.native.source import SourceTensors

FP8, STACK = "fp8", "stack"
_AT_ONCE = min(os.cpu_count() or 1, 8)  # experts whose codes are worked on at a time
_LARGEST = np.float32(e4m3.MAX)
_SUFFIXES = {"payload": "", "block_scale": "_weight_scale", "global_scale": "_weight_scale_2"}
INPUT = {FP8: ".input_scale", STACK: "_input_scale"}
Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


def specs(form: str, ref: TensorRef, job: Job, *, inputs: bool) -> tuple[TensorSpec, ...]:
    """What a weight is stored as.

    Args:
        form: FP8 or STACK.
        ref: the weight in the source.
        job: gives the layout.
        inputs: whether activations are calibrated.
    """
    if form == FP8:
        how, (rows, columns) = BESIDE[job.layout], ref.shape
        module = ref.name.removesuffix(".weight")
        found = [TensorSpec(ref.name, "F8_E4M3", (rows, columns))]
        found.append(TensorSpec(f"{module}.weight_scale", "F32", how.scale_shape(rows)))
        return (*found, *((TensorSpec(f"{module}{INPUT[FP8]}", "F32", ()),) if how.inputs else ()))
    spec, (count, rows, columns) = FORMATS["nvfp4"], ref.shape
    shapes = {"U8": (count, columns // 2, rows), spec.scale_dtype: (count, columns // spec.block, rows), "F32": ()}
    written = [
        TensorSpec(f"{ref.name}{suffix}", dtype, shape)
        for suffix, (dtype, shape) in zip(_SUFFIXES.values(), shapes.items(), strict=True)
    ]
    return (*written, *((TensorSpec(f"{ref.name}{INPUT[STACK]}", "F32", ()),) if inputs else ()))


# --- FP8 -----------------------------------------------------------------------------------------------------------


def fp8_scale(weight: Tensor, largest: Tensor, *, by_row: bool) -> Tensor:
    """The scale of a matrix, float32: () or (rows, 1).

    Args:
        weight: (rows, columns), finite.
        largest: fp32 scalar, the largest magnitude of the fused layer.
        by_row: one scale a row instead.
    """
    peak = weight.abs().amax(dim=1, keepdim=True).float() if by_row else largest
    return torch.where(peak > 0, peak, torch.ones_like(peak)) / torch.tensor(_LARGEST, device=peak.device)


def fp8_codes(weight: Tensor, scale: Tensor) -> tuple[Tensor, list[float]]:
    """E4M3 codes (rows, columns), and the sums of the squared errors and of the squared weights."""
    codes = torch.empty(weight.shape, dtype=torch.float8_e4m3fn, device=weight.device)
    error = torch.zeros((), dtype=torch.float64, device=weight.device)
    square = torch.zeros_like(error)
    step = max(1, (1 << 22) // max(weight.shape[1], 1))
    for begin in range(0, weight.shape[0], step):
        rows = slice(begin, begin + step)
        exact = weight[rows].float()
        own = scale[rows] if scale.dim() else scale
        codes[rows] = (exact / own).clamp(-e4m3.MAX, e4m3.MAX).to(torch.float8_e4m3fn)
        error += (codes[rows].float() * own - exact).double().square().sum()
        square += exact.double().square().sum()
    return codes, [float(error), float(square)]


def fp8_input_scale(amax: np.float32) -> np.float32:
    """What the inputs of an FP8 layer are divided by, as modelopt stores it: `amax / 448` in float32."""
    return np.float32(amax / _LARGEST)


# --- statistics ----------------------------------------------------------------------------------------------------


def with_stacks(seen: Statistics, stacks: Mapping[str, tuple[StoredWeight, ...]]) -> Statistics:
    """The statistics with every stack as a module of its own: the largest input of any of its experts.

    All experts of a stack have one input scale, so an expert that no token reached needs no range of its own.
    """
    found: dict[str, Observed] = dict(seen.modules)
    for name in stacks:
        layer, _, projection = name.rpartition(".")
        last = ("down_proj",) if projection == "down_proj" else ("gate_up_proj", "gate_proj", "up_proj")
        names = [f"{layer}.{number}.{part}" for number in range(len(stacks[name])) for part in last]
        own = [seen.modules[one] for one in names if one in seen.modules]
        if own and name not in found:
            found[name] = Observed(max(one.amax for one in own), sum(one.tokens for one in own))
    return replace(seen, modules=found)


# --- stacks --------------------------------------------------------------------------------------------------------


class Stack:
    """The experts of one layer's projection, written as one tensor.

    Args:
        source: where they are.
        ref: the stack, one of `source.stacks`.
        device: where the arithmetic of experts that are not in MXFP4 runs.
        stop: called before each expert; raises to end the run.
    """

    def __init__(self, source: SourceTensors, ref: TensorRef, device: torch.device, stop: Callable[[], None]) -> None:
        self._source, self._ref, self._device, self._stop = source, ref, device, stop
        self._experts = source.stacks[ref.name]
        self._sums, self._rounded = np.zeros(2), 0
        self._scales: list[bytes] = []

    @property
    def recast(self) -> bool:
        """Whether the experts are stored in MXFP4, so that their codes can be taken over."""
        return self._experts[0].form == "mxfp4"

    def largest(self) -> Tensor:
        """fp32 scalar, the largest magnitude of all experts.

        Raises:
            CheckpointError: a weight is NaN or infinite.
        """
        found = torch.zeros((), device=self._device)
        for expert in self._experts:
            self._stop()
            weight = self._weight(expert)
            peak = weight.abs().amax().float()
            if not torch.isfinite(peak):
                bad = int((~torch.isfinite(weight)).sum())
                raise _not_finite(
                    expert, f" holds {bad:,} NaN or infinite values of {weight.numel():,}", "say --on-nan keep."
                )
            found = torch.maximum(found, peak)
        return found

    def exponent(self) -> int:
        """Of the global scale that MXFP4 experts are taken over under.

        Raises:
            CheckpointError: a block scale is NaN.
        """
        tops: list[int] = []
        for expert in self._experts:
            self._stop()
            try:
                top = recast.top_exponent(self._source.scale_codes(expert))
            except TensorError as error:
                raise _not_finite(
                    expert,
                    f": {error.message.rstrip('.')}",
                    "start from another source: blocks are not kept beside others.",
                ) from error
            tops += [] if top is None else [top]
        return recast.global_exponent(max(tops, default=None))

    def taken_over(self, exponent: int) -> Iterator[bytes]:
        """The codes of every expert in MXFP4, turned around; `scales` are complete once they are."""

        def work(expert: StoredWeight) -> tuple[bytes, recast.Recast]:
            made = recast.recast(*self._source.codes(expert), exponent)
            return made.payload.T.tobytes(), made

        with ThreadPoolExecutor(_AT_ONCE, "recast") as pool:
            ahead = deque(pool.submit(work, expert) for expert in self._experts[:_AT_ONCE])
            for number in range(len(self._experts)):
                self._stop()
                payload, made = ahead.popleft().result()
                following = self._experts[number + _AT_ONCE : number + _AT_ONCE + 1]
                ahead.extend(pool.submit(work, expert) for expert in following)
                self._sums += made.error, made.weight
                self._rounded += made.rounded
                self._scales.append(made.block_scales.T.tobytes())
                yield payload

    def quantized(self, encode: Encode) -> Iterator[bytes]:
        """The same of experts that are quantized; `encode` makes codes and block scales of a weight."""
        for expert in self._experts:
            self._stop()
            payload, scales = encode(self._weight(expert))
            self._scales.append(_turned(scales))
            yield _turned(payload)

    def scales(self) -> list[bytes]:
        """The block scales of every expert, turned around."""
        return self._scales

    def note(self) -> list[float] | None:
        """Squared error, squared weights, blocks rounded and blocks in all; of what was taken over."""
        blocks = sum(expert.rows * expert.columns for expert in self._experts) // FORMATS["mxfp4"].block
        found = [*self._sums.tolist(), float(self._rounded), float(blocks)]
        return found if all(map(math.isfinite, found)) else None

    def named(self, role: str) -> str:
        """What a tensor of the stack is called."""
        return f"{self._ref.name}{_SUFFIXES[role]}"

    def _weight(self, expert: StoredWeight) -> Tensor:
        return self._source.matrix(expert).to(self._device)


def _turned(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().cpu().view(torch.uint8).T.contiguous().numpy().data)


def _not_finite(expert: StoredWeight, said: str, otherwise: str) -> CheckpointError:
    return CheckpointError(
        f"{expert.ref.shard}: {expert.name}{said}; it cannot be quantized.",
        hint=f"Download the shard again; if they are really in the model, {otherwise}",
    )


def accounts(notes: Mapping[str, Any], repacked: int) -> dict[str, Any] | None:
    """What became of codes that could be taken over: of stacks by name, of others how many.

    Args:
        notes: what was kept beside the tensors.
        repacked: modules whose codes were copied.
    """
    stacks = {name: note for name, note in sorted(notes.items()) if note and len(note) == 4}
    if not stacks and not repacked:
        return None
    rounded = [
        {"module": name.removesuffix("_weight_scale"), "blocks": int(note[3]), "rounded": int(note[2])}
        for name, note in stacks.items()
        if note[2]
    ]
    return {"copied": repacked, "recast": len(stacks), "lossless": len(stacks) - len(rounded), "rounded": rounded}
