"""Defects that published FP4 cards of Kimi K2.x describe, reproduced on a small Kimi: each is found by a rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.builders.edits import Edit, body, drop, each, kv_cast, quant, quantized, set_global
from tests.builders.tiny import Tiny
from tests.rules.test_cases import check

LM = "language_model.model.layers"
GATE = f"{LM}.1.mlp.gate"
# The exclude list of a published MXFP4 card, as it stands there.
REGEXES = [
    "re:.*self_attn.*",
    "re:.*shared_experts.*",
    r"re:.*mlp\.(gate|up|gate_up|down)_proj.*",
    "re:.*lm_head.*",
    "re:vision_tower.*",
    "re:mm_projector.*",
    "re:.*mlp.gate$",
]


def router_in_mxfp4(tiny: Tiny) -> None:
    """`mlp.gate.weight` packed, as the card lists it among the quantized tensors."""
    quantized(GATE, 4, 64)(tiny)
    drop(f"{GATE}.weight_scale_2", f"{GATE}.input_scale")(tiny)
    scale = tiny.tensors[f"{GATE}.weight_scale"]
    scale.dtype, scale.shape, scale.data = "U8", (4, 2), b"\x7d" * 8


def sparse_targets(block: dict[str, Any]) -> None:
    block["sparsity_config"] = {"format": "dense", "targets": ["Linear"], "sparsity_structure": "2:4"}


def no_input_scales(tiny: Tiny) -> None:
    drop(*(name for name in list(tiny.tensors) if name.endswith("input_scale")))(tiny)


DESCRIBED: list[tuple[str, str, Edit, set[str]]] = [
    ("routers-quantized", "kimi-mxfp4", router_in_mxfp4, {"NM10"}),
    ("list-the-quantizer-ignored", "kimi-mxfp4", quant(lambda q: q.update(exclude=REGEXES)), {"NM07"}),
    (
        "config-without-kv-group-and-layer-types",
        "kimi-mxfp4",
        quant(lambda q: (q["export"].pop("kv_cache_group"), q.pop("layer_type_quant_config"))),
        {"CF21"},
    ),
    (
        "shared-expert-halves-apart",
        "kimi-nvfp4",
        set_global(f"{LM}.1.mlp.shared_experts.up_proj", 3e-5),
        {"FU02"},
    ),
    ("dense-halves-apart", "kimi-nvfp4", set_global(f"{LM}.0.mlp.up_proj", 3e-5), {"FU02"}),
    ("sparsity-declared-with-targets", "kimi-ct-mxfp4", quant(sparse_targets), {"CF18"}),
    ("activations-without-scales", "kimi-nvfp4", no_input_scales, {"CF13"}),
]
FINE: list[tuple[str, str, Edit]] = [
    (
        "routers-plain-and-unlisted",
        "kimi-nvfp4",
        each(
            quant(lambda q: q.update(ignore=[e for e in q["ignore"] if "gate" not in e])),
            body(lambda b: b.update(exclude_modules=[e for e in b["exclude_modules"] if "gate" not in e])),
        ),
    ),
    ("fp8-cache-cast", "kimi-nvfp4", kv_cast),
    ("pack-method-order", "kimi-mxfp4", quant(lambda q: q["export"].update(pack_method="order"))),
]


@pytest.mark.parametrize(("name", "base", "edit", "codes"), DESCRIBED, ids=[row[0] for row in DESCRIBED])
def test_a_described_defect_is_found(name: str, base: str, edit: Edit, codes: set[str], tmp_path: Path) -> None:
    found = {finding.code for finding in check(tmp_path, base, edit).errors}
    assert codes <= found


@pytest.mark.parametrize(("name", "base", "edit"), FINE, ids=[row[0] for row in FINE])
def test_what_the_cards_do_rightly_is_silent(name: str, base: str, edit: Edit, tmp_path: Path) -> None:
    report = check(tmp_path, base, edit)
    assert [f"{f.code} {f.message}" for f in report.findings if f.severity != "info"] == []
