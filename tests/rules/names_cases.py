"""NM, what is kept, added and lost: edits of good checkpoints, the exact codes they raise, oddities that raise none."""

from __future__ import annotations

import struct
from dataclasses import replace

from tests.builders.edits import (
    UP,
    Edit,
    Q,
    body,
    config,
    drop,
    each,
    kv_cast,
    listed,
    put,
    quant,
    quantized,
)
from tests.builders.tiny import Tensor, Tiny, f32
from tests.rules.cases import Case

STACK = "model.layers.1.mlp.experts"
KIMI = f"language_model.{STACK}.2"
TIED = "tied-nvfp4"
WQKV = "vision_tower.encoder.blocks.0.wqkv"
SPECULATIVE = each(
    put("mtp.fc.weight", Tensor("BF16", (64, 128), b"\x00\x3c" * 8192)),
    put("mtp.layers.0.self_attn.q_proj.weight", Tensor("BF16", (64, 64), b"\x00\x3c" * 4096)),
)


def fp8(name: str) -> Edit:
    """Store a layer's weight as FP8 codes."""

    def edit(tiny: Tiny) -> None:
        shape = tiny.tensors[f"{name}.weight"].shape
        tiny.tensors[f"{name}.weight"] = Tensor("F8_E4M3", shape, b"\x38" * (shape[0] * shape[1]))

    return edit


