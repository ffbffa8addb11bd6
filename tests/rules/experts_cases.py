"""NM, routed experts: edits of good checkpoints, the exact codes they raise, oddities that raise none."""

from __future__ import annotations

from dataclasses import replace

from tests.builders.edits import (
    EXPERT,
    Edit,
    drop,
    each,
    put,
    quant,
    reshape,
    typed,
    without,
)
from tests.builders.tiny import Tensor, Tiny, f32, llama, mixture
from tests.builders.variants import gpt_oss
from tests.rules.cases import Case

STACK = "model.layers.1.mlp.experts"
KIMI = f"language_model.{STACK}.2"


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


def edge_layer(tiny: Tiny) -> None:
    """The experts of the last layer are left in 16 bits on purpose."""
    source, layer = mixture(), "model.layers.2.mlp.experts"
    for name in [name for name in tiny.tensors if name.startswith(f"{layer}.")]:
        del tiny.tensors[name]
    tiny.tensors |= {name: tensor for name, tensor in source.tensors.items() if name.startswith(f"{layer}.")}
    tiny.config["quantization_config"]["ignore"].append(f"{layer}*")
    tiny.hf_quant_config["quantization"]["exclude_modules"].append(f"{layer}*")


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
        Case(
            "NM09",
            "kimi",
            lambda tiny: drop(*(n for n in list(tiny.tensors) if f"{KIMI}." in n))(tiny),
            "CN16w NM09 NM12",
            base="kimi-nvfp4",
            place="experts",
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
    )
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("edge-layer-plain", "mixture-nvfp4", edge_layer),
    (
        "expert-stack-excluded",
        "gpt-oss",
        each(
            plain_blocks,
            quant(lambda q: q["modules_to_not_convert"].append("model.layers.1.mlp.experts")),
        ),
    ),
]
