"""SV on scales and scalars: edits of good checkpoints, the source not at hand, with exactly the codes they raise."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from tests.builders.edits import DOWN, EXPERT, UP, Edit, each, poke, put, set_global
from tests.builders.tiny import Tiny, bf16, f32
from tests.rules.cases import Case

BACKSTOP = f32(struct.unpack("<f", b"\x31\x0c\x43\x39")[0])  # 0.5 / 2688
O = "model.layers.0.self_attn.o_proj"  # noqa: E741 - a projection that is fused with nothing
STACKED = "model.layers.1.mlp.experts.down_proj"
KIMI_UP = "language_model.model.layers.0.mlp.up_proj"


def recode(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Other codes for a tensor of bytes."""

    def edit(tiny: Tiny) -> None:
        tensor = tiny.tensors[name]
        tensor.data = change(np.frombuffer(tensor.data, np.uint8)).astype(np.uint8).tobytes()

    return edit


def scalars(suffix: str, change: Callable[[float], float]) -> Edit:
    """Another number for every scalar of a kind."""

    def edit(tiny: Tiny) -> None:
        for name, tensor in tiny.tensors.items():
            if name.endswith(f".{suffix}"):
                tiny.tensors[name] = f32(change(struct.unpack("<f", tensor.data)[0]), tensor.shape)

    return edit


def outlier(tiny: Tiny) -> None:
    """One weight of 300,000 times the others, quantized with the global scale it asks for."""
    scales = tiny.tensors[f"{O}.weight_scale"]
    values = np.frombuffer(scales.data, ml_dtypes.float8_e4m3fn).astype(np.float32)
    small = np.maximum(values * 2.0**-15, 2.0**-9)
    small[0] = 448
    scales.data = small.astype(ml_dtypes.float8_e4m3fn).tobytes()


def dead(module: str, scale: int) -> Edit:
    """A module of zeros, as a quantizer leaves it that guards against dividing by zero."""
    return each(
        recode(f"{module}.weight", lambda payload: payload * 0),
        recode(f"{module}.weight_scale", lambda s: s * 0 + scale),
    )


def smoothing(module: str, values: np.ndarray) -> Edit:
    return put(f"{module}.pre_quant_scale", bf16(values))


def experts_share(value: float) -> Edit:
    """One activation scale for all experts of a layer."""

    def edit(tiny: Tiny) -> None:
        for name in tiny.tensors:
            if ".1.mlp.experts." in name and name.endswith("input_scale"):
                tiny.tensors[name] = f32(value)

    return edit


def case(code: str, name: str, edit: Edit, raises: str, **more: Any) -> Case:
    """What the scales tell by themselves."""
    return Case(code, name, edit, raises, evidence={"source": None}, **more)


NVFP4, AWQ, CT = ({"base": f"llama-{name}"} for name in ("nvfp4", "awq", "ct-nvfp4"))
MX, CT_MX = ({"base": f"llama-{name}"} for name in ("mxfp4", "ct-mxfp4"))
MIXTURE = {"base": "mixture-nvfp4"}
SCALE = f"{UP}.weight_scale"