def prefixed(old: str, new: str) -> Edit:
    """Write every module under another prefix, lists included."""

    def edit(tiny: Tiny) -> None:
        def moved(name: str) -> str:
            return new + name.removeprefix(old) if name.startswith(old) else name

        tiny.tensors = {moved(name): tensor for name, tensor in tiny.tensors.items()}
        block = tiny.config["quantization_config"]
        for key in block.keys() & {"ignore", "exclude"}:
            block[key] = [moved(name) for name in block[key]]
        if tiny.hf_quant_config is not None:
            inner = tiny.hf_quant_config["quantization"]
            inner["exclude_modules"] = [moved(name) for name in inner["exclude_modules"]]

    return edit


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
        Case(
            "NM10",
            "packed",
            quantized("model.layers.1.mlp.gate", 4, 64),
            "NM07 NM10",
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
        Case("NM11", "head", quantized("lm_head", 32, 64), "NM07 NM08 NM11", place="lm_head"),
        Case(
            "NM11",
            "routing-bias",
            put("model.layers.1.mlp.gate.e_score_correction_bias", Tensor("BF16", (4,), bytes(8))),
            "NM11",
            base="mixture-nvfp4",
            place="e_score",
        ),
        Case(
            "NM11",
            "routing-bias-alone",
            put("model.layers.1.mlp.gate.e_score_correction_bias", Tensor("BF16", (4,), bytes(8))),
            "NM11w",
            base="mixture-mxfp4",
            evidence={"source": None},
        ),
        Case("NM12", "norm-lost", drop("model.layers.0.input_layernorm.weight"), "NM12", place="input_layernorm"),
        Case("NM12", "bias-lost", drop(f"{Q}.bias"), "NM12", base="tied-nvfp4", place=f"{Q}.bias"),
        Case(
            "NM12",
            "layer-lost",
            lambda tiny: drop(*(n for n in list(tiny.tensors) if UP in n))(tiny),
            "CN16w NM12",
            place=UP,
        ),
        Case("NM12", "added", put("model.extra.weight", Tensor("BF16", (4,), bytes(8))), "NM12", place="model.extra"),
        Case("NM12", "stack-lost", drop(f"{STACK}.down_proj_blocks"), "NM12 NM19", base="gpt-oss", place=STACK),
        Case(
            "NM12",
            "copied-scale-renamed",
            each(fp8("model.layers.3.eh_proj"), put("model.layers.3.eh_proj.weight_scale", f32(1.0))),
            "NM12 NM12w NU14i",
            base="predicting-mxfp4",
            place="model.layers.3.eh_proj.weight_scale_inv",
            source=each(fp8("model.layers.3.eh_proj"), put("model.layers.3.eh_proj.weight_scale_inv", f32(1.0))),
        ),
        Case(
            "NM12",
            "prediction-layer-lost",
            lambda tiny: drop(*(n for n in list(tiny.tensors) if ".layers.3." in n))(tiny),
            "NM12w NM17w",
            base="predicting-mxfp4",
            place=".layers.3.",
        ),
        Case(
            "NM14", "unwrapped", prefixed("language_model.model.", "model."), "NM14", base="kimi-nvfp4", place="model."
        ),
        Case("NM14", "doubled", prefixed("model.", "model.model."), "NM14", place="model.model."),
        Case("NM14", "moved", prefixed("model.", "model.language_model."), "NM14", base="mixture-mxfp4"),
        Case(
            "NM15",
            "left-int4",
            integers(f"{KIMI}.up_proj"),
            "CN07 NM15",
            base="kimi-int4-nvfp4",
            place=f"{KIMI}.up_proj",
        ),
        Case(
            "NM15",
            "left-shape",
            put(f"{KIMI}.up_proj.weight_shape", Tensor("I32", (2,), struct.pack("<ii", 32, 64))),
            "CN07 NM01 NM15",
            base="kimi-int4-nvfp4",
            place=KIMI,
        ),
        Case("NM15", "quark-int4", integers(f"{KIMI}.up_proj"), "CN07 NM12 NM15", base="kimi-mxfp4", place=KIMI),
        Case(
            "NM16",
            "copy-of-embedding",
            put("lm_head.weight", Tensor("BF16", (32, 64), bytes(4096))),
            "NM16w",
            base=TIED,
        ),
        Case("NM16", "packed-copy", quantized("lm_head", 32, 64), "NM11 NM16", base="tied-nvfp4", place="lm_head"),
        Case("NM16", "no-head", drop("lm_head.weight"), "NM12 NM16", base="gpt-oss", place="config.json"),
        Case(
            "NM17",
            "undeclared",
            each(
                quant(lambda q: q["ignore"].remove("model.layers.3.*")),
                body(lambda b: b["exclude_modules"].remove("model.layers.3.*")),
            ),
            "NM17w",
            base="predicting-nvfp4",
            place="model.layers.3.",
        ),
        Case(
            "NM17",
            "half-declared",
            quant(lambda q: q["exclude"].remove("model.layers.3.self_attn.o_proj")),
            "NM17w",
            base="predicting-mxfp4",
            place="model.layers.3.self_attn.o_proj",
        ),
        Case(
            "NM18",
            "vector",
            each(
                put("model.layers.0.norm0.weight", Tensor("U8", (32,), bytes(32))),
                put("model.layers.0.norm0.weight_scale", Tensor("U8", (2,), b"\x7f\x7f")),
            ),
            "NM11 NM18",
            base="llama-mxfp4",
            place="norm0",
            source=put("model.layers.0.norm0.weight", Tensor("BF16", (64,), bytes(128))),
        ),
        Case(
            "NM10",
            "kimi",
            quantized("language_model.model.layers.1.mlp.gate", 4, 64),
            "NM07 NM10",
            base="kimi-nvfp4",
            place="mlp.gate",
        ),
        Case("NM11", "vision", quantized(WQKV, 144, 48), "NM07 NM11", base="kimi-nvfp4", place="vision_tower"),
        Case(
            "NM11",
            "projector",
            quantized("mm_projector.proj.0", 64, 48),
            "NM07 NM11",
            base="kimi-nvfp4",
            place="mm_projector",
        ),
        Case("NM11", "embedding", quantized("model.embed_tokens", 32, 64), "NM11", place="embed_tokens"),
        Case(
            "NM17",
            "fc-not-covered",
            each(SPECULATIVE, quant(lambda q: q["exclude"].append("mtp.layers.0.self_attn.q_proj"))),
            "NM17w",
            base="llama-mxfp4",
            place="mtp.fc",
            source=SPECULATIVE,
        ),
        Case(
            "NM17",
            "promised",
            config(num_nextn_predict_layers=1),
            "NM17w",
            base="mixture-nvfp4",
            place="config.json",
            evidence={"source": None},
        ),
        Case(
            "NM25",
            "norm",
            lambda tiny: None,
            "NM25w",
            place="model.norm",
            source=put("model.norm.weight", Tensor("F32", (64,), bytes(256))),
        ),
        Case(
            "NM25",
            "router",
            lambda tiny: None,
            "NM25",
            base="mixture-mxfp4",
            place="model.layers.1.mlp.gate",
            source=put("model.layers.1.mlp.gate.weight", Tensor("F32", (4, 64), bytes(1024))),
        ),
        Case(
            "NM13",
            "adapter",
            put(f"{UP}.lora_A.weight", Tensor("BF16", (4, 64), bytes(512))),
            "NM12 NM13",
            place="lora",
        ),
        Case("NM13", "amax", put(f"{UP}.weight_quantizer._amax", f32(1.0)), "NM12 NM13", place="_amax"),
    )
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("listed", "mixture-nvfp4", listed()),
    ("fp8-kv-cast", "llama-nvfp4", kv_cast),
    ("biases", "tied-nvfp4", config(torch_dtype="bfloat16")),
    (
        "new-library-version",
        "llama-nvfp4",
        config(transformers_version="5.23.0", dtype="bfloat16", torch_dtype="bfloat16"),
    ),
]
