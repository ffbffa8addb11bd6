"""Pruned weights are named from whichever file speaks of them; where none does, nothing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from publisher.card.context import card_context
from publisher.card.render import render
from publisher.card.sparsity import pattern_of, sparsity_rows
from publisher.checkpoint.open import open_checkpoint


def declare(folder: Path, place: str, value: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (config["quantization_config"] if place == "sparsity_config" else config)[place] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def rows(folder: Path) -> dict[str, str]:
    return {row.label: row.value.text for row in sparsity_rows(open_checkpoint(folder), None)}


OWN = {"pattern": "paired-4:8", "storage": "dense", "modules": ["*.mlp.*"]}


def test_our_own_statement_is_read(nvfp4: Path) -> None:
    found = rows(declare(nvfp4, "sparsity", OWN))
    assert found["Sparsity"].startswith("paired-4:8: of every 8 weights along the input, 2 of the 4")
    assert found["Pruned"] == "*.mlp.*"
    assert found["Stored"].startswith("densely: zeros are FP4 zero codes")


def test_the_sparse_form_says_that_no_engine_loads_it(nvfp4: Path) -> None:
    found = rows(declare(nvfp4, "sparsity", {**OWN, "storage": "sparse"}))
    assert "no serving engine loads this form" in found["Stored"]


def test_a_compressed_tensors_statement_is_read(nvfp4: Path) -> None:
    said = {"format": "sparse-24-bitmask", "sparsity_structure": "2:4", "targets": ["Linear"], "ignore": []}
    found = rows(declare(nvfp4, "sparsity_config", said))
    assert found["Sparsity"].startswith("2:4: ")
    assert found["Stored"] == "compressed (sparse-24-bitmask): zeros are not stored"


def test_nothing_is_said_where_nothing_is_pruned(nvfp4: Path) -> None:
    assert rows(nvfp4) == {}
    for value in ({}, {"sparsity_structure": "unstructured"}, {"sparsity_structure": 3}, []):
        assert rows(declare(nvfp4, "sparsity_config", value)) == {}
    assert pattern_of(open_checkpoint(declare(nvfp4, "sparsity", {"pattern": 3})), None) is None


def test_the_card_says_it_in_the_first_sentence_and_does_not_promise_speed(nvfp4: Path, inputs: dict[str, Any]) -> None:
    declare(nvfp4, "sparsity", OWN)
    context = card_context(checkpoint=open_checkpoint(nvfp4), **inputs)
    text = render(context)
    assert "pruned in the pattern paired-4:8" in text.split("\n## ")[0]
    assert "makes it neither smaller nor faster" in text
    assert "sparse" in context.metadata["tags"]