CASES = [
    case("SV01", "7f", poke(SCALE, 9, 0x7F), "SV01", place=SCALE),
    case("SV01", "ff", poke(f"{EXPERT}.up_proj.weight_scale", 0, 0xFF), "SV01", place=EXPERT, **MIXTURE),
    case("SV01", "ct", poke(SCALE, 9, 0x7F), "SV01", place=UP, **CT),
    case("SV01", "w4a16", poke(SCALE, 9, 0xFF), "SV01", place=UP, base="llama-w4a16"),
    case("SV02", "sign", poke(SCALE, 9, 0xB8), "SV02", place=SCALE),
    case("SV02", "minus-zero", poke(SCALE, 9, 0x80), "SV02", place=SCALE),
    case("SV02", "ct", poke(SCALE, 9, 0xFE), "SV02", place=UP, **CT),
    case("SV03", "underflow", poke(SCALE, 5, 0), "SV03", place=SCALE),
    case("SV03", "ct", poke(SCALE, 5, 0), "SV03", place=UP, **CT),
    case("SV04", "other-tensors", recode(f"{O}.weight_scale", lambda s: np.clip(s, 0, 0x50)), "SV04w", place=O),
    case(
        "SV04", "other-groups", recode(f"{O}.weight_scale", lambda s: np.clip(s, 0, 0x74)), "SV04w", place=O, **MIXTURE
    ),
    case("SV04", "ct", recode(f"{O}.weight_scale", lambda s: np.clip(s, 0, 0x50)), "SV04w", place=O, **CT),
    case("SV05", "zero", set_global(DOWN, 0.0), "SV05", place=DOWN),
    case("SV05", "nan", set_global(DOWN, float("nan")), "SV05", place=DOWN),
    case("SV05", "subnormal", set_global(DOWN, 1e-40), "SV05", place=DOWN),
    case("SV05", "large", set_global(DOWN, 0.2), "SV05w", place=DOWN),
    case("SV06", "zero", put(f"{DOWN}.weight_global_scale", f32(0.0, (1,))), "SV06", place=DOWN, **CT),
    case("SV06", "zero-input", put(f"{DOWN}.input_global_scale", f32(0.0, (1,))), "SV06", place=DOWN, **CT),
    case("SV06", "nan", put(f"{DOWN}.weight_global_scale", f32(float("nan"), (1,))), "SV06", place=DOWN, **CT),
    case("SV06", "small", put(f"{DOWN}.input_global_scale", f32(1e-3, (1,))), "SV06w", place=DOWN, **CT),
    case("SV07", "one", set_global(DOWN, 26880.0), "SV05w SV07", place=DOWN),
    case("SV07", "all", scalars("weight_scale_2", lambda value: 1 / value), "SV05w SV07"),
    case("SV07", "ct", scalars("weight_global_scale", lambda value: 1 / value), "SV06w SV07", **CT),
    case("SV08", "zero", put(f"{DOWN}.input_scale", f32(0.0)), "SV08", place=DOWN),
    case("SV08", "infinite", put(f"{DOWN}.input_scale", f32(float("inf"))), "SV08", place=DOWN),
    case("SV08", "huge", put(f"{DOWN}.input_scale", f32(1e6)), "SV08w", place=DOWN),
    case("SV09", "expert", put(f"{EXPERT}.down_proj.input_scale", BACKSTOP), "SV09", place=EXPERT, **MIXTURE),
    case("SV10", "layer", experts_share(0.0042), "SV10i", place="experts", **MIXTURE),
    case("SV11", "ff", poke(SCALE, 3, 0xFF), "SV11", place=SCALE, **MX),
    case("SV11", "ct", poke(SCALE, 3, 0xFF), "SV11", place=UP, **CT_MX),
    case("SV11", "kimi", poke(f"{KIMI_UP}.weight_scale", 3, 0xFF), "SV11", place=KIMI_UP, base="kimi-mxfp4"),
    case("SV11", "gpt-oss", poke(f"{STACKED}_scales", 3, 0xFF), "SV11", place=STACKED, base="gpt-oss"),
    case("SV12", "zero", poke(SCALE, 3, 0), "SV12w", place=SCALE, **MX),
    case("SV12", "tiny", poke(SCALE, 3, 40), "SV12w", place=SCALE, **MX),
    case("SV12", "huge", poke(SCALE, 3, 200), "SV12w", place=SCALE, **CT_MX),
    case("SV12", "gpt-oss", poke(f"{STACKED}_scales", 3, 0), "SV12w", place=STACKED, base="gpt-oss"),
    case("SV16", "nan", smoothing(O, np.array([np.nan] + [1.0] * 63)), "CF03 SV16", place=O, **AWQ),
    case("SV16", "zero", smoothing(O, np.array([1.0] * 63 + [0.0])), "CF03 SV16", place=O, **AWQ),
    case("SV16", "short", smoothing(O, np.ones(32)), "CF03 SV16", place=O, **AWQ),
    case("SV17", "outlier", outlier, "SV17w", place=O),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [("pinned-input-scales", "mixture-nvfp4", experts_share(1.0))]
