"""Formats in words: what is stored decides, not what a name suggests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.card.formats import activation_text, format_name, format_rows, kv_text
from publisher.checkpoint.open import Checkpoint, open_checkpoint

Edit = Callable[[dict[str, Any]], Any]


def edited(folder: Path, edit: Edit) -> Checkpoint:
    config = json.loads((folder / "config.json").read_text())
    edit(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))
    return open_checkpoint(folder)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda block: block.pop("kv_cache_scheme"), "not quantized"),
        (lambda block: block.update(kv_cache_scheme="NVFP4"), "NVFP4, static; no scales stored, engines use 1.0"),
    ],
)
def test_the_cache(nvfp4: Path, edit: Edit, says: str) -> None:
    assert kv_text(edited(nvfp4, edit)) == says


def test_activations_of_a_quark_block_without_input_spec_are_not_quantized(mxfp4: Path) -> None:
    checkpoint = edited(mxfp4, lambda block: block["global_quant_config"].update(input_tensors=None))
    assert (activation_text(checkpoint) or "").startswith("not quantized (weight-only)")
    assert format_name(checkpoint) == "MXFP4"


def test_an_unquantized_model_has_no_rows(source: Path) -> None:
    checkpoint = open_checkpoint(source)
    assert format_rows(checkpoint) == ()
    assert activation_text(checkpoint) is None
    assert kv_text(checkpoint) == "not quantized"
