"""Weights declared pruned 4 of 8: where a declaration may stand, what it is about, and what numpy counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import Evidence, Meter, Pruned, pruned
from publisher.subjects.pruned import declares_pruning, pruned_modules, read_pruned
from tests.builders.sources import SOURCES, tag
from tests.builders.tiny import Tiny, compressed, llama, mixture

NAME = "model.layers.1.mlp.experts.0.up_proj"


def given(tiny: Tiny, folder: Path, **options: Any) -> Evidence:
    return Evidence(checkpoint=open_checkpoint(tiny.write(folder)), **options)


def tagged(tiny: Tiny, text: str) -> Tiny:
    tag(tiny, text)
    return tiny


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("'paired-4:8'", True),
        ("'4:8'", True),
        ("4-8-sparsity", True),
        ("Paired 4:8", True),
        ("'2:4'", False),
        ("nvfp4", False),
        ("'14:8'", False),
        ("7", False),
    ],
)
def test_a_card_tag_declares(text: str, declared: bool, tmp_path: Path) -> None:
    assert declares_pruning(given(tagged(compressed(mixture(), "nvfp4"), text), tmp_path), Meter()) is declared
    silent = given(tagged(compressed(mixture(), "nvfp4"), text), tmp_path, card=False)
    assert not declares_pruning(silent, Meter())


def test_a_configuration_declares(tmp_path: Path) -> None:
    tiny = compressed(mixture(), "nvfp4")
    tiny.config["quantization_config"]["sparsity_config"] = {"sparsity_structure": "4:8"}
    assert declares_pruning(given(tiny, tmp_path / "1"), Meter())
    plain = compressed(mixture(), "nvfp4")
    plain.config["sparsity"] = "paired-4:8"
    assert declares_pruning(given(plain, tmp_path / "2"), Meter())
    plain.config["sparsity"] = {"4:8": 1}
    assert not declares_pruning(given(plain, tmp_path / "3"), Meter())


def test_it_is_about_the_experts_or_about_everything(tmp_path: Path) -> None:
    experts = pruned_modules(given(tagged(compressed(mixture(), "nvfp4"), "'4:8'"), tmp_path / "1"), Meter())
    assert len(experts) == 24
    assert all(".experts." in module.name for module in experts)
    assert len(pruned_modules(given(tagged(compressed(llama(), "nvfp4"), "'4:8'"), tmp_path / "2"), Meter())) == 14


def test_a_pruned_checkpoint_has_no_dense_group(tmp_path: Path) -> None:
    _, tiny = SOURCES["mixture-pruned"]()
    found = list(read_pruned(given(tiny, tmp_path), Meter()))
    assert len(found) == 24
    assert all(p.groups == 32 * 64 // 8 and p.dense == 0 for p in found)


@pytest.mark.parametrize("step", [1, 4 << 20])
def test_dense_groups_are_those_numpy_counts(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruned, "_BYTES", step)
    tiny = tagged(compressed(mixture(), "nvfp4"), "'4:8'")
    rng = np.random.default_rng(5)
    data = np.where(rng.random((32, 32)) < 0.45, rng.integers(0, 256, (32, 32)), 0x88).astype(np.uint8)
    tiny.tensors[f"{NAME}.weight_packed"].data = data.tobytes()
    counts = ((data & 0x77) != 0).reshape(32, 8, 4).sum(axis=2)
    (found,) = (p for p in read_pruned(given(tiny, tmp_path), Meter()) if p.module.name == NAME)
    row, group = np.argwhere(counts > 2)[0].tolist()
    assert found == Pruned(module=found.module, groups=256, dense=int((counts > 2).sum()), first=(row, group * 4))


def test_a_sample_looks_at_its_share(tmp_path: Path) -> None:
    _, tiny = SOURCES["mixture-pruned"]()
    found = list(read_pruned(given(tiny, tmp_path, sample=8), Meter()))
    assert {p.groups for p in found} == {16}


def test_what_cannot_be_looked_at_says_why(tmp_path: Path) -> None:
    _, tiny = SOURCES["mixture-pruned"]()
    del tiny.tensors[f"{NAME}.weight_scale"]
    (found,) = (p for p in read_pruned(given(tiny, tmp_path), Meter()) if p.flaw is not None)
    assert found.module.name == NAME


def test_config_json_names_the_modules(tmp_path: Path) -> None:
    tiny = compressed(mixture(), "nvfp4")
    tiny.config["sparsity"] = {"pattern": "paired-4:8", "modules": ["*.experts.0.*", "*.shared_experts.up_proj"]}
    found = pruned_modules(given(tiny, tmp_path / "1"), Meter())
    assert {module.name.partition(".mlp.")[2] for module in found} == {
        "experts.0.down_proj",
        "experts.0.gate_proj",
        "experts.0.up_proj",
        "shared_experts.up_proj",
    }
    for odd in (["a b"], [7], [], "*", ["x"] * 20_000):
        tiny.config["sparsity"]["modules"] = odd
        found = pruned_modules(given(tiny, tmp_path / f"odd-{len(str(odd))}"), Meter())
        assert {module.role for module in found} == {"expert"}, "what cannot be read is not used"
