"""Parameters as the model has them, those a token uses, and what the files weigh beside the source."""

from __future__ import annotations

import json
from pathlib import Path

from publisher.card.glance import active_parameters, parameter_rows
from publisher.checkpoint.census import take
from publisher.checkpoint.open import open_checkpoint
from tests.builders import kimi


def test_active_parameters_of_kimi_are_those_its_makers_state() -> None:
    config = kimi.config({"quant_method": "modelopt", "quant_algo": "NVFP4"})
    checkpoint = open_checkpoint(kimi.files(kimi.tensors("modelopt", (".experts.",)), config, ""))
    found = active_parameters(checkpoint)
    assert found is not None
    assert 32e9 <= found < 33e9  # "32 billion activated parameters", MoonshotAI/Kimi-K2 README
    rows = {row.label: row.value.text for row in parameter_rows(checkpoint, take(checkpoint))}
    assert rows["Parameters"].startswith("1.027 T")
    assert rows["Active parameters per token"].startswith("about 32.86 B")
    assert rows["Parameters by format"].startswith("NVFP4 1.015 T; BF16")


def test_a_kind_of_model_without_a_rule_says_nothing(nvfp4: Path) -> None:
    assert active_parameters(open_checkpoint(nvfp4)) is None
    config = json.loads((nvfp4 / "config.json").read_text())
    for wrong in (
        {"model_type": "kimi_k2"},
        {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 8},
    ):
        (nvfp4 / "config.json").write_text(json.dumps({**config, **wrong}))
        assert active_parameters(open_checkpoint(nvfp4)) is None
