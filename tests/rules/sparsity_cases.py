"""CF: statements on pruning in config.json, with exactly the codes they raise, and good ones that raise nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.builders.edits import Edit
from tests.builders.tiny import Tensor, Tiny
from tests.rules.cases import Case

EXPERTS = "*.mlp.experts.*"
NAME = "model.layers.1.mlp.experts.0.up_proj"


def stated(value: Any) -> Edit:
    def edit(tiny: Tiny) -> None:
        tiny.config["sparsity"] = value

    return edit


def paired(**more: Any) -> Edit:
    return stated({"pattern": "paired-4:8", "storage": "dense", "modules": [EXPERTS], **more})


def sparse(tiny: Tiny) -> None:
    """A module as `convert --to sparse` leaves it, beside the declaration of the dense form."""
    paired(storage="sparse")(tiny)
    payload = tiny.tensors.pop(f"{NAME}.weight_packed")
    rows, half = payload.shape
    kept, where = np.zeros((rows, half // 2), np.uint8), np.zeros((1, 128, 16), np.uint8)
    tiny.tensors[f"{NAME}.weight_kept"] = Tensor("U8", kept.shape, kept.tobytes())
    tiny.tensors[f"{NAME}.weight_metadata"] = Tensor("U8", where.shape, where.tobytes())


PRUNED = "mixture-pruned"
CASES = [
    Case("CF42", "kept-pairs", sparse, "CF02 CF42 CN16w FU07 NM03", base=PRUNED, evidence={"source": None}),
    Case("CF43", "pattern", stated("2:4"), "CF43w", base=PRUNED),
    Case("CF43", "no-pattern", stated({"modules": [EXPERTS]}), "CF43w", base=PRUNED),
    Case("CF43", "modules", paired(modules=["*.nothing.*"]), "CF43w", base=PRUNED),
    Case("CF43", "no-globs", paired(modules=[7]), "CF43w", base=PRUNED),
    Case("CF43", "storage", paired(storage="sparse"), "CF43w", base=PRUNED),
    Case("NU08", "stated", paired(modules=["*.experts.2.*"]), "NU08", base="mixture-ct-nvfp4", place="experts.2"),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("sparsity-stated", PRUNED, paired()),
    ("sparsity-in-a-word", PRUNED, stated("paired-4:8")),
    ("sparsity-without-modules", PRUNED, stated({"pattern": "4:8"})),
]
