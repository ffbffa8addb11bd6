"""Names against transformers' own saving: what a model is saved as is what its parameters came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

from publisher.native import naming

KIMI = Path(__file__).parents[1] / "released/sources/kimi"


def stored(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return found


@pytest.fixture(scope="module")
def kimi() -> tuple[Any, dict[str, torch.Tensor]]:
    return transformers.AutoModelForCausalLM.from_pretrained(KIMI, dtype="auto"), stored(KIMI)


def test_every_tensor_has_its_values_where_it_is_said_to_be(kimi: tuple[Any, dict[str, torch.Tensor]]) -> None:
    model, tensors = kimi
    made = naming.origins(model, tensors)
    assert {name for names in made.values() for name in names} == set(tensors)
    present = model.state_dict()
    for parameter, names in made.items():
        if present[parameter].dim() < 3:
            assert torch.equal(present[parameter], tensors[names[0]]), parameter
            continue
        experts = naming.expert_modules(parameter.rpartition(".")[2], present[parameter].shape[0], names)
        assert experts is not None
        for number, modules in experts.items():
            rows = torch.cat([tensors[f"{module}.weight"] for module in modules])  # gate before up, as sorted
            assert torch.equal(present[parameter][number], rows)


def test_a_stack_of_the_checkpoint_gets_the_names_of_experts_stored_alone() -> None:
    assert naming.expert_modules("gate_up_proj", 2, ["a.experts.gate_up_proj"]) == {
        0: ("a.experts.0.gate_proj", "a.experts.0.up_proj"),
        1: ("a.experts.1.gate_proj", "a.experts.1.up_proj"),
    }
    assert naming.expert_modules("up_proj", 1, ["a.experts.up_proj"]) == {0: ("a.experts.0.up_proj",)}
    assert naming.expert_modules("down_proj", 1, ["a.experts.down_proj.weight"]) == {0: ("a.experts.0.down_proj",)}


def test_blocks_and_scales_are_one_stack() -> None:
    """gpt-oss as it is published: two tensors of one stack, of which only the blocks give a name."""
    stored = ["a.experts.gate_up_proj_blocks", "a.experts.gate_up_proj_scales"]
    assert naming.expert_modules("gate_up_proj", 2, stored) == {
        0: ("a.experts.0.gate_proj", "a.experts.0.up_proj"),
        1: ("a.experts.1.gate_proj", "a.experts.1.up_proj"),
    }
    assert naming.expert_modules("down_proj", 1, ["a.down_proj_blocks", "a.down_proj_scales"]) == {
        0: ("a.0.down_proj",)
    }
    assert naming.expert_modules("down_proj", 1, ["a.down_proj_blocks", "b.down_proj_scales"]) is None


def test_names_that_do_not_tell_the_expert_are_not_guessed_at() -> None:
    assert naming.expert_modules("down_proj", 2, ["a.first.weight", "a.second.weight"]) is None
    assert naming.expert_modules("down_proj", 3, [f"a.experts.{n}.w2.weight" for n in (0, 2)]) is None
    assert naming.expert_modules("down_proj", 2, []) is None
