"""NU: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tests.builders.edits import DOWN, UP, Edit, each, poke, put, quant, set_global
from tests.builders.sources import int4_weight, swept, tag
from tests.builders.tiny import Tensor, Tiny, bf16, f32, llama, values_of
from tests.rules.cases import Case

NORM = "model.norm.weight"
ROUTER = "model.layers.1.mlp.gate.weight"
EXPERTS = "model.layers.1.mlp.experts"
KIMI = "language_model.model.layers.1.mlp.experts"
TINY_SCALE = 2.0**-9
SUFFIXES = ("weight", "weight_scale", "weight_scale_2", "input_scale")


# --- edits ---------------------------------------------------------------------------------------------------------


def plain(name: str, change: object) -> Edit:
    """Change the values of a BF16 tensor."""

    def edit(tiny: Tiny) -> None:
        tiny.tensors[name] = bf16(change(values_of(tiny.tensors[name])))  # type: ignore[operator]

    return edit


def exchange(one: str, other: str) -> Edit:
    """Exchange two modules' tensors."""

    def edit(tiny: Tiny) -> None:
        for suffix in ("weight", "weight_packed", *SUFFIXES[1:], "weight_global_scale", "input_global_scale"):
            mine, theirs = f"{one}.{suffix}", f"{other}.{suffix}"
            if mine in tiny.tensors:
                tiny.tensors[mine], tiny.tensors[theirs] = tiny.tensors[theirs], tiny.tensors[mine]

    return edit


def exchange_only(suffix: str, one: str, other: str) -> Edit:
    """Exchange one kind of tensor of two modules."""

    def edit(tiny: Tiny) -> None:
        mine, theirs = f"{one}.{suffix}", f"{other}.{suffix}"
        tiny.tensors[mine], tiny.tensors[theirs] = tiny.tensors[theirs], tiny.tensors[mine]

    return edit


def swapped(name: str) -> Edit:
    def edit(tiny: Tiny) -> None:
        tensor = tiny.tensors[name]
        data = np.frombuffer(tensor.data, np.uint8)
        tensor.data = ((data << 4) | (data >> 4)).astype(np.uint8).tobytes()

    return edit


def packed(codes: np.ndarray) -> bytes:
    return (codes[:, 1::2] << 4 | codes[:, ::2]).astype(np.uint8).tobytes()


def rounded(scaled: np.ndarray) -> np.ndarray:
    return np.clip(scaled, -6, 6).astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 0xF


def remade(name: str, ratio: object, *, source: Tiny | None = None, before: bool = False) -> Edit:
    """Quantize a module again, its block scales `ratio(blocks, global scale)`; `before` divides by them unrounded."""

    def edit(tiny: Tiny) -> None:
        values = values_of((source or llama()).tensors[f"{name}.weight"])
        rows, columns = values.shape
        blocks = values.reshape(rows, -1, 16)
        scale = np.frombuffer(tiny.tensors[f"{name}.weight_scale_2"].data, "<f4")[0]
        wanted = ratio(blocks, scale)  # type: ignore[operator]
        stored = np.clip(wanted, TINY_SCALE, 448).astype(ml_dtypes.float8_e4m3fn)
        steps = (wanted if before else stored.astype(np.float32)) * scale
        codes = rounded((blocks / steps[..., None]).reshape(rows, columns))
        tiny.tensors[f"{name}.weight"].data = packed(codes)
        tiny.tensors[f"{name}.weight_scale"].data = stored.tobytes()

    return edit


def by_max(blocks: np.ndarray, scale: np.float32) -> np.ndarray:
    return abs(blocks).max(axis=2) / (6 * scale)


def coarse(blocks: np.ndarray, scale: np.float32) -> np.ndarray:
    """Too large by a fifth and more: no rule's scales, and worse than plain ones."""
    return by_max(blocks, scale) * np.float32(1.4) * (1 + np.arange(blocks.shape[1]) % 3 * np.float32(0.1))


