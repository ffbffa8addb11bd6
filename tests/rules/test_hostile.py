"""Nonsense in configs, headers and cards: every rule ends with a verdict, none with its own failure."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.tiny import Tiny, llama, mixture, mxfp4, nvfp4

NONSENSE: list[Any] = [None, 0, -1, 1e300, 10**40, True, "", "x" * 300, "\ud800\x1b[2J", [], [None], ["a", "a", 3], {}]
NONSENSE += [{"group_size": "x"}, {"weight": [{}]}, {"quantization_config": {"quant_method": 7}}]
DTYPES = ["F32", "U8", "I64", "F4", "BOOL", "F8_E8M0", "C64", "?" * 50]
SHAPES = [(), (1,), (0,), (3, 4, 5), (10**12, 10**12), (1,) * 40]
CARD = {
    "license": "other",
    "license_name": "x",
    "license_link": "LICENSE",
    "base_model": "a/b",
    "base_model_relation": "quantized",
    "extra_gated_prompt": "p",
    "extra_gated_fields": {"a": "text", "b": {"type": "select", "options": ["x", {"label": "l", "value": "v"}]}},
}


def spoil(value: Any, rng: random.Random) -> Any:
    """Replace or drop one part of a document."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        rest = {k: v for k, v in value.items() if k != key}
        return rest if rng.random() < 0.1 else rest | {key: spoil(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.5:
        return [spoil(value[0], rng), *value[1:]]
    return rng.choice(NONSENSE)


def spoiled(tiny: Tiny, rng: random.Random) -> Tiny:
    config = spoil(tiny.config, rng)
    tiny.config = config if isinstance(config, dict) else {"model_type": config}
    tiny.hf_quant_config = spoil(tiny.hf_quant_config, rng) if rng.random() < 0.5 else tiny.hf_quant_config
    tiny.files["README.md"] = f"---\n{json.dumps(spoil(CARD, rng))}\n---\n".encode()
    for name in rng.sample(sorted(tiny.tensors), 2):
        tiny.tensors[name].dtype, tiny.tensors[name].shape = rng.choice(DTYPES), rng.choice(SHAPES)
    return tiny


@pytest.mark.parametrize("seed", range(60))
def test_nonsense_gets_a_verdict(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    source = rng.choice([llama, mixture])()
    result = spoiled(rng.choice([nvfp4, mxfp4])(copy.deepcopy(source)), rng)
    evidence = Evidence(
        checkpoint=open_checkpoint(result.write(tmp_path / "result")),
        source=open_checkpoint(source.write(tmp_path / "source")),
        base_model="tiny/tiny",
    )
    report = run(evidence)
    assert not [finding.message for finding in report.findings if "could not finish" in finding.message]
    assert report.findings
    json.dumps(report.to_json(), ensure_ascii=False, allow_nan=False).encode()
    assert report.seconds < 5
