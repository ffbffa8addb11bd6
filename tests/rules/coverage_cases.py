"""NM: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import struct

from tests.builders.edits import (
    DOWN,
    EXPERT,
    UP,
    Edit,
    Q,
    config,
    drop,
    each,
    four_over_six,
    kv_cast,
    listed,
    plain_expert,
    put,
    quant,
    quantized,
    reshape,
    typed,
    without,
    zero_block,
)
from tests.builders.tiny import Tensor, f32
from tests.rules.cases import Case

CASES = [
    Case("NM01", "no-block-scale", drop(f"{UP}.weight_scale"), "NM01", place=f"{UP}.weight_scale"),
    Case("NM01", "no-input-scale", drop(f"{EXPERT}.up_proj.input_scale"), "NM01", base="mixture-nvfp4", place=EXPERT),
    Case("NM01", "surplus-input-scale", put(f"{UP}.input_scale", f32(0.1)), "NM01w", base="llama-w4a16", place=UP),
    Case(
        "NM01", "scale-of-nothing", put("model.norm.weight_scale", f32(1.0)), "NM01 NM04 NM05 NM11", place="model.norm"
    ),
    Case("NM02", "no-scale", drop(f"{UP}.weight_scale"), "NM02", base="llama-mxfp4", place=f"{UP}.weight_scale"),
    Case("NM02", "surplus", put(f"{UP}.weight_scale_2", f32(1e-4)), "NM02", base="llama-mxfp4", place=UP),
    Case("NM04", "transposed", reshape(f"{UP}.weight", (32, 96)), "NM04", place=UP),
    Case(
        "NM04", "padded-scale", put(f"{UP}.weight_scale", Tensor("F8_E4M3", (128, 4), b"\x38" * 512)), "NM04", place=UP
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
    Case("NM05", "bf16-global", put(f"{DOWN}.weight_scale_2", Tensor("BF16", (), b"\x00\x39")), "NM05w", place=DOWN),
    Case(
        "NM06",
        "vector",
        put(f"{DOWN}.weight_scale_2", Tensor("F32", (2,), struct.pack("<ff", 1e-4, 1e-4))),
        "NM06",
        place=DOWN,
    ),
    Case(
        "NM09",
        "projection",
        drop(*(f"{EXPERT}.down_proj.{s}" for s in ("weight", "weight_scale", "weight_scale_2", "input_scale"))),
        "NM09",
        base="mixture-nvfp4",
        place=EXPERT,
    ),
    Case(
        "NM09",
        "expert",
        lambda tiny: drop(*(n for n in list(tiny.tensors) if EXPERT in n))(tiny),
        "NM09",
        base="mixture-mxfp4",
        place="model.layers.1.mlp.experts",
    ),
    Case(
        "NM09",
        "last-expert",
        lambda tiny: drop(*(n for n in list(tiny.tensors) if ".1.mlp.experts.3." in n))(tiny),
        "NM09",
        base="mixture-mxfp4",
    ),
    Case("NM09", "layer", without(2), "NM09", base="mixture-mxfp4"),
    Case(
        "NM10",
        "packed",
        quantized("model.layers.1.mlp.gate", 4, 64),
        "NM10",
        base="mixture-nvfp4",
        place="model.layers.1.mlp.gate",
    ),
    Case(
        "NM10",
        "rows",
        put("model.layers.1.mlp.gate.weight", Tensor("BF16", (3, 64), bytes(384))),
        "NM10",
        base="mixture-nvfp4",
    ),
    Case("NM11", "head", quantized("lm_head", 32, 64), "NM11", place="lm_head"),
    Case(
        "NM11",
        "routing-bias",
        put("model.layers.1.mlp.gate.e_score_correction_bias", Tensor("BF16", (4,), bytes(8))),
        "NM11",
        base="mixture-nvfp4",
        place="e_score",
    ),
    Case("NM13", "amax", put(f"{UP}.weight_quantizer._amax", f32(1.0)), "NM13", place="_amax"),
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
    ("listed", "mixture-nvfp4", listed()),
    ("fp8-kv-cast", "llama-nvfp4", kv_cast),
    (
        "stored-kv-scales",
        "llama-nvfp4",
        each(
            kv_cast,
            put("model.layers.0.self_attn.k_proj.k_scale", f32(0.02)),
            put("model.layers.0.self_attn.v_proj.v_scale", f32(0.02)),
        ),
    ),
    ("largest-scale-256", "llama-nvfp4", four_over_six),
    ("single-file", "llama-nvfp4", lambda tiny: setattr(tiny, "shards", 1)),
    ("uneven-shards", "mixture-nvfp4", lambda tiny: setattr(tiny, "shards", 9)),
    (
        "nextn-layer-plain",
        "mixture-nvfp4",
        put("model.layers.3.eh_proj.weight", Tensor("BF16", (64, 128), bytes(16384))),
    ),
    ("expert-left-plain", "mixture-nvfp4", plain_expert),
    ("scalar-of-shape-1", "llama-nvfp4", reshape(f"{DOWN}.weight_scale_2", (1,))),
    ("bias", "llama-nvfp4", put(f"{Q}.bias", Tensor("BF16", (64,), bytes(128)))),
    ("quark-weight-only", "llama-mxfp4", quant(lambda q: q["global_quant_config"].update(input_tensors=None))),
    (
        "new-library-version",
        "llama-nvfp4",
        config(transformers_version="5.23.0", dtype="bfloat16", torch_dtype="bfloat16"),
    ),
]
