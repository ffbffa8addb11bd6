"""KV: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import struct
from dataclasses import replace

from tests.builders.edits import Edit, body, drop, each, kv_cast, put, quant
from tests.builders.tiny import Tensor, Tiny, f32
from tests.rules.cases import Case

AT = "model.layers.1.self_attn"
K, V = f"{AT}.k_proj.k_scale", f"{AT}.v_proj.v_scale"
OUTPUT = f"{AT}.k_proj.output_scale"
CACHE, QUARK, CT, LATENT = "llama-nvfp4-cache", "llama-mxfp4-cache", "llama-ct-nvfp4-cache", "mixture-nvfp4-cache"


def every(suffix: str, value: float) -> Edit:
    return lambda tiny: [put(n, f32(value))(tiny) for n in tiny.tensors if n.endswith(suffix)]


def rename(old: str, new: str) -> Edit:
    return lambda tiny: tiny.rename(old, new)


def output(name: str, **keys: object) -> Edit:
    return quant(lambda q: q["layer_quant_config"][name]["output_tensors"].update(keys))


def scheme(**keys: object) -> Edit:
    return quant(lambda q: q["kv_cache_scheme"].update(keys))


def undeclared(tiny: Tiny) -> None:
    del tiny.config["quantization_config"]["kv_cache_scheme"]
    tiny.hf_quant_config["quantization"]["kv_cache_quant_algo"] = None


def nvfp4(tiny: Tiny) -> None:
    tiny.config["quantization_config"]["kv_cache_scheme"] = "NVFP4"
    tiny.hf_quant_config["quantization"]["kv_cache_quant_algo"] = "NVFP4"


def heads(tiny: Tiny) -> None:
    """One scale per attention head, as the declaration says."""
    tiny.config["quantization_config"]["kv_cache_scheme"]["strategy"] = "attn_head"
    for name in [n for n in tiny.tensors if n.endswith(("k_scale", "v_scale"))]:
        tiny.tensors[name] = Tensor("F32", (2,), struct.pack("<ff", 0.02, 0.03))


CASES = [
    replace(case, level="scales")
    for case in (
        Case("KV01", "no-value", drop(V), "KV01", base=CACHE, place=K),
        Case("KV01", "no-key", drop(K), "KV01", base=CACHE, place=V),
        Case("KV01", "quark", drop(OUTPUT), "KV01", base=QUARK, place=AT),
        Case("KV01", "compressed", drop(f"{AT}.v_scale"), "KV01", base=CT, place=AT),
        Case("KV01", "layer", drop(K, V), "KV01", base=CACHE, place=AT),
        Case("KV01", "latent-layer", drop(K, V), "KV01", base=LATENT, place=AT),
        Case("KV02", "zero", put(K, f32(0.0)), "KV02", base=CACHE, place=K),
        Case("KV02", "nan", put(OUTPUT, f32(float("nan"))), "KV02", base=QUARK, place=OUTPUT),
        Case("KV02", "negative", put(f"{AT}.k_scale", f32(-1.0)), "KV02", base=CT, place=AT),
        Case("KV03", "large", put(K, f32(0.7)), "KV03w", base=CACHE, place=K),
        Case("KV03", "all-one", each(every("k_scale", 1.0), every("v_scale", 1.0)), "KV03i", base=CACHE),
        Case("KV03", "quark-one", every("output_scale", 1.0), "KV03i", base=QUARK),
        Case("KV04", "undeclared", undeclared, "KV04w", base=CACHE),
        Case("KV04", "one-file", body(lambda b: b.update(kv_cache_quant_algo=None)), "CF04 KV04w", base=CACHE),
        Case(
            "KV04",
            "quark-promise",
            lambda tiny: drop(*(n for n in list(tiny.tensors) if n.endswith("output_scale")))(tiny),
            "KV04w",
            base=QUARK,
        ),
        Case(
            "KV04",
            "compressed-promise",
            lambda tiny: drop(*(n for n in list(tiny.tensors) if n.endswith((".k_scale", ".v_scale"))))(tiny),
            "KV04w",
            base=CT,
        ),
        Case(
            "KV05", "other-module", rename(K, f"{AT}.o_proj.k_scale"), "KV01 KV05", base=CACHE, place="o_proj.k_scale"
        ),
        Case("KV05", "crossed", rename(V, f"{AT}.k_proj.v_scale"), "KV01 KV05", base=CACHE, place="k_proj.v_scale"),
        Case("KV05", "bare", rename(K, "model.layers.1.k_scale"), "KV01 KV05", base=CACHE, place="layers.1.k_scale"),
        Case("KV06", "no-key", quant(lambda q: q["export"].update(kv_cache_group=["*kv"])), "KV06", base=QUARK),
        Case("KV06", "other-dtype", output("*k_proj", dtype="fp8_e5m2"), "KV06", base=QUARK, place="config.json"),
        Case("KV06", "unlike", output("*k_proj", symmetric=False), "KV06", base=QUARK, place="config.json"),
        Case("KV07", "asymmetric", scheme(symmetric=False), "KV07", base=CT, place="config.json"),
        Case("KV07", "integer", scheme(type="int"), "KV07", base=CT, place="config.json"),
        Case("KV07", "channel", scheme(strategy="channel"), "KV07", base=CT, place="config.json"),
        Case(
            "KV08",
            "compressed",
            each(
                quant(lambda q: q.update(kv_cache_scheme={"type": "float", "num_bits": 8, "strategy": "tensor"})),
                *(put(f"model.layers.{n}.self_attn.{p}_scale", f32(0.02)) for n in range(3) for p in "kv"),
            ),
            "KV08w",
            base="mixture-ct-nvfp4",
        ),
        Case(
            "KV08",
            "mixed",
            each(
                kv_cast,
                *(put(f"model.layers.{n}.self_attn.{p}_proj.{p}_scale", f32(0.02)) for n in range(3) for p in "kv"),
            ),
            "KV08w",
            base="mixture-mixed",
            place="self_attn",
        ),
        Case("KV09", "declared", nvfp4, "KV09w", base=CACHE, place=""),
        Case(
            "KV10",
            "no-projection",
            lambda tiny: [
                tiny.rename(
                    f"model.layers.1.self_attn.{p}_proj.{p}_scale", f"model.layers.1.self_attn.qkv_proj.{p}_scale"
                )
                for p in "kv"
            ],
            "KV10w",
            base=CACHE,
            place="qkv_proj",
        ),
        Case("KV11", "bf16", put(K, Tensor("BF16", (), b"\xa0\x3c")), "KV11", base=CACHE, place=K),
        Case("KV11", "vector", put(K, Tensor("F32", (2,), struct.pack("<ff", 0.1, 0.1))), "KV11", base=CACHE, place=K),
    )
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("cast-cache", "llama-nvfp4", kv_cast),
    ("cast-latent-cache", "mixture-nvfp4", kv_cast),
    ("cache-scales-of-shape-1", CACHE, lambda tiny: setattr(tiny.tensors[K], "shape", (1,))),
    ("cache-scale-per-head", CT, heads),
    ("query-scale-beside", QUARK, put(f"{AT}.q_proj.output_scale", f32(0.9))),
]
