"""Defects of published checkpoints that no family's own cases show, with exactly the codes they raise."""

from __future__ import annotations

from tests.builders.edits import UP, Edit, card, config, each, file, put
from tests.builders.tiny import Tensor, Tiny, f32
from tests.rules.cases import Case
from tests.rules.exclusion_cases import listing


def adapter(tiny: Tiny) -> None:
    """An export that forgot to rename one of an adapter's tensors back."""
    tiny.rename(f"{UP}.weight_scale_2", f"{UP}.base_layer.weight_scale_2")


def no_routers(names: list[str]) -> None:
    names[:] = [name for name in names if not name.endswith(".mlp.gate")]


def layer_types(*kinds: str) -> Edit:
    return config(layer_types=list(kinds))


CASES = [
    Case(
        "NM04",
        "scales-of-packed-bytes",
        put(f"{UP}.weight_scale", Tensor("F8_E4M3", (96, 2), b"\x38" * 192)),
        "CN16w NM04",
        place=UP,
        level="headers",
    ),
    Case(
        "NM05",
        "swizzled",
        put(f"{UP}.weight_scale", Tensor("U8", (512,), b"\x38" * 512)),
        "CN16w NM04 NM05",
        place=UP,
        level="headers",
    ),
    Case("NM13", "double-scale", put(f"{UP}.weight_quantizer._double_scale", f32(1.0)), "NM12 NM13", place=UP),
    Case("NM13", "base-layer", adapter, "NM01 NM12 NM13", place="base_layer", level="headers"),
    Case(
        "NM08",
        "router-unlisted",
        each(config(model_type="qwen3_moe"), listing(no_routers)),
        "NM08",
        base="mixture-nvfp4",
        place="mlp.gate",
        level="headers",
        source=config(model_type="qwen3_moe"),
    ),
    Case(
        "CF25",
        "layer-types-cut",
        layer_types("full_attention"),
        "CF25",
        source=layer_types("full_attention", "full_attention"),
    ),
    Case(
        "SD01",
        "vocabulary-in-a-folder",
        lambda tiny: None,
        "SD01",
        source=file("processor/merges.txt", b"a b\n"),
        place="processor/merges.txt",
    ),
    Case(
        "CN17",
        "config",
        lambda tiny: setattr(tiny, "config", {**tiny.config, "notes": "x" * 10_000_001}),
        "CF25 CN17w",
        place="config.json",
        level="headers",
    ),
    Case(
        "LC03", "broken-yaml", card("base_model: tiny/tiny", "base_model: [tiny"), "LC02 LC03 LC09", place="README.md"
    ),
]

LEGITIMATE: list[tuple[str, str, Edit]] = []
