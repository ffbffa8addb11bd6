"""Memory per GPU is an estimate of shares; sizes that hold too much are not recommended."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.card import memory
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from tests.builders import kimi


@pytest.fixture(scope="module")
def whole() -> Checkpoint:
    declared = {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    return open_checkpoint(kimi.files(kimi.tensors("modelopt", (".experts.",)), kimi.config(declared), ""))


def test_a_trillion_parameters_fit_four_large_gpus(whole: Checkpoint) -> None:
    splits = memory.splits(whole)
    assert [split.size for split in splits] == [1, 2, 4, 8, 16]
    assert memory.smallest(whole, "vllm", splits) == 4
    table = memory.memory_table(whole, splits)
    assert table is not None
    cells = {row[0].text: (row[1].text, row[2].text) for row in table.rows}
    assert cells["1"] == ("595 GB", "none of those named")
    assert cells["4"][1] == "B200, B300"
    assert all("estimate" in cell.origin for row in table.rows for cell in row)


def test_the_cache_of_latent_attention_is_one_vector_a_token(whole: Checkpoint) -> None:
    row = memory.cache_row(whole)
    assert row is not None
    assert row.value.text.startswith(f"{(512 + 64) * 61 / 1000:.1f} kB per token over all layers, as the FP8")
    assert "held whole by every GPU" in row.value.text


def test_the_cache_of_grouped_attention_is_keys_and_values(mxfp4: Path) -> None:
    row = memory.cache_row(open_checkpoint(mxfp4))
    assert row is not None
    assert row.value.text.startswith(f"{2 * 2 * 16 * 2 * 2} B per token over all layers, in 16 bits, shared out")


def test_a_small_model_is_not_split(nvfp4: Path, source: Path) -> None:
    checkpoint = open_checkpoint(nvfp4)
    splits = memory.splits(checkpoint)
    assert [split.size for split in splits] == [1]
    assert memory.smallest(checkpoint, "vllm", splits) == 1
    plain = open_checkpoint(source)
    assert memory.memory_table(plain, memory.splits(plain)) is None
