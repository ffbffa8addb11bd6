"""CF: edits of compressed-tensors' declarations with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import copy
from typing import Any

from tests.builders.edits import Edit, config, drop, each, quant
from tests.builders.tiny import Tiny
from tests.rules.cases import Case

NV, MX = "llama-ct-nvfp4", "llama-ct-mxfp4"
ATTENTION, MLP = r"re:^model\.layers\.\d+\.self_attn\..*_proj$", r"re:^model\.layers\.\d+\.mlp\..*_proj$"
EIGHT = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}


def weights(**values: Any) -> Edit:
    return quant(lambda q: q["config_groups"]["group_0"]["weights"].update(values))


def group(**values: Any) -> Edit:
    return quant(lambda q: q["config_groups"]["group_0"].update(values))


def formats(block: str, of_group: str | None) -> Edit:
    return each(quant(lambda q: q.update(format=block)), group(format=of_group))


def sparsity(**values: Any) -> Edit:
    return quant(lambda q: q.update(sparsity_config=values))


def groups(*targets: str, differ: bool = True) -> Edit:
    """One group per target, the later ones weight-only where they are to differ."""

    def edit(tiny: Tiny) -> None:
        block = tiny.config["quantization_config"]
        one = block["config_groups"]["group_0"]
        made = [copy.deepcopy(one) | {"targets": [target]} for target in targets]
        for later in made[1:] if differ else ():
            later["input_activations"] = None
        block["config_groups"] = {f"group_{number}": each_one for number, each_one in enumerate(made)}

    return edit


CASES = [
    Case("CF15", "unknown-argument", weights(scale_format="e4m3"), "CF15", base=NV, place="config.json"),
    Case("CF15", "unknown-key-of-group", group(name="experts"), "CF15", base=MX),
    Case("CF15", "no-targets", quant(lambda q: q["config_groups"]["group_0"].pop("targets")), "CF15", base=NV),
    Case("CF16", "unknown", quant(lambda q: q.update(format="nvfp4")), "CF16", base=NV),
    Case("CF16", "other", formats("pack-quantized", None), "CF16", base=NV),
    Case("CF16", "groups-contradict", group(format="mxfp4-pack-quantized"), "CF16 CF17", base=NV),
    Case(
        "CF16",
        "mixed-unsaid",
        each(quant(lambda q: q.update(format="mixed-precision")), group(format=None)),
        "CF16",
        base=NV,
    ),
    Case("CF17", "strategy", weights(strategy="group"), "CF17", base=NV),
    Case("CF17", "asymmetric", weights(symmetric=False), "CF17", base=MX),
    Case("CF17", "group-size", weights(group_size=16), "CF06 CF17", base=MX),
    Case("CF17", "inputs", group(input_activations=EIGHT), "CF17 NM03w", base=NV),
    Case(
        "CF18",
        "dense",
        quant(lambda q: q.update(sparsity_config={"format": "dense", "targets": ["Linear"]})),
        "CF18",
        base=NV,
    ),
    Case("CF18", "no-targets", sparsity(format="dense"), "CF18w", base=MX),
    Case("CF19", "nothing", groups(ATTENTION, MLP, "re:^model.visual"), "CF19", base=NV),
    Case("CF19", "overlap", groups(ATTENTION, MLP, r"re:.*layers\.1\..*_proj$"), "CF19", base=NV),
    Case("CF19", "all-linear", groups("Linear", "Linear"), "CF19", base=NV),
    Case("CF19", "class-beside-names", groups("Linear", MLP), "CF19", base=NV),
    Case("CF19", "no-regex", groups(ATTENTION, MLP, "re:(["), "CF19", base=NV),
    Case("CF20", "kwargs", weights(observer="mse", observer_kwargs={"maxshrink": 0.2}), "CF20w", base=NV),
    Case("CF20", "order", weights(actorder="group"), "CF15 CF20w", base=MX),
    Case("CF31", "edited", quant(lambda q: q.update(version="0.12.2")), "CF31w", base=NV),
    Case("CF31", "before-mxfp4", quant(lambda q: q.update(version="0.11.0")), "CF31w", base=MX),
    Case(
        "CF38",
        "tied-head",
        each(config(tie_word_embeddings=True), drop("lm_head.weight"), quant(lambda q: q.update(ignore=[]))),
        "CF25 CF38",
        base=MX,
    ),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("two-groups-by-name", NV, groups(ATTENTION, MLP, differ=False)),
    ("two-groups-overlap-alike", NV, groups(ATTENTION, MLP, r"re:.*layers\.1\..*_proj$", differ=False)),
    ("nightly-version", NV, quant(lambda q: q.update(version="0.12.3.a20251114"))),
    ("no-version", NV, quant(lambda q: q.pop("version"))),
    ("provider", NV, quant(lambda q: q.update(provider="auto-round"))),
    ("group-format-unsaid", NV, group(format=None)),
    ("observer", MX, weights(observer="memoryless_minmax", zp_dtype=None, actorder=None, block_structure=None)),
    ("order-by-weight", NV, weights(actorder="weight")),
]