def before_rounding(name: str) -> Edit:
    """An MXFP4 module whose codes were divided by the exact scale, its power of two rounded up afterwards."""

    def edit(tiny: Tiny) -> None:
        values = values_of(llama().tensors[f"{name}.weight"])
        blocks = values.reshape(values.shape[0], -1, 32)
        exact = abs(blocks).max(axis=2) / 6
        exponent = np.ceil(np.log2(exact))
        tiny.tensors[f"{name}.weight"].data = packed(rounded((blocks / exact[..., None]).reshape(values.shape)))
        tiny.tensors[f"{name}.weight_scale"].data = (exponent + 127).astype(np.uint8).tobytes()

    return edit


def optimized(tiny: Tiny) -> None:
    """Move every ninth byte one step, in every layer, as GPTQ and AutoRound do."""
    for name, tensor in tiny.tensors.items():
        if tensor.dtype == "U8" and name.endswith(".weight"):
            data = np.frombuffer(tensor.data, np.uint8).copy()
            low = data[::9] & 7
            data[::9] = np.where(low == 0, data[::9] + 1, data[::9] - 1)
            tensor.data = data.tobytes()


def every(make: object) -> Edit:
    """Quantize every module of the llama again."""
    names = [n.removesuffix(".weight") for n in llama().tensors if n.endswith("_proj.weight")]
    return each(*(remade(name, make) for name in names))


def four_over_six(tiny: Tiny) -> None:
    """Global scales for a largest block scale of 256, and of each block the better of mapping its maximum to 6 or 4."""

    def better(blocks: np.ndarray, scale: np.float32) -> np.ndarray:
        largest = abs(blocks).max(axis=2)
        choices = [largest / (6 * scale), largest / (4 * scale)]
        errors = []
        for ratio in choices:
            step = ratio.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)[..., None] * scale
            made = np.clip(blocks / step, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32) * step
            errors.append(((made - blocks) ** 2).sum(axis=2))
        return np.where(errors[1] < errors[0], choices[1], choices[0])

    for name, tensor in list(tiny.tensors.items()):
        if name.endswith("weight_scale_2"):
            value = np.frombuffer(tensor.data, "<f4")[0] * np.float32(448 / 256)
            tiny.tensors[name] = f32(float(value))
    every(better)(tiny)


def zeros(name: str) -> Edit:
    """A weight of zeros, as modelopt quantizes it: no global scale, NaN block scales, codes of 6."""

    def edit(tiny: Tiny) -> None:
        tiny.tensors[f"{name}.weight"].data = b"\x77" * len(tiny.tensors[f"{name}.weight"].data)
        tiny.tensors[f"{name}.weight_scale"].data = b"\xff" * len(tiny.tensors[f"{name}.weight_scale"].data)
        tiny.tensors[f"{name}.weight_scale_2"] = f32(0.0)

    return edit


def blank(*suffixes: str) -> Edit:
    return lambda tiny: [setattr(tiny.tensors[s], "data", bytes(len(tiny.tensors[s].data))) for s in suffixes]


def reversed_words(name: str) -> Edit:
    """The source's INT4 words packed from the other end."""

    def edit(tiny: Tiny) -> None:
        tensor = tiny.tensors[f"{name}.weight_packed"]
        words = np.frombuffer(tensor.data, np.uint8).reshape(-1, 4)[:, ::-1]
        tensor.data = ((words << 4) | (words >> 4)).astype(np.uint8).tobytes()

    return edit


