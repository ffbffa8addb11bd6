"""NM, the tensors of one layer: edits of good checkpoints, the exact codes they raise, oddities that raise none."""

from __future__ import annotations

import struct
from dataclasses import replace

from tests.builders.edits import (
    DOWN,
    EXPERT,
    UP,
    Edit,
    drop,
    four_over_six,
    put,
    quant,
    reshape,
    typed,
    zero_block,
)
from tests.builders.tiny import Tensor, Tiny, f32
from tests.rules.cases import Case

STACK = "model.layers.1.mlp.experts"
KIMI = f"language_model.{STACK}.2"


def integers(module: str) -> Edit:
    """Leave a module in the int4 of its source."""

    def edit(tiny: Tiny) -> None:
        for name in [name for name in tiny.tensors if name.startswith(f"{module}.")]:
            del tiny.tensors[name]
        tiny.tensors |= {
            f"{module}.weight_packed": Tensor("I32", (32, 8), bytes(1024)),
            f"{module}.weight_scale": Tensor("BF16", (32, 2), bytes(128)),
            f"{module}.weight_shape": Tensor("I32", (2,), struct.pack("<ii", 32, 64)),
        }

    return edit


# Everything here is decided by headers; what wrong numbers raise beside it belongs to the rules that read them.
CASES = [
    replace(case, level="headers")
    for case in (
        Case("NM01", "no-block-scale", drop(f"{UP}.weight_scale"), "CN16w NM01", place=f"{UP}.weight_scale"),
        Case(
            "NM01", "no-input-scale", drop(f"{EXPERT}.up_proj.input_scale"), "NM01", base="mixture-nvfp4", place=EXPERT
        ),
        Case(
            "NM01",
            "stack-without-scalars",
            drop(f"{STACK}.down_proj_weight_scale_2", f"{STACK}.gate_up_proj_input_scale"),
            "NM01",
            base="gpt-oss-nvfp4",
            place=f"{STACK}.gate_up_proj_input_scale",
        ),
        Case(
            "NM01",
            "stack-of-other-scales",
            reshape(f"{STACK}.down_proj_weight_scale", (4, 64, 6)),
            "NM01",
            base="gpt-oss-nvfp4",
            place=f"{STACK}.down_proj_weight_scale",
        ),
        Case("NM01", "surplus-input-scale", put(f"{UP}.input_scale", f32(0.1)), "NM01w", base="llama-w4a16", place=UP),
        Case(
            "NM01",
            "scale-of-nothing",
            put("model.norm.weight_scale", f32(1.0)),
            "NM01 NM05 NM11 NM12",
            place="model.norm",
        ),
        Case(
            "NM02", "no-scale", drop(f"{UP}.weight_scale"), "CN16w NM02", base="llama-mxfp4", place=f"{UP}.weight_scale"
        ),
        Case("NM02", "no-global", drop(f"{UP}.weight_scale_2"), "NM02", base="llama-quark-nvfp4", place=UP),
        Case(
            "NM02",
            "no-input",
            drop(f"{EXPERT}.up_proj.input_scale_2"),
            "NM02 NM20",
            base="mixture-quark-nvfp4",
            place=EXPERT,
        ),
        Case("NM02", "surplus", put(f"{UP}.weight_scale_2", f32(1e-4)), "CN16w NM02", base="llama-mxfp4", place=UP),
        Case("NM04", "transposed", reshape(f"{UP}.weight", (32, 96)), "NM04", place=UP),
        Case(
            "NM04",
            "padded-scale",
            put(f"{UP}.weight_scale", Tensor("F8_E4M3", (128, 4), b"\x38" * 512)),
            "CN16w NM04",
            place=UP,
        ),
        Case(
            "NM04",
            "by-config",
            lambda tiny: [reshape(f"{DOWN}.weight", (48, 64))(tiny), reshape(f"{DOWN}.weight_scale", (48, 8))(tiny)],
            "NM04",
            place=DOWN,
            evidence={"source": None},
        ),
        Case("NM05", "u8-scale", typed(f"{UP}.weight_scale", "U8"), "NM05", place=UP),
        Case("NM05", "signed-payload", typed(f"{UP}.weight", "I8"), "CN07 NM05", place=UP),
        Case(
            "NM05", "bf16-global", put(f"{DOWN}.weight_scale_2", Tensor("BF16", (), b"\x00\x39")), "NM05w", place=DOWN
        ),
        Case(
            "NM06",
            "vector",
            put(f"{DOWN}.weight_scale_2", Tensor("F32", (2,), struct.pack("<ff", 1e-4, 1e-4))),
            "NM06",
            place=DOWN,
        ),
        Case(
            "NM03",
            "no-payload",
            drop(f"{UP}.weight_packed"),
            "CF02 CN16w NM03 NM12",
            base="llama-ct-nvfp4",
            place=f"{UP}.weight_packed",
        ),
        Case("NM03", "no-global", drop(f"{UP}.weight_global_scale"), "NM03", base="llama-ct-nvfp4", place=UP),
        Case(
            "NM03",
            "no-input-scale",
            drop(f"{EXPERT}.up_proj.input_global_scale"),
            "FU07 NM03",
            base="mixture-ct-nvfp4",
            place=EXPERT,
        ),
        Case("NM03", "mx-no-scale", drop(f"{UP}.weight_scale"), "CN16w NM03", base="llama-ct-mxfp4", place=UP),
        Case(
            "NM03",
            "plain-beside",
            put(f"{UP}.weight", Tensor("BF16", (96, 64), bytes(12288))),
            "NM03 NM04 NM05 NM12",
            base="llama-ct-mxfp4",
            place=UP,
        ),
        Case(
            "NM03",
            "shape-of-integers",
            put(f"{UP}.weight_shape", Tensor("I64", (2,), struct.pack("<qq", 96, 64))),
            "CN07 NM03 NM12 NM15",
            base="llama-ct-nvfp4",
            place=UP,
        ),
        Case("NM01", "mixed", drop(f"{EXPERT}.up_proj.input_scale"), "NM01", base="mixture-mixed", place=EXPERT),
        Case("NM01", "kimi", drop(f"{KIMI}.up_proj.weight_scale_2"), "NM01", base="kimi-nvfp4", place=KIMI),
        Case("NM02", "kimi", drop(f"{KIMI}.up_proj.weight_scale"), "CN16w NM02", base="kimi-mxfp4", place=KIMI),
        Case("NM03", "kimi", drop(f"{KIMI}.up_proj.weight_scale"), "CN16w NM03", base="kimi-ct-mxfp4", place=KIMI),
        Case(
            "NM05", "compressed-scale", typed(f"{UP}.weight_scale", "U8"), "CF16 NM05", base="llama-ct-nvfp4", place=UP
        ),
        Case(
            "NM22",
            "expert",
            drop(f"{EXPERT}.down_proj.pre_quant_scale"),
            "CF03 NM22",
            base="mixture-awq",
            place=f"{EXPERT}.down_proj",
        ),
        Case(
            "NM23",
            "no-scale",
            drop("model.layers.1.self_attn.o_proj.weight_scale"),
            "NM23",
            base="mixture-mixed",
            place="o_proj.weight",
        ),
        Case(
            "NM23",
            "scale-of-bf16",
            put(f"{DOWN}.weight_scale_inv", f32(1.0)),
            "NM01 NM12 NM23",
            place=f"{DOWN}.weight_scale_inv",
        ),
    )
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    *(
        (f"zero-block-{s:02x}-{p:02x}", "llama-nvfp4", zero_block(UP, s, p, 8))
        for s in (0x38, 0x7E, 1, 0x20, 0)
        for p in (0, 0x88)
    ),
    *(
        (f"zero-mx-block-{s}-{p:02x}", "llama-mxfp4", zero_block(UP, s, p, 16))
        for s in (0, 1, 104, 126)
        for p in (0, 0x88)
    ),
    (
        "input-scale-one",
        "mixture-nvfp4",
        lambda tiny: [put(n, f32(1.0))(tiny) for n in tiny.tensors if n.endswith("input_scale")],
    ),
    ("largest-scale-256", "llama-nvfp4", four_over_six),
    ("single-file", "llama-nvfp4", lambda tiny: setattr(tiny, "shards", 1)),
    ("uneven-shards", "mixture-nvfp4", lambda tiny: setattr(tiny, "shards", 9)),
    ("scalar-of-shape-1", "llama-nvfp4", reshape(f"{DOWN}.weight_scale_2", (1,))),
    ("quark-weight-only", "llama-mxfp4", quant(lambda q: q["global_quant_config"].update(input_tensors=None))),
]
