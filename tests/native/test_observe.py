"""What is seen of a model that runs: matrices and stacks of experts, whatever product they are used in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from publisher.errors import CheckpointError, EngineError
from publisher.native.observe import Observer


class Experts(nn.Module):
    def __init__(self, product: str) -> None:
        super().__init__()
        self.up_proj = nn.Parameter(torch.randn(3, 8, 4))
        self.down_proj = nn.Parameter(torch.randn(3, 4, 8))
        self.product = product

    def forward(self, x: Tensor, expert: int) -> Tensor:
        up, down = self.up_proj[expert], self.down_proj[torch.tensor(expert)]
        if self.product == "linear":
            return nn.functional.linear(nn.functional.linear(x, up), down)
        if self.product == "matmul":
            return torch.matmul(x @ up.T, down.transpose(0, 1))
        if self.product == "mm":
            return torch.mm(x.mm(up.T), down.T)
        return torch.einsum("ti,oi->to", torch.einsum("ti,oi->to", x, up), down)


class Model(nn.Module):
    def __init__(self, product: str = "linear") -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.conv = nn.Conv1d(4, 4, 1)
        self.first = nn.Linear(4, 4)
        self.experts = Experts(product)

    def forward(self, x: Tensor, expert: int) -> Any:
        return self.experts(self.first(x), expert)


def place(observer: Observer, parameter: str, expert: int = 0) -> int:
    return observer.slots[parameter].first + expert


@pytest.mark.parametrize("product", ["linear", "matmul", "mm"])
def test_a_product_is_known_by_the_expert_it_uses(product: str) -> None:
    torch.manual_seed(0)
    model = Model(product)
    observer = Observer(model)
    inputs = [torch.randn(n, 4) for n in (2, 5)]
    for x in inputs:
        model(x, 1)
    inner = [model.first(x) for x in inputs]
    amax = observer.amax()
    assert amax[place(observer, "first.weight")] == max(x.abs().max().item() for x in inputs)
    assert amax[place(observer, "experts.up_proj", 1)] == pytest.approx(max(x.abs().max().item() for x in inner))
    assert [observer.tokens[place(observer, f"experts.{p}_proj", e)] for p in ("up", "down") for e in range(3)] == [
        0, 7, 0, 0, 7, 0,
    ]  # fmt: skip
    assert set(observer.slots) == {"first.weight", "experts.up_proj", "experts.down_proj"}


def test_a_product_that_does_not_show_is_refused() -> None:
    model = Model("einsum")
    observer = Observer(model)
    model(torch.randn(2, 4), 0)
    with pytest.raises(EngineError, match=r"experts\.up_proj was used, but its products could not be observed"):
        observer.amax()


def test_inputs_that_are_no_numbers_are_refused() -> None:
    model = Model()
    observer = Observer(model)
    model(torch.tensor([[1.0, 2.0, float("inf"), 0.0]]), 0)
    with pytest.raises(CheckpointError, match=r"first first\.weight"):
        observer.amax()


def test_nothing_watches_after_the_end_and_results_are_the_same() -> None:
    torch.manual_seed(0)
    model, x = Model(), torch.randn(3, 4)
    before = model(x, 2)
    observer = Observer(model)
    assert torch.equal(model(x, 2), before)
    observer.close()
    seen = list(observer.tokens)
    model(x, 2)
    assert observer.tokens == seen


def test_an_error_in_the_middle_ends_the_watch_over_products() -> None:
    model = Model()
    observer = Observer(model)
    with pytest.raises(IndexError):
        model(torch.randn(2, 4), 9)
    seen = list(observer.tokens)
    nn.functional.linear(torch.randn(2, 4), model.experts.up_proj[0])
    assert observer.tokens == seen


def test_no_tokens_are_no_observation() -> None:
    model = Model()
    observer = Observer(model)
    model(torch.empty(0, 4), 0)
    assert observer.tokens == [0] * observer.size


def test_a_kept_state_is_gone_on_from() -> None:
    torch.manual_seed(0)
    model = Model()
    first, second = torch.randn(2, 4), torch.randn(3, 4)
    whole = Observer(model)
    for x in (first, second):
        model(x, 0)
    whole.close()
    half = Observer(model)
    model(first, 0)
    half.close()
    rest = Observer(model)
    rest.restore(half.amax(), half.tokens)
    model(second, 0)
    assert (rest.amax(), rest.tokens) == (whole.amax(), whole.tokens)
