"""The rows and columns every map of a checkpoint is drawn from."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from publisher.checkpoint import stacks
from publisher.checkpoint.census import Census, take
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import module_table
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from tests.builders.tiny import kimi, nvfp4


def census_of(folder: Path, refs: list[TensorRef]) -> Census:
    (folder / "config.json").write_text("{}")
    empty = open_checkpoint(folder)
    return take(
        Checkpoint(
            files=empty.files, shards={}, index=None, config={}, hf_quant_config=None, document_flaws={},
            declarations=(), tensors={ref.name: ref for ref in refs}, modules=module_table(refs),
        )
    )  # fmt: skip


def ref(name: str, dtype: str = "BF16", shape: tuple[int, ...] = (4, 4)) -> TensorRef:
    return TensorRef(name, dtype, shape, "s", 0, 32)


def test_the_decoder_comes_first_and_what_is_outside_layers_last(tmp_path: Path) -> None:
    found = stacks.stacks(take(open_checkpoint(nvfp4(kimi()).write(tmp_path / "kimi"))))
    assert [stack.name for stack in found] == ["language_model.model.layers.*", "vision_tower.encoder.blocks.*", ""]
    names = list(found[0].classes)
    assert names.index("self_attn.o_proj") < names.index("mlp.experts.*.up_proj")


def test_experts_of_a_layer_share_a_row(tmp_path: Path) -> None:
    refs = [ref(f"m.layers.{n}.mlp.experts.{e}.up_proj.weight") for n in range(2) for e in range(384)]
    (stack,) = stacks.stacks(census_of(tmp_path, refs))
    assert list(stack.classes) == ["mlp.experts.*.up_proj"]
    assert stack.classes["mlp.experts.*.up_proj"].tally.count == 768


@pytest.mark.parametrize("layers", [1, 61, 128, 129, 1000, 99_999])
def test_every_layer_has_its_column_and_no_more_are_drawn_than_fit(tmp_path: Path, layers: int) -> None:
    found = census_of(tmp_path, [ref(f"m.layers.{n}.up.weight", "BF16" if n % 2 else "F32") for n in range(layers)])
    (stack,) = stacks.stacks(found)
    assert stack.columns == min(layers, stacks.COLUMNS)
    assert stack.column(0) == 0
    assert stack.column(layers - 1) == stack.columns - 1
    said = [stack.said(column, column + 1) for column in range(stack.columns)]
    numbers = [tuple(map(int, re.findall(r"\d+", words))) for words in said]
    assert numbers[0][0] == 0
    assert numbers[-1][-1] == layers - 1
    for first, second in itertools.pairwise(numbers):
        assert second[0] == first[-1] + 1
    for column, (first, *_) in enumerate(numbers):
        assert stack.column(first) == column
