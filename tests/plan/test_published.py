"""The ready recipes on Kimi at its full size, headers alone: as many modules and bytes as the published cards count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import kimi
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.plan.decide import make_plan
from publisher.plan.library import ready_recipe
from publisher.plan.model import Plan
from publisher.plan.recipe import recipe_from_mapping

# What the cards say, or what their tensors amount to: modules and 10^9 bytes.
PUBLISHED = {
    "kimi-k2.6-nvfp4": (69_303, 590),
    "kimi-k2.6-mxfp4": (69_120, 563),
    "kimi-k2.5-p48-nvfp4": (69_120, 595),
    "kimi-k2.7-code-nvfp4": (69_120, 595),
}
PACKED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
        }
    },
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
}


def int4(entries: Iterator[kimi.Entry]) -> Iterator[kimi.Entry]:
    """The routed experts as Moonshot publishes them."""
    for entry in entries:
        if ".mlp.experts." not in entry.name:
            yield entry
            continue
        (rows, columns), name = entry.shape, entry.name
        yield kimi.Entry(f"{name}_packed", "I32", (rows, columns // 8))
        yield kimi.Entry(f"{name}_scale", "BF16", (rows, columns // 32))
        yield kimi.Entry(f"{name}_shape", "I32", (2,))


@pytest.fixture(scope="module", params=["BF16", "INT4"])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Two terabytes, or one, of holes."""
    sizes, config = kimi.Sizes(), kimi.config(kimi.Sizes())
    entries = kimi.source(sizes)
    if request.param == "INT4":
        entries, config["text_config"]["quantization_config"] = int4(entries), PACKED
    folder: Path = tmp_path_factory.mktemp("full") / "source"
    kimi.write(folder, entries, config, 64, lambda entry: None)
    return open_checkpoint(folder)


def plan_of(name: str, checkpoint: Checkpoint) -> Plan:
    return make_plan(recipe_from_mapping(ready_recipe(name).document, Path("/recipes"), name), checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_modules_and_bytes_as_published(name: str, full: Checkpoint) -> None:
    plan = plan_of(name, full)
    modules, gigabytes = PUBLISHED[name]
    assert plan.problems == ()
    assert len(plan.quantized) == modules
    assert abs(plan.bytes_after / 1e9 - gigabytes) < 1
    kept = [row.pattern for row in plan.classes if row.action == "keep"]
    for part in ("lm_head", "self_attn.o_proj", "mlp.gate", "vision_tower", "mm_projector", "embed_tokens"):
        assert any(part in pattern for pattern in kept), part
    beyond = [d.module for d in plan.quantized if ".mlp.experts." not in d.module]
    shared, dense = (sum(part in module for module in beyond) for part in (".shared_experts.", ".layers.0.mlp."))
    assert (shared, dense) == ((60 * 3, 3) if name == "kimi-k2.6-nvfp4" else (0, 0))
    assert len(beyond) == shared + dense
    keeping = [warning for warning in plan.warnings if "matches nothing" in warning]
    assert keeping == [], "every pattern of a ready recipe means something in the model it is for"
