"""Inputs of packed layers as an FP4 kernel takes them: quantized in blocks, here at once replaced by their values.

While it is active, every product with a weight that the checkpoint stores in FP4 sees its input rounded: NVFP4 under
the stored global scale of the input and a scale of each 16 values computed on the spot, MXFP4 under one of each 32
values, as the checkpoint declares. The weights are those of `dequantized`, so that what is measured is W4A4 but for the
order in which a kernel adds. Experts are computed one after the other (`eager`), so that each has its own scale.

Refused: a checkpoint that declares no quantized activations, a layer without its stored scale, a layer that was never
multiplied with.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.errors import CheckpointError, EngineError, PublisherError
from publisher.formats import e2m1, e8m0, floats
from publisher.formats.spec import LAYOUTS, Layout
from publisher.native import kernels
from publisher.native.naming import expert_modules, linear_modules, origins
from publisher.native.observe import PRODUCTS
from publisher.native.resident import show_experts

Round = functools.partial[Tensor]
Place = tuple[int, int]  # where a matrix begins: its storage, and the offset in there


class SimulatedActivations(TorchFunctionMode):
    """Rounds the inputs of a model's packed layers while it is entered.

    Args:
        model: what `dequantized.load_model` made of `folder`.
        folder: the quantized checkpoint.

    Raises:
        PublisherError: the checkpoint does not quantize activations.
        CheckpointError: a layer's input scale is missing or no number.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        super().__init__()
        rounding = _rounding(open_checkpoint(folder))
        if not rounding:
            raise PublisherError(
                f"{folder} is weight-only; its activations stay in 16 bits.",
                hint="Measure its weight-only perplexity, or quantize with calibrated or dynamic activations.",
            )
        show_experts(model)
        self._rounding: dict[Place, Round] = dict(_placed(model, rounding))
        self._used: set[Place] = set()
        told = sorted(f"{name} {rounding.func.__name__} {rounding.keywords}" for name, rounding in rounding.items())
        self.description = hashlib.sha256("\n".join(told).encode()).hexdigest()
        """Of what is done to which input: models of equal weights and descriptions compute the same."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass every call on, a product with a packed weight with its input rounded."""
        if func in PRODUCTS and len(args) >= 2 and isinstance(args[1], Tensor) and args[1].dim() == 2:
            place = _place(args[1])
            rounded = self._rounding.get(place)
            if rounded is not None:
                self._used.add(place)
                args = (rounded(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))

    def require_used(self) -> None:
        """Make sure that what was measured is what is meant; experts that no token reached are no matter.

        Raises:
            EngineError: no product was seen with one of the packed layers.
        """
        missed = [place for place in self._rounding if place not in self._used]
        alone = {place[0] for place in self._used}
        lost = [place for place in missed if place[0] not in alone]
        if lost:
            raise EngineError(
                f"{len(lost)} of {len(self._rounding)} packed layers were computed in a way that does not show.",
                hint="Their activations cannot be simulated; measure the checkpoint in a serving engine.",
            )


# --- what a checkpoint says ----------------------------------------------------------------------------------------


def _rounding(checkpoint: Checkpoint) -> dict[str, Round]:
    """Module to what happens to its inputs; empty where they stay as they are."""
    quant = checkpoint.quant
    layout = LAYOUTS.get((quant.dialect, quant.format or "")) if quant else None
    if quant is None or layout is None or quant.activations in (None, "none"):
        return {}
    packed = [module.name for module in checkpoint.modules.values() if module.quantized]
    if layout.format == "mxfp4":
        return dict.fromkeys(packed, functools.partial(mxfp4_values, mode=_mode(quant.raw)))
    producer = "compressed-tensors" if layout.direction == "divide" else "native"
    scales = {name: torch.tensor(_input_scale(checkpoint, name, layout)) for name in packed}
    return {name: functools.partial(nvfp4_values, scale=scale, producer=producer) for name, scale in scales.items()}


def _mode(raw: Mapping[str, Any]) -> e8m0.Mode:
    """Quark says how it scales activations; compressed-tensors has the one way."""
    whole = raw.get("global_quant_config")
    inputs = whole.get("input_tensors") if isinstance(whole, Mapping) else None
    said = inputs.get("scale_calculation_mode") if isinstance(inputs, Mapping) else None
    return next((mode for mode in e8m0.MODES if mode == said), "even")