def exactly(name: str, seed: int = 9) -> tuple[Edit, Edit]:
    """A module in INT4 whose products need more bits than BF16 has, and its result made of the exact ones."""
    values = np.random.default_rng(seed).normal(0, 0.02, (64, 32)).astype(np.float32)
    tensors, _ = int4_weight(values)
    scales = np.frombuffer(tensors["weight_scale"].data, ml_dtypes.bfloat16).astype(np.float32).reshape(64, 1)
    exact = np.clip(np.rint(values / scales), -8, 7) * scales

    def source(tiny: Tiny) -> None:
        tiny.tensors |= {f"{name}.{suffix}": tensor for suffix, tensor in tensors.items()}

    def result(tiny: Tiny) -> None:
        blocks = exact.reshape(64, -1, 16)
        scale = np.float32(abs(exact).max() / 2688)
        stored = np.clip(by_max(blocks, scale), TINY_SCALE, 448).astype(ml_dtypes.float8_e4m3fn)
        codes = rounded((blocks / (stored.astype(np.float32) * scale)[..., None]).reshape(64, 32))
        tiny.tensors[f"{name}.weight"].data = packed(codes)
        tiny.tensors[f"{name}.weight_scale"].data = stored.tobytes()
        tiny.tensors[f"{name}.weight_scale_2"] = f32(float(scale))

    return source, result


EMBEDDING = "model.embed_tokens.weight"
WIDE = exactly(f"{KIMI}.2.down_proj")
GATE, LATENT = "model.layers.0.mlp.gate_proj", "model.layers.1.self_attn.o_proj"


def zeroed(name: str) -> Edit:
    return plain(name, lambda values: values * 0)


