"""NM: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import struct
from dataclasses import replace

from tests.builders.edits import (
    DOWN,
    EXPERT,
    UP,
    Edit,
    Q,
    body,
    config,
    drop,
    each,
    four_over_six,
    kv_cast,
    listed,
    put,
    quant,
    quantized,
    reshape,
    typed,
    without,
    zero_block,
)
from tests.builders.tiny import Tensor, Tiny, f32, llama
from tests.builders.variants import gpt_oss
from tests.rules.cases import Case

STACK = "model.layers.1.mlp.experts"
KIMI = f"language_model.{STACK}.2"
TIED = "tied-nvfp4"
WQKV = "vision_tower.encoder.blocks.0.wqkv"
# Prediction layers under a name of their own, as in Qwen3-Next.
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


def plain_stack(tiny: Tiny) -> None:
    """A tool that looks for linear layers passes over the experts of a layer."""
    for name in [name for name in tiny.tensors if name.startswith(f"{STACK}.")]:
        del tiny.tensors[name]
    tiny.tensors[f"{STACK}.gate_up_proj"] = Tensor("BF16", (4, 64, 64), bytes(32768))
    tiny.tensors[f"{STACK}.down_proj"] = Tensor("BF16", (4, 64, 32), bytes(16384))


def plain_blocks(tiny: Tiny) -> None:
    """The experts of one layer stay in the source's 16 bits."""
    source = gpt_oss()
    for name in ("gate_up_proj", "down_proj"):
        drop(f"{STACK}.{name}_blocks", f"{STACK}.{name}_scales")(tiny)
        tiny.tensors[f"{STACK}.{name}"] = source.tensors[f"{STACK}.{name}"]


def stack_module(tiny: Tiny) -> None:
    """Experts packed as one tensor, as a tool does that has no name for them."""
    for name in [name for name in tiny.tensors if name.startswith(f"{STACK}.") and "down" not in name]:
        del tiny.tensors[name]
    module = f"{STACK}.gate_up_proj"
    tiny.tensors[f"{module}.weight_packed"] = Tensor("U8", (4, 64, 32), b"\x21" * 8192)
    tiny.tensors[f"{module}.weight_scale"] = Tensor("F8_E4M3", (4, 64, 4), b"\x38" * 1024)


def mostly_plain(tiny: Tiny) -> None:
    """All but one layer are left as they are, and excluded."""
    source = llama()
    modules = [name.removesuffix(".weight_scale") for name in tiny.tensors if name.endswith(".weight_scale")]
    modules.remove("model.layers.0.self_attn.o_proj")
    for module in modules:
        drop(*(f"{module}.{suffix}" for suffix in ("weight_scale", "weight_scale_2", "input_scale")))(tiny)
        tiny.tensors[f"{module}.weight"] = source.tensors[f"{module}.weight"]
    tiny.config["quantization_config"]["ignore"] += modules
    tiny.hf_quant_config["quantization"]["exclude_modules"] += modules


