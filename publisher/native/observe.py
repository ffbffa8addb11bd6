"""The largest input of every matrix of a model and the tokens it saw, taken while the model runs.

Layers with a two-dimensional weight are observed at their own door. Experts are kept in three-dimensional parameters
and multiplied inside one module: there every matrix product is looked at, and the expert is known by where in the
stack the multiplied matrix begins. Maxima are float32 and stay where the model is; nothing of the computation changes.
Where second moments are asked for, the squares of every input are added too: float32 within one product, float64 over
all of them, eight bytes for every input of every matrix that saw a token.

Refused: NaN and infinite inputs, and experts that are multiplied in a way that does not show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from publisher.errors import CheckpointError, EngineError

PRODUCTS = frozenset(
    {
        nn.functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm,
        torch.bmm, torch.Tensor.bmm,
    }
)  # fmt: skip
NOT_MATRICES = (nn.Embedding, nn.modules.conv._ConvNd)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one matrix's, or one stack's, numbers lie: `parameter` in memory, the first of `count` places."""

    parameter: str
    first: int
    count: int
    stacked: bool


class Observer:
    """Watches a model from now until `close`.

    Args:
        model: any module; its matrices and stacks of experts are found by their shapes.
        second_moments: whether squares are added up too, input by input.
    """

    def __init__(self, model: nn.Module, *, second_moments: bool = False) -> None:
        self.squares: dict[int, Tensor] = {}
        self._second_moments = second_moments
        self.slots: dict[str, Slot] = {}
        self.size = 0
        self._handles: list[Any] = []
        self._maxima: dict[torch.device, Tensor] = {}
        self._ran: set[str] = set()
        for name, module in model.named_modules():
            stacks = _stacks(module)
            if stacks:
                slots = {stack: self._slot(f"{name}.{stack}", size, stacked=True) for stack, size in stacks.items()}
                self._watch_experts(module, slots)
            elif _is_matrix(module):
                self._watch_matrix(module, self._slot(f"{name}.weight", 1, stacked=False))
        self.tokens = [0] * self.size

    def _slot(self, parameter: str, count: int, *, stacked: bool) -> Slot:
        self.slots[parameter] = Slot(parameter, self.size, count, stacked)
        self.size += count
        return self.slots[parameter]

    # --- watching ----------------------------------------------------------------------------------------------

    def _watch_matrix(self, module: nn.Module, slot: Slot) -> None:
        def before(_: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            value = next((x for x in (*inputs, *named.values()) if isinstance(x, Tensor)), None)
            if value is not None and value.is_floating_point() and value.shape[-1:] == module.weight.shape[1:]:
                self._see(slot.first, value, value.numel() // max(value.shape[-1], 1))

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))

    def _watch_experts(self, module: nn.Module, slots: Mapping[str, Slot]) -> None:
        def see(value: Any, weight: Any) -> None:
            for attribute, slot in slots.items():
                stack = getattr(module, attribute)
                if isinstance(weight, Tensor) and _same_memory(weight, stack):
                    self._see_experts(slot, stack, value, weight)

        looking = _Products(see)

        def before(*_: Any) -> None:
            self._ran.update(slot.parameter for slot in slots.values())
            looking.__enter__()

        def after(*_: Any) -> None:
            looking.__exit__(None, None, None)

        self._handles.append(module.register_forward_pre_hook(before))
        self._handles.append(module.register_forward_hook(after, always_call=True))

    def _see_experts(self, slot: Slot, stack: Tensor, value: Tensor, weight: Tensor) -> None:
        if weight.dim() == 2:
            number = (weight.storage_offset() - stack.storage_offset()) // max(stack.stride(0), 1)
            self._see(slot.first + number, value, value.numel() // max(value.shape[-1], 1))
        elif weight.dim() == 3 and value.dim() == 3:  # all experts at once; tokens that are not an expert's are zero
            rows = (value != 0).any(-1).sum(-1).tolist()
            for number, (own, count) in enumerate(zip(value, rows, strict=True)):
                self._see(slot.first + number, own, count)

    def _see(self, place: int, value: Tensor, tokens: int) -> None:
        if not value.numel() or not tokens:
            return
        with torch.no_grad():
            lowest, highest = torch.aminmax(value.detach())
            largest = torch.maximum(-lowest, highest).float()
            maxima = self._maxima.get(value.device)
            if maxima is None:
                maxima = self._maxima[value.device] = torch.zeros(self.size, device=value.device)
            maxima[place] = torch.maximum(maxima[place], largest)
            if self._second_moments:
                self._add_squares(place, value.detach())
        self.tokens[place] += tokens

    def _add_squares(self, place: int, value: Tensor) -> None:
        rows = value.reshape(-1, value.shape[-1]).float()
        added = rows.square().sum(0).double()
        before = self.squares.get(place)
        self.squares[place] = added if before is None else before.to(added.device).add_(added)

    # --- what was seen -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def amax(self) -> list[float]:
        """The largest input at every place, float32 values.

        Raises:
            CheckpointError: a NaN or infinite one; the first is named.
            EngineError: experts ran, and none of their products was seen.
        """
        total = torch.zeros(self.size)
        for maxima in self._maxima.values():
            total = torch.maximum(total, maxima.cpu())
        wrong = (~torch.isfinite(total)).nonzero().flatten().tolist()
        if wrong:
            first = next(slot for slot in self.slots.values() if slot.first <= wrong[0] < slot.first + slot.count)
            raise CheckpointError(
                f"{len(wrong)} matrices of the model have NaN or infinite inputs, first {first.parameter}.",
                hint="The model overflows in its dtype, or a weight is damaged; run `publisher validate` on it.",
            )
        hidden = [slot for slot in self.slots.values() if slot.parameter in self._ran and not any(self._own(slot))]
        if hidden:
            raise EngineError(
                f"{hidden[0].parameter} was used, but its products could not be observed ({len(hidden)} such stacks).",
                hint="This model computes its experts in a way that is not known here; use the engine modelopt.",
            )
        values: list[float] = total.tolist()
        return values

    def _own(self, slot: Slot) -> Iterator[int]:
        yield from self.tokens[slot.first : slot.first + slot.count]

    def restore(self, amax: list[float], tokens: list[int], squares: Mapping[int, Tensor] | None = None) -> None:
        """Go on from what was seen before, of the same model."""
        self._maxima[torch.device("cpu")] = torch.tensor(amax, dtype=torch.float32)
        self.tokens = list(tokens)
        self.squares = dict(squares or {})


class _Products(TorchFunctionMode):
    """Shows both sides of every matrix product to `see`."""

    def __init__(self, see: Callable[[Any, Any], None]) -> None:
        super().__init__()
        self._see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS and len(args) >= 2:
            self._see(args[0], args[1])
        return func(*args, **(kwargs or {}))


def _stacks(module: nn.Module) -> dict[str, int]:
    """Three-dimensional expert weights of a module itself, with the number of experts."""
    own = {name: parameter for name, parameter in module.named_parameters(recurse=False) if parameter.dim() == 3}
    return {name: parameter.shape[0] for name, parameter in own.items()} if "down_proj" in own else {}


def _is_matrix(module: nn.Module) -> bool:
    if isinstance(module, NOT_MATRICES) or any(True for _ in module.children()):
        return False
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 2


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and _address(one) == _address(other)


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())
