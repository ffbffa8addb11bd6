"""FU: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import struct
from dataclasses import replace

from tests.builders.edits import EXPERT, UP, Edit, drop, each, put, set_global
from tests.builders.tiny import Tensor, Tiny, f32, mixture
from tests.rules.cases import Case

Q = "model.layers.0.self_attn.q_proj"
K = "model.layers.0.self_attn.k_proj"
LATENT = "model.layers.0.self_attn.q_a_proj"
STACK = "model.layers.1.mlp.experts"


def divisor(module: str, of: str) -> Edit:
    """Another global scale in compressed-tensors' direction."""
    return put(f"{module}.{of}_global_scale", f32(30000.0, (1,)))


def inputs(expert: str, value: float) -> Edit:
    """Give an expert's gate and up another activation scale."""
    return each(*(put(f"{expert}.{part}_proj.input_scale", f32(value)) for part in ("gate", "up")))


def divisors(expert: str, value: float) -> Edit:
    return each(*(put(f"{expert}.{part}_proj.input_global_scale", f32(value, (1,))) for part in ("gate", "up")))


def smoothing(name: str, width: int) -> Edit:
    return put(name, Tensor("BF16", (width,), b"\x80\x3f" * width))


def _plain(tiny: Tiny, expert: str) -> None:
    source = mixture()
    for part in ("gate_proj", "up_proj", "down_proj"):
        for name in [name for name in tiny.tensors if name.startswith(f"{expert}.{part}.")]:
            del tiny.tensors[name]
        tiny.tensors[f"{expert}.{part}.weight"] = source.tensors[f"{expert}.{part}.weight"]


def plain(tiny: Tiny) -> None:
    _plain(tiny, "model.layers.2.mlp.experts.3")


def first_plain(tiny: Tiny) -> None:
    _plain(tiny, "model.layers.2.mlp.experts.0")


def two_algorithms(tiny: Tiny) -> None:
    layers = tiny.config["quantization_config"]["quantized_layers"]
    tiny.config["quantization_config"]["quantized_layers"] = {
        **layers,
        f"{EXPERT}.up_proj": {"quant_algo": "W4A16_NVFP4", "group_size": 16},
    }


def eight_bits(tiny: Tiny) -> None:
    """One expert's projections are FP8 although the layer is declared NVFP4."""
    for part, (rows, columns) in {"gate": (32, 64), "up": (32, 64), "down": (64, 32)}.items():
        module = f"{EXPERT}.{part}_proj"
        drop(f"{module}.weight_scale_2")(tiny)
        tiny.tensors[f"{module}.weight"] = Tensor("F8_E4M3", (rows, columns), b"\x38" * (rows * columns))
        tiny.tensors[f"{module}.weight_scale"] = f32(1e-3)


def one_by_one(tiny: Tiny) -> None:
    tiny.tensors[f"{STACK}.0.up_proj.weight"] = Tensor("BF16", (96, 64), bytes(12288))


def transposed(tiny: Tiny) -> None:
    """One projection in 16 bits and with its axes as other models have them."""
    drop(f"{STACK}.down_proj_blocks", f"{STACK}.down_proj_scales")(tiny)
    tiny.tensors[f"{STACK}.down_proj"] = Tensor("BF16", (4, 64, 96), bytes(49152))


def merged(tiny: Tiny) -> None:
    """modelopt's layout of a merged projection: one global scale for q, k and v."""
    module = "model.layers.0.self_attn.qkv_proj"
    tiny.tensors[f"{module}.weight_scale_2"] = f32(1e-4)


def wk(tiny: Tiny) -> None:
    indexer = "model.layers.0.self_attn.indexer.wk"
    tiny.tensors[f"{indexer}.weight"] = Tensor("F8_E4M3", (32, 64), b"\x38" * 2048)
    tiny.tensors[f"{indexer}.weight_scale_inv"] = Tensor("F32", (1, 1), struct.pack("<f", 1e-3))


