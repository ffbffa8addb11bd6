"""SV and NU on payloads: edits of good checkpoints, the source not at hand, with exactly the codes they raise."""

from __future__ import annotations

import numpy as np

from tests.builders.edits import DOWN, EXPERT, UP, Edit, each, poke, quant
from tests.builders.tiny import Tensor, Tiny
from tests.rules.scales_cases import KIMI_UP, STACKED, O, case, dead, recode


def emptied(name: str, block: int, width: int = 8) -> Edit:
    """The weights of one block are lost; its scale is not."""
    return each(*(poke(name, at, 0x80) for at in range(block * width, (block + 1) * width)))


def halved(name: str, block: int, width: int = 8) -> Edit:
    """One block quantized under four times its scale: every code becomes what the next binades hold."""
    lower = np.array([0, 0, 0, 0, 1, 2, 2, 3], np.uint8)

    def edit(tiny: Tiny) -> None:
        data = np.frombuffer(tiny.tensors[name].data, np.uint8).copy()
        part = data[block * width : (block + 1) * width]
        low, high = part & 15, part >> 4
        part[:] = (low & 8 | lower[low & 7]) | (high & 8 | lower[high & 7]) << 4
        tiny.tensors[name].data = data.tobytes()

    return edit


def positive(name: str) -> Edit:
    return recode(name, lambda payload: payload & 0x77)


def constant(name: str) -> Edit:
    """Two thirds of a payload is one byte, as memory that was filled but never written."""
    return recode(name, lambda payload: np.where(np.arange(len(payload)) % 3, 0x7C, payload))


def zero_shard(tiny: Tiny) -> None:
    """The second shard holds what a download leaves that reserved its space: zeros."""
    names = list(tiny.tensors)
    for name in names[len(names) // 2 :]:
        if tiny.tensors[name].dtype == "U8" and name.endswith(".weight"):
            dead(name.removesuffix(".weight"), 0)(tiny)


def floats(name: str, place: int, value: float) -> Edit:
    def edit(tiny: Tiny) -> None:
        import ml_dtypes

        tensor = tiny.tensors[name]
        kind = ml_dtypes.bfloat16 if tensor.dtype == "BF16" else np.float32
        values = np.frombuffer(tensor.data, kind).copy()
        values[place] = value
        tiny.tensors[name] = Tensor(tensor.dtype, tensor.shape, values.tobytes())

    return edit


def mode(name: str) -> Edit:
    return quant(lambda block: block["global_quant_config"]["weight"].update(scale_calculation_mode=name))


CASES = [
    case("SV13", "lost", emptied(f"{UP}.weight", 5), "SV13w", place=f"{UP}.weight"),
    case("SV13", "w4a16", emptied(f"{EXPERT}.up_proj.weight", 2), "SV13w", base="mixture-w4a16", place=EXPERT),
    case("SV13", "quark", emptied(f"{UP}.weight", 5, 16), "SV13w", base="llama-mxfp4", place=f"{UP}.weight"),
    case("SV13", "ct", emptied(f"{UP}.weight_packed", 5), "SV13w", base="llama-ct-nvfp4", place=UP),
    case("SV13", "kimi", emptied(f"{KIMI_UP}.weight", 5, 16), "SV13w", base="kimi-mxfp4", place=KIMI_UP),
    case("SV13", "gpt-oss", emptied(f"{STACKED}_blocks", 5, 16), "SV13w", base="gpt-oss", place=STACKED),
    case("SV14", "block", halved(f"{UP}.weight", 5), "SV14w", place=f"{UP}.weight"),
    case("SV14", "quark", halved(f"{UP}.weight", 5, 16), "SV14w", base="llama-mxfp4", place=f"{UP}.weight"),
    case("SV14", "ct", halved(f"{UP}.weight_packed", 5, 16), "SV14w", base="llama-ct-mxfp4", place=UP),
    case("SV14", "gpt-oss", halved(f"{STACKED}_blocks", 5, 16), "SV14w", base="gpt-oss", place=STACKED),
    case("SV15", "constant", constant(f"{O}.weight"), "SV15", place=f"{O}.weight"),
    case("SV15", "one-sign", positive(f"{O}.weight"), "SV15w", place=f"{O}.weight"),
    case("SV15", "ct-one-sign", positive(f"{O}.weight_packed"), "SV15w", base="llama-ct-nvfp4", place=O),
    case("SV15", "dead", dead(O, 0x38), "SV15w", place=f"{O}.weight"),
    case("SV15", "dead-quark", dead(DOWN, 0), "SV15w", base="llama-mxfp4", place=f"{DOWN}.weight"),
    case("SV15", "shard", zero_shard, "SV15", base="mixture-mxfp4", place="model-00002"),
    case("NU10", "nan", floats("model.norm.weight", 3, float("nan")), "NU10", place="model.norm.weight"),
    case("NU10", "infinite", floats("model.layers.1.mlp.gate.e_score_correction_bias", 0, float("-inf")), "NU10",
         base="mixture-mxfp4", place="e_score"),
    case("NU10", "embedding", floats("model.embed_tokens.weight", 40, float("inf")), "NU10", base="llama-ct-nvfp4",
         place="embed"),
]  # fmt: skip

LEGITIMATE: list[tuple[str, str, Edit]] = []
