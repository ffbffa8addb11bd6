"""Whose weight it is: the nearest of the same kind in the source, found with a few rows and a bounded effort."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import twins
from publisher.subjects.twins import Twins, cosine
from tests.builders.sources import fused, int4
from tests.builders.tiny import Tiny, kimi, mixture, values_of
from tests.builders.watched import Watched

HERE = "model.layers.1.mlp.experts.1.up_proj"


def searching(stored: Tiny, meant: Tiny, folder: Path) -> tuple[Twins, Watched]:
    files = Watched(stored.write(folder))
    names = [name.removesuffix(".weight") for name in meant.tensors if name.endswith("_proj.weight")]
    return Twins(names, open_checkpoint(files), files.read), files


@pytest.mark.parametrize(
    "other",
    [
        "model.layers.1.mlp.experts.3.up_proj",
        "model.layers.2.mlp.experts.1.up_proj",
        "model.layers.1.mlp.experts.1.gate_proj",
    ],
)
def test_another_expert_layer_or_projection_is_found(other: str, tmp_path: Path) -> None:
    source = mixture()
    found, _ = searching(source, source, tmp_path)
    values = values_of(source.tensors[f"{other}.weight"])[8:12]
    assert found.find(HERE, values + np.float32(1e-3), (8, 12), 32) == other


def test_experts_of_quantized_and_fused_sources_are_found(tmp_path: Path) -> None:
    for number, (stored, meant) in enumerate((int4(kimi()), fused(mixture()))):
        found, _ = searching(stored, meant, tmp_path / str(number))
        prefix = "language_model." * (number == 0)
        other = f"{prefix}model.layers.1.mlp.experts.2.up_proj"
        values = values_of(meant.tensors[f"{other}.weight"])[:4]
        assert found.find(f"{prefix}{HERE}", values, (0, 4), 32) == other


def test_noise_is_nobodys(tmp_path: Path) -> None:
    source = mixture()
    found, files = searching(source, source, tmp_path)
    values = np.random.default_rng(0).normal(0, 1, (32, 64)).astype(np.float32)
    files.reads.clear()
    assert found.find(HERE, values, (0, 32), 32) is None
    assert max(size for _, _, size in files.reads) <= twins.MAX_ROWS * 64 * 2


def test_after_a_few_searches_there_are_no_more(tmp_path: Path) -> None:
    source = mixture()
    found, _ = searching(source, source, tmp_path)
    other = "model.layers.1.mlp.experts.3.up_proj"
    values = values_of(source.tensors[f"{other}.weight"])[:4]
    answers = [found.find(HERE, values, (0, 4), 32) for _ in range(twins.MAX_SEARCHES + 3)]
    assert answers == [other] * twins.MAX_SEARCHES + [None] * 3


def test_a_cosine_of_nothing_is_zero() -> None:
    some, none = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)
    assert cosine(some, some) == pytest.approx(1)
    assert cosine(some, -some) == pytest.approx(-1)
    assert cosine(some, none) == cosine(some, none * np.nan) == cosine(some, some * np.inf) == 0
