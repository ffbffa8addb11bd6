"""Entries nobody answers to: typing errors are named; parents, fused layers and a tool's defaults are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import Modules
from publisher.subjects.unmatched import unmatched
from tests.rules.cases import GOOD
from tests.rules.exclusion_cases import only


def lost(folder: Path, base: str, *entries: str) -> tuple[str, ...]:
    _, result = GOOD[base]()
    only(*entries)(result)
    return unmatched(Modules(open_checkpoint(result.write(folder))).exclusion)


@pytest.mark.parametrize(
    ("base", "entry"),
    [
        ("llama-nvfp4", "model.layers.0.self_attn"),  # a parent
        ("llama-nvfp4", "mlp.gate_up_proj"),  # a fused layer, by its end
        ("llama-nvfp4", "*visual*"),  # a tower the model has not
        ("llama-nvfp4", "*router*"),
        ("llama-nvfp4", "model.layers.2.*"),  # a layer that predicts more tokens, left out
        ("llama-ct-nvfp4", "Embedding"),  # a class
        ("llama-ct-nvfp4", "re:.*mlp.gate$"),
        ("mixture-mxfp4", r"re:^model\.layers\.1\.mlp\.experts\.2\.up_proj$"),
        ("kimi-mxfp4", "lm_head"),  # the end of a name
        ("kimi-mxfp4", "re:layers"),  # found by those who search
    ],
)
def test_entries_that_mean_something(base: str, entry: str, tmp_path: Path) -> None:
    assert lost(tmp_path, base, entry) == ()


@pytest.mark.parametrize(
    ("base", "entry"),
    [
        ("llama-nvfp4", "model.layers.0.self_atn.q_proj"),
        ("llama-nvfp4", "model.layer.*"),
        ("kimi-nvfp4", "*vision_towr*x"),
        ("mixture-mxfp4", "re:.*shared_expertz.*"),
        ("mixture-mxfp4", "model.layers.1.mlp.experts.9.up_proj"),
    ],
)
def test_entries_that_mean_nothing(base: str, entry: str, tmp_path: Path) -> None:
    assert lost(tmp_path, base, entry) == (entry,)


def test_an_unreadable_list_has_none(tmp_path: Path) -> None:
    assert lost(tmp_path, "llama-mxfp4", "re:(a+)+", "nothing") == ()
