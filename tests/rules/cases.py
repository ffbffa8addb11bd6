"""The rules' cases: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.builders.edits import (
    DOWN,
    EXPERT,
    FIRST,
    POINTER,
    SECOND,
    UP,
    Edit,
    Q,
    body,
    card,
    config,
    drop,
    each,
    file,
    four_over_six,
    header,
    index,
    kv_cast,
    later,
    listed,
    no_export,
    plain_expert,
    poke,
    put,
    quant,
    quantized,
    renumber,
    reshape,
    same_name,
    set_global,
    shard,
    stray,
    swap,
    twice,
    typed,
    without,
    wrong_input_spec,
    zero_block,
)
from tests.builders.tiny import Tensor, Tiny, f32, llama, mixture, mxfp4, nvfp4

FULL = {"card": True}

GOOD: dict[str, Callable[[], tuple[Tiny, Tiny]]] = {
    "llama-nvfp4": lambda: (s := llama(), nvfp4(s)),
    "llama-w4a16": lambda: (s := llama(), nvfp4(s, activations=False)),
    "llama-mxfp4": lambda: (s := llama(), mxfp4(s)),
    "mixture-nvfp4": lambda: (s := mixture(), nvfp4(s)),
    "mixture-w4a16": lambda: (s := mixture(), nvfp4(s, activations=False)),
    "mixture-mxfp4": lambda: (s := mixture(), mxfp4(s)),
}


@dataclass(frozen=True)
class Case:
    """One edit of a good checkpoint and the codes it must raise; a small `w` marks a warning."""

    code: str
    name: str
    edit: Edit
    raises: str
    base: str = "llama-nvfp4"
    place: str = ""  # must stand in the finding's file or tensor
    evidence: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case(
        "CN01",
        "claims-too-long",
        shard(lambda raw: struct.pack("<Q", 1 << 40) + raw[8:]),
        "CN01 CN08 CN11w NM01",
        place=FIRST,
    ),
    Case("CN02", "no-json", shard(lambda raw: raw[:8] + b"[" + raw[9:]), "CN02 CN08 CN11w NM01", place=FIRST),
    Case(
        "CN02",
        "entry-without-offsets",
        header(lambda head: head["lm_head.weight"].pop("data_offsets")),
        "CN02 CN08 CN11w",
    ),
    Case("CN03", "named-twice", shard(twice), "CN03", place=FIRST),
    Case("CN04", "hole-and-overlap", header(swap), "CN04", place=FIRST),
    Case("CN04", "trailing-bytes", shard(lambda raw: raw + b"\0"), "CN04", place=FIRST),
    Case("CN05", "shape-too-long", reshape("model.norm.weight", (65,)), "CN05", place="model.norm.weight"),
    Case("CN06", "no-metadata", lambda tiny: setattr(tiny, "metadata", None), "CN06w"),
    Case("CN06", "not-text", lambda tiny: setattr(tiny, "metadata", {"format": 1}), "CN06w"),
    Case("CN06", "other-framework", lambda tiny: setattr(tiny, "metadata", {"format": "tf"}), "CN06w"),
    Case("CN07", "e8m0-dtype", typed(f"{UP}.weight_scale", "F8_E8M0"), "CN07 NM05", base="llama-mxfp4", place=UP),
    Case("CN07", "double", put("model.norm.weight", Tensor("F64", (64,), bytes(512))), "CN07", place="model.norm"),
    Case(
        "CN08", "ghost", index(lambda i: i["weight_map"].update({"ghost.weight": FIRST})), "CN08", place="ghost.weight"
    ),
    Case("CN08", "unlisted", index(lambda i: i["weight_map"].pop("lm_head.weight")), "CN08", place="lm_head.weight"),
    Case(
        "CN09", "missing-shard", later(lambda folder: (folder / SECOND).unlink()), "CN09 CN11w CN12w NM01", place=SECOND
    ),
    Case("CN09", "stray-shard", later(stray), "CN09 CN12w", place="old.safetensors"),
    Case("CN09", "no-index", lambda tiny: setattr(tiny, "index", False), "CN09"),
    Case("CN10", "twice", later(same_name), "CN10 CN11w", place=SECOND),
    Case("CN11", "file-sizes", index(lambda i: i["metadata"].update(total_size=1)), "CN11w"),
    Case("CN11", "absent", index(lambda i: i.pop("metadata")), "CN11w"),
    Case("CN12", "own-names", later(renumber), "CN12w", place="part2.safetensors"),
    Case("CN13", "pointer", shard(lambda raw: POINTER), "CN08 CN11w CN13 NM01", place=FIRST),
    Case("CN13", "empty", shard(lambda raw: b""), "CN08 CN11w CN13 NM01", place=FIRST),
    Case("CN13", "cut", shard(lambda raw: raw[:-1]), "CN04 CN13", place=FIRST),
    Case("CF01", "nested", config(text_config={"quantization_config": {"quant_method": "modelopt"}}), "CF01 CF25"),
    Case("CF01", "only-in-file", lambda tiny: tiny.config.pop("quantization_config"), "CF01 CF04"),
    Case(
        "CF02",
        "unquantized",
        lambda tiny: (tiny.config.pop("quantization_config"), setattr(tiny, "hf_quant_config", None)),
        "CF02",
    ),
    Case(
        "CF02",
        "unreadable",
        later(lambda folder: (folder / "config.json").write_text('{"vocab_size": NaN}')),
        "CF01 CF02 CF04 CF25",
        place="config.json",
    ),
    Case("CF02", "foreign", quant(lambda q: q.update(quant_method="awq")), "CF02", base="llama-mxfp4"),
    Case(
        "CF02",
        "other-layout",
        quant(lambda q: (q.clear(), q.update(quant_method="compressed-tensors", format="nvfp4-pack-quantized"))),
        "CF02 CF04 SD03",
    ),
    Case("CF04", "kv", body(lambda b: b.update(kv_cache_quant_algo="FP8")), "CF04"),
    Case("CF04", "exclude", body(lambda b: b["exclude_modules"].append("model.norm")), "CF04"),
    Case("CF04", "file-missing", lambda tiny: setattr(tiny, "hf_quant_config", None), "CF04 SD03"),
    Case("CF06", "group-32", body(lambda b: b.update(group_size=32)), "CF04 CF06"),
    Case("CF06", "text", quant(lambda q: q["config_groups"]["group_0"]["weights"].update(group_size="16")), "CF06"),
    Case(
        "CF06",
        "quark",
        quant(lambda q: q["global_quant_config"]["weight"].update(group_size=16)),
        "CF06 CF22",
        base="llama-mxfp4",
    ),
    Case(
        "CF07",
        "twice",
        lambda tiny: [
            quant(lambda q: q.update(ignore=["a", "a"]))(tiny),
            body(lambda b: b.update(exclude_modules=["a"]))(tiny),
        ],
        "CF07",
    ),
    Case("CF07", "empty-name", quant(lambda q: q["exclude"].append("")), "CF07", base="llama-mxfp4"),
    Case("CF07", "no-list", quant(lambda q: q.update(ignore="lm_head")), "CF04 CF07"),
    Case("CF21", "no-export", quant(no_export), "CF21", base="llama-mxfp4"),
    Case("CF21", "kv-group-null", quant(lambda q: q["export"].update(kv_cache_group=None)), "CF21", base="llama-mxfp4"),
    Case("CF22", "static-inputs", quant(wrong_input_spec), "CF22", base="llama-mxfp4"),
    Case("CF22", "bias-spec", quant(lambda q: q["global_quant_config"].update(bias={})), "CF22", base="llama-mxfp4"),
    Case("CF25", "rope", config(rope_theta=1e6), "CF25"),
    Case("CF25", "key-lost", lambda tiny: tiny.config.pop("rope_theta"), "CF25"),
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
    Case("SV01", "7f", poke(f"{UP}.weight_scale", 9, 0x7F), "SV01", place=f"{UP}.weight_scale"),
    Case("SV01", "ff", poke(f"{EXPERT}.up_proj.weight_scale", 0, 0xFF), "SV01", base="mixture-nvfp4", place=EXPERT),
    Case("SV03", "underflow", poke(f"{UP}.weight_scale", 5, 0), "SV03", place=f"{UP}.weight_scale"),
    Case("SV05", "zero", set_global(DOWN, 0.0), "SV05", place=DOWN),
    Case("SV05", "nan", set_global(DOWN, float("nan")), "SV05", place=DOWN),
    Case("SV05", "subnormal", set_global(DOWN, 1e-40), "SV05", place=DOWN),
    Case("SV05", "reciprocal", set_global(DOWN, 26880.0), "SV05w", place=DOWN),
    Case("SV08", "zero", put(f"{DOWN}.input_scale", f32(0.0)), "SV08", place=DOWN),
    Case("SV08", "infinite", put(f"{DOWN}.input_scale", f32(float("inf"))), "SV08", place=DOWN),
    Case("SV08", "huge", put(f"{DOWN}.input_scale", f32(1e6)), "SV08w", place=DOWN),
    Case("SV11", "ff", poke(f"{UP}.weight_scale", 3, 0xFF), "SV11", base="llama-mxfp4", place=f"{UP}.weight_scale"),
    Case("FU01", "k", set_global("model.layers.0.self_attn.k_proj", 3e-5), "FU01", place="model.layers.0.self_attn"),
    Case("FU02", "dense", set_global(UP, 3e-5), "FU02", place="model.layers.0.mlp"),
    Case("FU02", "shared", set_global("model.layers.1.mlp.shared_experts.up_proj", 3e-5), "FU02", base="mixture-nvfp4"),
    Case("FU03", "latent", set_global("model.layers.0.self_attn.q_a_proj", 3e-5), "FU03", base="mixture-nvfp4"),
    Case("FU04", "expert", set_global(f"{EXPERT}.gate_proj", 3e-5), "FU04", base="mixture-w4a16", place=EXPERT),
    Case(
        "SD01", "rewritten", file("tokenizer.json", b'{"version":"1.0","model":{}}\n'), "SD01", place="tokenizer.json"
    ),
    Case("SD01", "lost", file("chat_template.jinja", None), "SD01", place="chat_template.jinja"),
    Case(
        "SD03",
        "beside-quark",
        lambda tiny: setattr(tiny, "hf_quant_config", {"quantization": {"quant_algo": "MXFP4"}}),
        "CF04 SD03",
        base="llama-mxfp4",
        place="hf_quant_config.json",
    ),
    Case(
        "LC01",
        "one-byte",
        file("LICENSE", b"Tiny Licence\nCopyright (c) Somebody \xe9\nPermission is hereby granted.\n"),
        "LC01",
        place="LICENSE",
    ),
    Case("LC01", "nested-lost", file("legal/NOTICE.txt", None), "LC01", place="legal/NOTICE.txt"),
    Case("LC02", "other-licence", card("license: apache-2.0", "license: mit"), "LC02", place="README.md"),
    Case("LC02", "none", card("license: apache-2.0\n", ""), "LC02", place="README.md"),
    Case("LC03", "relation", card("quantized", "finetune"), "LC03", place="README.md"),
    Case("LC03", "path", card("base_model: tiny/tiny", "base_model: ./tiny"), "LC03", place="README.md"),
    Case("LC03", "another", card("base_model: tiny/tiny", "base_model: tiny/other"), "LC03", place="README.md"),
    Case("LC03", "no-card", file("README.md", None), "LC02 LC03", evidence=FULL),
    Case("LC03", "no-front-matter", file("README.md", b"# Tiny\n"), "LC02 LC03"),
    Case("LC06", "field-type", card("I agree: checkbox", "I agree: tickbox"), "LC06", place="README.md"),
    Case("LC06", "no-options", card("    options: [Research, {label: Something else, value: other}]\n", ""), "LC06"),
    Case("LC14", "edited", listed(lambda at: _append(at / "tokenizer.json")), "LC14 SD01", place="tokenizer.json"),
    Case("LC14", "same-size", listed(lambda at: _flip(at / "LICENSE")), "LC01 LC14", place="LICENSE"),
    Case("LC14", "lost", listed(lambda at: (at / "generation_config.json").unlink()), "LC14 SD01"),
    Case("LC14", "added", listed(lambda at: (at / "notes.txt").write_text("x")), "LC14", place="notes.txt"),
    Case("LC14", "no-manifest", file("publish.json", b"{}"), "LC14", place="publish.json"),
    Case("LC06", "gate-open", lambda tiny: None, "LC06", evidence={"gate": "manual", "settings": {"gated": False}}),
    Case("LC06", "form-without-gate", lambda tiny: None, "LC06w", evidence={"settings": {"gated": False}}),
]


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 0x20
    path.write_bytes(data)


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
