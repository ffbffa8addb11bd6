"""Facts of a checkpoint, against what the builders put into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.claims.facts import Facts
from tests.rules.cases import GOOD


def facts(folder: Path, base: str) -> Facts:
    return Facts(open_checkpoint(GOOD[base]()[1].write(folder / base)), {})


def test_facts_of_a_mixture(tmp_path: Path) -> None:
    found = facts(tmp_path, "kimi-mxfp4")
    assert found.experts == 4
    assert found.moe_layers == 2
    assert found.roles["router"] == (0, 2)
    assert found.roles["expert"] == (24, 0)
    assert found.group_sizes == {32}
    assert found.scale_codes == {"E8M0"}
    assert found.producer == ("quark", "0.11.2", "config.json")
    assert found.custom_code
    assert found.unlisted("router") == 0
    assert found.kept("head") == ["language_model.lm_head"]
    assert found.number("hidden_size") == 64  # of the language model, not of the vision tower


@pytest.mark.parametrize(("base", "scales"), [("llama-nvfp4", 14), ("llama-w4a16", 0), ("llama-mxfp4", 0)])
def test_stored_input_scales(tmp_path: Path, base: str, scales: int) -> None:
    assert facts(tmp_path, base).input_scales == scales


def test_parameters_count_every_weight_once(tmp_path: Path) -> None:
    source, packed = (
        Facts(open_checkpoint(tiny.write(tmp_path / str(i))), {}) for i, tiny in enumerate(GOOD["llama-nvfp4"]())
    )
    assert packed.parameters == source.parameters == sum(ref.elements for ref in source.checkpoint.tensors.values())