CASES = [
    # NU01: what was copied
    Case("NU01", "one-element", poke(EMBEDDING, 777, 0x3F), "NU01", place=EMBEDDING),
    Case("NU01", "last-byte", poke(NORM, 127, 0x3F), "NU01", base="llama-mxfp4", place=NORM),
    Case("NU01", "offloaded", blank("lm_head.weight"), "NU01", base="llama-ct-nvfp4", place="lm_head"),
    Case("NU01", "router-rows", plain(ROUTER, lambda v: v[[1, 0, 2, 3]]), "NU01", base="mixture-nvfp4", place=ROUTER),
    Case("NU01", "other-shape", put(NORM, Tensor("BF16", (32,), bytes(64))), "NU01", place=NORM),
    Case(
        "NU01",
        "rounded-too-far",
        put(NORM, Tensor("F16", (64,), bytes(128))),
        "NU01",
        base="llama-w4a16",
        place=NORM,
    ),
    # NU02: global scales
    Case("NU02", "clipping", each(set_global(DOWN, 1.0e-5), remade(DOWN, by_max)), "NU02 NU04", place=DOWN),
    Case("NU02", "too-wide", each(set_global(DOWN, 3.0e-4), remade(DOWN, by_max)), "NU02w SV04w", place=DOWN),
    # NU03: blocks that nothing explains
    Case("NU03", "one-code", poke(f"{DOWN}.weight", 100, 0x77), "NU03", place=DOWN),
    Case("NU03", "one-scale", poke(f"{UP}.weight_scale", 9, 0x20), "NU03", base="llama-ct-nvfp4", place=UP),
    Case("NU03", "one-mx-scale", poke(f"{UP}.weight_scale", 9, 118), "NU03", base="llama-mxfp4", place=UP),
    Case("NU03", "expert", poke(f"{EXPERTS}.3.up_proj.weight", 9, 0x77), "NU03", base="fused-nvfp4", place=EXPERTS),
    Case("NU03", "optimized", optimized, "NU03i"),
    # NU04: too far
    Case("NU04", "scale-of-another", exchange_only("weight_scale", GATE, UP), "NU04"),
    Case("NU04", "reciprocal", set_global(DOWN, 26880.0), "NU02w NU04 SV05w SV07", place=DOWN),
    Case("NU04", "doubled", set_global(LATENT, 2.0e-4), "NU02w NU04", place=LATENT),
    Case(
        "NU04",
        "reordered-inputs",
        lambda tiny: None,
        "NU04",
        base="fused-nvfp4",
        source=plain(f"{EXPERTS}.gate_up_proj", lambda v: v[:, :, ::-1]),
    ),
    # NU05: nibble order
    Case("NU05", "one-module", swapped(f"{UP}.weight"), "NU05", place=UP),
    Case("NU05", "mx", swapped(f"{UP}.weight"), "NU05", base="llama-mxfp4", place=UP),
    Case("NU05", "compressed", swapped(f"{UP}.weight_packed"), "NU05", base="llama-ct-mxfp4", place=UP),
    # NU06: searched scales that lose
    Case("NU06", "coarse", remade(DOWN, coarse), "NU06w", place=DOWN),
    # NU07: quantized sources
    Case(
        "NU07",
        "other-end",
        lambda tiny: None,
        "NU07",
        base="kimi-int4-nvfp4",
        source=reversed_words(f"{KIMI}.1.up_proj"),
        place=KIMI,
    ),
    Case(
        "NU07",
        "not-rounded",
        WIDE[1],
        "NU07i",
        base="kimi-int4-nvfp4",
        source=WIDE[0],
        place=KIMI,
    ),
    # NU08: pruning
    Case(
        "NU08",
        "dense",
        lambda tiny: tag(tiny, "paired-4:8"),
        "NU08",
        base="mixture-ct-nvfp4",
        place=EXPERTS,
        evidence={"source": None},
    ),
    Case(
        "NU08",
        "one-group",
        each(*(poke(f"{EXPERTS}.2.up_proj.weight_packed", at, 0x11) for at in range(8, 12))),
        "NU08",
        base="mixture-pruned",
        place=f"{EXPERTS}.2",
        evidence={"source": None},
    ),
    # NU09: dead weights
    Case("NU09", "nan", zeros(DOWN), "NU09 SV01 SV05 SV15", source=zeroed(f"{DOWN}.weight"), place=DOWN),
    Case("NU09", "exact", blank(f"{DOWN}.weight"), "NU09w SV13w SV15w", source=zeroed(f"{DOWN}.weight"), place=DOWN),
    # NU11: another's weight
    Case("NU11", "experts", exchange(f"{EXPERTS}.1.down_proj", f"{EXPERTS}.2.down_proj"), "NU11", base="mixture-nvfp4"),
    Case("NU11", "layers", exchange(f"{LATENT}", LATENT.replace(".1.", ".0.")), "NU11", base="llama-mxfp4"),
    Case("NU11", "gate-and-up", exchange(GATE, UP), "NU11", base="llama-ct-nvfp4"),
    Case(
        "NU11",
        "shifted-in-the-stack",
        lambda tiny: None,
        "NU11",
        base="fused-transposed-mxfp4",
        source=plain(f"{EXPERTS}.down_proj", lambda values: np.roll(values, 1, axis=0)),
    ),
    # NU12: lost weights
    Case("NU12", "zeros", blank(f"{DOWN}.weight"), "NU12 SV13w SV15w", place=DOWN),
    Case("NU12", "mx", blank(f"{DOWN}.weight"), "NU12 SV13w SV15w", base="llama-mxfp4", place=DOWN),
    # NU13: codes of another scale
    Case("NU13", "mx", before_rounding(DOWN), "NU04 NU13", base="llama-mxfp4", place=DOWN),
    Case("NU13", "nvfp4", remade(DOWN, by_max, before=True), "NU13w", place=DOWN),
    # NU14: more than the source
    Case("NU14", "attention", lambda tiny: None, "NU14i", base="int4-nvfp4", place="language_model"),
    # NU15: another mode than declared
    Case(
        "NU15",
        "declared-ceil",
        quant(lambda q: q["global_quant_config"]["weight"].update(scale_calculation_mode="ceil")),
        "NU15w",
        base="llama-mxfp4",
    ),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("mse", "llama-nvfp4", every(swept)),
    ("four-over-six", "llama-nvfp4", four_over_six),
]