def _input_scale(checkpoint: Checkpoint, name: str, layout: Layout) -> float:
    """The stored scale of a module's input: `amax / 2688`, or `2688 / amax` where the layout divides."""
    role = layout.find("input_scale")
    ref: TensorRef | None = checkpoint.modules[name].tensors.get(role.suffix) if role else None
    values: Any = floats.decode(checkpoint.read(ref), ref.dtype, ref.shape).reshape(-1) if ref else []
    if len(values) != 1 or not 0 < values[0] < float("inf"):
        found = "is missing" if ref is None else f"is {', '.join(map(str, values[:3]))}"
        raise CheckpointError(
            f"{name}.{role.suffix if role else 'input_scale'} {found}; W4A4 needs one positive number.",
            hint="Quantize again, or validate the checkpoint.",
        )
    return float(values[0])


# --- rounding ------------------------------------------------------------------------------------------------------


def nvfp4_values(inputs: Tensor, *, scale: Tensor, producer: str = "native") -> Tensor:
    """Inputs (..., K) as NVFP4 holds them, in their own dtype; beyond the range of the scale they saturate.

    Args:
        inputs: BF16, F16 or F32, K a multiple of 16.
        scale: fp32 scalar as stored: the largest input expected over 2688, for compressed-tensors 2688 over it.
        producer: whose arithmetic, as in `kernels.quantize_nvfp4`.
    """
    rows = _rows(inputs)
    payload, scales = kernels.quantize_nvfp4(rows, _amax(rows, kernels.NVFP4_BLOCK), scale, producer=producer)
    wide, scale = scales.float(), scale.to(inputs.device)
    steps = wide / scale if producer == "compressed-tensors" else wide * scale
    return _values(payload, steps, kernels.NVFP4_BLOCK, inputs)


def mxfp4_values(inputs: Tensor, *, mode: e8m0.Mode = "even") -> Tensor:
    """Inputs (..., K) as MXFP4 holds them, in their own dtype; K is a multiple of 32."""
    rows = _rows(inputs)
    payload, codes = kernels.quantize_mxfp4(rows, _amax(rows, kernels.MXFP4_BLOCK), mode)
    steps = torch.from_numpy(e8m0.DECODE).to(inputs.device)[codes.to(torch.int64)]
    return _values(payload, steps, kernels.MXFP4_BLOCK, inputs)


def _rows(inputs: Tensor) -> Tensor:
    return inputs.detach().reshape(-1, inputs.shape[-1]).contiguous()


def _amax(rows: Tensor, block: int) -> Tensor:
    amax = kernels.block_amax(rows, block)
    if not bool(torch.isfinite(amax).all()):
        raise CheckpointError(
            "An activation is NaN or infinite: the model is broken.", hint="Run `publisher validate --level full`."
        )
    return amax


def _values(payload: Tensor, steps: Tensor, block: int, like: Tensor) -> Tensor:
    levels = torch.from_numpy(e2m1.DECODE).to(like.device)
    codes = torch.stack((payload & 15, payload >> 4), dim=-1).to(torch.int64)
    values = levels[codes].view(payload.shape[0], -1, block) * steps.unsqueeze(-1)
    return values.to(like.dtype).view(like.shape)


# --- where the weights lie -----------------------------------------------------------------------------------------


def _placed(model: Any, rounding: Mapping[str, Round]) -> Iterator[tuple[Place, Round]]:
    """Where each packed weight lies in the model's memory, and what happens to its input."""
    parameters = dict(model.named_parameters())
    for name, tensors in origins(model, [f"{module}.weight" for module in rounding]).items():
        parameter = parameters.get(name)
        if parameter is None:
            continue
        if parameter.dim() == 2:
            yield _place(parameter), rounding[linear_modules(tensors)[0]]
        elif parameter.dim() == 3:
            found = expert_modules(name.rpartition(".")[2], parameter.shape[0], tensors) or {}
            for number, modules in found.items():
                yield _place(parameter[number]), rounding[modules[0]]


def _place(weight: Tensor) -> Place:
    return int(weight.untyped_storage().data_ptr()), int(weight.storage_offset())