# Scales decide here; what wrong weights raise beside it belongs to the rules that compare them with the source.
CASES = [
    replace(case, level="scales")
    for case in (
        Case(
            "FU01", "k", set_global("model.layers.0.self_attn.k_proj", 3e-5), "FU01", place="model.layers.0.self_attn"
        ),
        Case("FU02", "dense", set_global(UP, 3e-5), "FU02", place="model.layers.0.mlp"),
        Case(
            "FU02",
            "shared",
            set_global("model.layers.1.mlp.shared_experts.up_proj", 3e-5),
            "FU02",
            base="mixture-nvfp4",
        ),
        Case("FU03", "latent", set_global("model.layers.0.self_attn.q_a_proj", 3e-5), "FU03", base="mixture-nvfp4"),
        Case("FU01", "divisor", divisor(K, "weight"), "FU01", base="llama-ct-nvfp4", place="model.layers.0.self_attn"),
        Case("FU01", "quark", set_global(K, 3e-5), "FU01", base="llama-quark-nvfp4", place="model.layers.0.self_attn"),
        Case("FU02", "divisor", divisor(UP, "weight"), "FU02", base="llama-ct-nvfp4", place="model.layers.0.mlp"),
        Case("FU02", "quark", set_global(UP, 3e-5), "FU02", base="llama-quark-nvfp4", place="model.layers.0.mlp"),
        Case("FU03", "divisor", divisor(LATENT, "weight"), "FU03", base="mixture-ct-nvfp4", place="self_attn"),
        Case(
            "FU03", "kimi", set_global(f"language_model.{LATENT}", 3e-5), "FU03", base="kimi-nvfp4", place="self_attn"
        ),
        Case(
            "FU04", "divisor", divisor(f"{EXPERT}.gate_proj", "weight"), "FU04", base="mixture-ct-nvfp4", place=EXPERT
        ),
        Case(
            "FU04",
            "kimi",
            set_global(f"language_model.{EXPERT}.gate_proj", 3e-5),
            "FU04",
            base="kimi-nvfp4",
            place=EXPERT,
        ),
        Case(
            "FU04", "quark", set_global(f"{EXPERT}.gate_proj", 3e-5), "FU04", base="mixture-quark-nvfp4", place=EXPERT
        ),
        Case("FU05", "quark", put(f"{UP}.input_scale_2", f32(0.0062)), "FU05w", base="llama-quark-nvfp4", place="mlp"),
        Case(
            "FU08",
            "kimi",
            each(*(put(f"language_model.{EXPERT}.{p}_proj.input_scale", f32(0.2)) for p in ("gate", "up"))),
            "FU08w",
            base="kimi-nvfp4",
            place=EXPERT,
        ),
        Case("FU05", "q", put(f"{Q}.input_scale", f32(0.0062)), "FU05", place="self_attn"),
        Case("FU05", "up", put(f"{UP}.input_scale", f32(0.0062)), "FU05", place="mlp"),
        Case(
            "FU05",
            "expert",
            put(f"{EXPERT}.up_proj.input_scale", f32(0.0062)),
            "FU05",
            base="mixture-nvfp4",
            place=EXPERT,
        ),
        Case(
            "FU05",
            "divisor",
            put(f"{UP}.input_global_scale", f32(500.0, (1,))),
            "FU05",
            base="llama-ct-nvfp4",
            place="mlp",
        ),
        Case("FU07", "expert-plain", plain, "FU07", base="mixture-ct-nvfp4", place="model.layers.2.mlp.experts.3"),
        Case("FU07", "first-plain", first_plain, "FU07", base="mixture-ct-nvfp4", place="model.layers.2.mlp.experts."),
        Case("FU08", "outlier", inputs(EXPERT, 0.2), "FU08w", base="mixture-nvfp4", place=EXPERT),
        Case("FU08", "hopeless", inputs(EXPERT, 9.0), "FU08", base="mixture-nvfp4", place=EXPERT),
        Case("FU08", "divisor", divisors(EXPERT, 3.0), "FU08w", base="mixture-ct-nvfp4", place=EXPERT),
        Case("FU09", "q", smoothing(f"{Q}.pre_quant_scale", 64), "CF03 FU09", base="llama-awq", place="self_attn"),
        Case(
            "FU09",
            "expert",
            smoothing(f"{EXPERT}.down_proj.pre_quant_scale", 32),
            "CF03 FU09",
            base="mixture-awq",
            place="model.layers.1.mlp.experts",
        ),
        Case(
            "FU10",
            "declared",
            two_algorithms,
            "CF04 CF13 FU10 NM01w",
            base="mixture-mixed",
            place="model.layers.1.mlp.experts",
        ),
        Case("FU10", "stored", eight_bits, "FU10", base="mixture-mixed", place="model.layers.1.mlp.experts"),
        Case("FU11", "both", one_by_one, "FU11 NM09", base="gpt-oss", place="model.layers.1.mlp.experts"),
        Case("FU11", "transposed", transposed, "FU11 NM21", base="gpt-oss", place="model.layers.1.mlp.experts"),
        Case("FU12", "merged", merged, "FU12w NM02", base="merged-mxfp4", place="qkv_proj"),
        Case("FU13", "wk", wk, "FU13w NM12", base="predicting-nvfp4", place="indexer.wk"),
        Case("FU04", "expert", set_global(f"{EXPERT}.gate_proj", 3e-5), "FU04", base="mixture-w4a16", place=EXPERT),
    )
]

LEGITIMATE: list[tuple[str, str, Edit]] = []