# Everything here is decided by headers; what wrong numbers raise beside it belongs to the rules that read them.
CASES = [
    replace(case, level="headers")
    for case in (
        Case("NM01", "no-block-scale", drop(f"{UP}.weight_scale"), "CN16w NM01", place=f"{UP}.weight_scale"),
        Case(
            "NM01", "no-input-scale", drop(f"{EXPERT}.up_proj.input_scale"), "NM01", base="mixture-nvfp4", place=EXPERT
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
            "NM09",
            "projection",
            drop(*(f"{EXPERT}.down_proj.{s}" for s in ("weight", "weight_scale", "weight_scale_2", "input_scale"))),
            "CN16w NM09 NM12",
            base="mixture-nvfp4",
            place=EXPERT,
        ),
        Case(
            "NM09",
            "expert",
            lambda tiny: drop(*(n for n in list(tiny.tensors) if EXPERT in n))(tiny),
            "CN16w NM09 NM12",
            base="mixture-mxfp4",
            place="model.layers.1.mlp.experts",
        ),
        Case(
            "NM09",
            "last-expert",
            lambda tiny: drop(*(n for n in list(tiny.tensors) if ".1.mlp.experts.3." in n))(tiny),
            "CN16w NM09 NM12",
            base="mixture-mxfp4",
        ),
        Case("NM09", "layer", without(2), "CN16w NM09 NM12", base="mixture-mxfp4"),
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
        Case("NM19", "no-bias", drop(f"{STACK}.down_proj_bias"), "NM12 NM19", base="gpt-oss", place="down_proj_bias"),
        Case("NM19", "no-scales", drop(f"{STACK}.down_proj_scales"), "NM19", base="gpt-oss", place="down_proj_scales"),
        Case("NM19", "transposed", reshape(f"{STACK}.down_proj_blocks", (4, 3, 64, 16)), "NM19", base="gpt-oss"),
        Case(
            "NM19", "scales", reshape(f"{STACK}.gate_up_proj_scales", (4, 2, 192)), "NM19", base="gpt-oss", place=STACK
        ),
        Case(
            "NM19", "dtype", typed(f"{STACK}.gate_up_proj_scales", "F8_E8M0"), "CN07 NM19", base="gpt-oss", place=STACK
        ),
        Case(
            "NM20",
            "quark",
            put(f"{EXPERT}.up_proj.input_scale", f32(0.003)),
            "NM02w NM20",
            base="mixture-mxfp4",
            place="up_proj",
        ),
        Case("NM01", "mixed", drop(f"{EXPERT}.up_proj.input_scale"), "NM01", base="mixture-mixed", place=EXPERT),
        Case("NM01", "kimi", drop(f"{KIMI}.up_proj.weight_scale_2"), "NM01", base="kimi-nvfp4", place=KIMI),
        Case("NM02", "kimi", drop(f"{KIMI}.up_proj.weight_scale"), "CN16w NM02", base="kimi-mxfp4", place=KIMI),
        Case("NM03", "kimi", drop(f"{KIMI}.up_proj.weight_scale"), "CN16w NM03", base="kimi-ct-mxfp4", place=KIMI),
        Case(
            "NM05", "compressed-scale", typed(f"{UP}.weight_scale", "U8"), "CF16 NM05", base="llama-ct-nvfp4", place=UP
        ),
        Case(
            "NM09",
            "kimi",
            lambda tiny: drop(*(n for n in list(tiny.tensors) if f"{KIMI}." in n))(tiny),
            "CN16w NM09 NM12",
            base="kimi-nvfp4",
            place="experts",
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
        Case("NM21", "gpt-oss-plain", plain_blocks, "NM21", base="gpt-oss", place="model.layers.1.mlp.experts"),
        Case(
            "NM21",
            "stack-left-plain",
            plain_stack,
            "CN16w NM12 NM21",
            base="mixture-nvfp4",
            place="model.layers.1.mlp.experts",
        ),
        Case("NM21", "mostly-plain", mostly_plain, "NM21w", base="llama-nvfp4"),
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
            "NM24",
            "packed-stack",
            lambda tiny: tiny.rename(f"{STACK}.down_proj_blocks", f"{STACK}.down_proj_packed"),
            "NM19 NM24",
            base="gpt-oss",
            place="down_proj_packed",
        ),
        Case(
            "NM24",
            "stack-module",
            stack_module,
            "CN16w NM03 NM04 NM12 NM24",
            base="mixture-ct-nvfp4",
            place="gate_up_proj",
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
    ("largest-scale-256", "llama-nvfp4", four_over_six),
    ("single-file", "llama-nvfp4", lambda tiny: setattr(tiny, "shards", 1)),
    ("uneven-shards", "mixture-nvfp4", lambda tiny: setattr(tiny, "shards", 9)),
    ("scalar-of-shape-1", "llama-nvfp4", reshape(f"{DOWN}.weight_scale_2", (1,))),
    (
        "expert-stack-excluded",
        "gpt-oss",
        each(
            plain_blocks,
            quant(lambda q: q["modules_to_not_convert"].append("model.layers.1.mlp.experts")),
        ),
    ),
    ("biases", "tied-nvfp4", config(torch_dtype="bfloat16")),
    ("quark-weight-only", "llama-mxfp4", quant(lambda q: q["global_quant_config"].update(input_tensors=None))),
    (
        "new-library-version",
        "llama-nvfp4",
        config(transformers_version="5.23.0", dtype="bfloat16", torch_dtype="bfloat16"),
    ),
]
