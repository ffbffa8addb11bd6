"""Exclude lists: edits of good checkpoints with exactly the codes they raise, and lists of published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.builders.edits import EXPERT, Edit, body, each, plain_expert, put, quant
from tests.builders.tiny import Tensor, Tiny, kimi, llama, mixture
from tests.rules.cases import Case

SOURCES: dict[str, Callable[[], Tiny]] = {"llama": llama, "mixture": mixture, "kimi": kimi}
KEY = {"modelopt": "ignore", "quark": "exclude", "compressed-tensors": "ignore"}


def listing(change: Callable[[list[str]], Any]) -> Edit:
    """Change the exclude list wherever it is written."""

    def edit(tiny: Tiny) -> None:
        block = tiny.config["quantization_config"]
        change(block[KEY[block["quant_method"]]])
        if tiny.hf_quant_config is not None:
            change(tiny.hf_quant_config["quantization"]["exclude_modules"])

    return edit


def add(*entries: str) -> Edit:
    return listing(lambda names: names.extend(entries))


def only(*entries: str) -> Edit:
    return listing(lambda names: names.__setitem__(slice(None), entries))


def plain(pattern: str, source: str) -> Edit:
    """Store the layers a pattern finds as the source has them, and say nothing of it."""

    def edit(tiny: Tiny) -> None:
        original = SOURCES[source]().tensors
        modules = {name.rpartition(".")[0] for name in tiny.tensors if name.endswith("weight_scale")}
        for module in (module for module in modules if re.search(pattern, module)):
            for name in [name for name in tiny.tensors if name.rpartition(".")[0] == module]:
                del tiny.tensors[name]
            tiny.tensors[f"{module}.weight"] = original[f"{module}.weight"]
        tiny.tensors = dict(sorted(tiny.tensors.items()))

    return edit


def algorithm(name: str | None) -> Edit:
    return each(quant(lambda q: q.update(quant_algo=name)), body(lambda b: b.update(quant_algo=name)))


def modelopt_mxfp4(tiny: Tiny) -> None:
    """What modelopt itself writes for MXFP4, which no engine reads."""
    names = tiny.config["quantization_config"]["exclude"]
    producer = {"name": "modelopt", "version": "0.47.0"}
    tiny.config["quantization_config"] = {
        "ignore": names,
        "quant_algo": "mxfp4",
        "producer": producer,
        "quant_method": "modelopt",
    }
    algo = {"quant_algo": "mxfp4", "kv_cache_quant_algo": None, "group_size": 32, "exclude_modules": list(names)}
    tiny.hf_quant_config = {"producer": producer, "quantization": algo}


DOWN_0 = "model.layers.0.mlp.down_proj"
ATTENTION = r"self_attn\.\w+$"
KIMI = "language_model.model.layers"
# What is left alone when experts alone are quantized.
REST = r"self_attn\.|shared_experts\.|layers\.0\.mlp\."

CASES = [
    # the list against the tensors
    Case("NM07", "packed-though-listed", add(DOWN_0), "NM07 NM08 TP10", place=DOWN_0),
    Case("NM07", "packed-though-listed", add(DOWN_0), "NM07 NM08 TP10", base="llama-mxfp4", place=DOWN_0),
    Case("NM07", "packed-though-listed", add(DOWN_0), "NM07 NM08 TP10", base="llama-ct-nvfp4", place=DOWN_0),
    Case("NM07", "plain-unlisted", plain(r"0\.mlp\.down_proj$", "llama"), "NM07 NM08 TP10", place=DOWN_0),
    Case("NM07", "plain-unlisted", plain(ATTENTION, "llama"), "NM07 NM08 TP10", base="llama-w4a16"),
    Case("NM07", "plain-unlisted", plain(ATTENTION, "mixture"), "NM07 NM08 TP10", base="mixture-mxfp4"),
    Case("NM07", "plain-unlisted", plain(r"1\.mlp\.experts\.", "mixture"), "NM07 NM08 TP10", base="mixture-ct-nvfp4"),
    Case("NM07", "plain-unlisted", plain(r"1\.mlp\.experts\.", "mixture"), "NM07 NM08 TP10", base="mixture-nvfp4"),
    Case("NM07", "head-under-a-wrapper", only("lm_head", "re:.*mlp.gate$", "re:^(vision_tower|mm_projector).*"),
         "NM07", base="kimi-ct-mxfp4", place="language_model.lm_head"),
    # engines against the tensors
    Case("NM08", "regex-without-the-wrapper",
         each(plain(ATTENTION, "kimi"), add(r"re:model\.layers\.\d+\.self_attn\..*")),
         "CF09w NM07 NM08 TP10", base="kimi-mxfp4"),
    Case("NM08", "short-name", listing(lambda names: names.append("mlp.gate")), "CF10 NM08", base="mixture-nvfp4"),
    Case("NM08", "head-unlisted", listing(lambda names: names.remove("lm_head")), "NM07 NM08", place="lm_head"),
    Case("NM08", "one-expert-plain", plain_expert, "NM08w", base="mixture-nvfp4", place="model.layers.2.mlp.experts"),
    Case("FU06", "some-members-listed", each(plain(r"0\.self_attn\.q_proj$", "llama"),
         add("model.layers.0.self_attn.q_proj")), "FU06", base="llama-ct-mxfp4"),
    Case("TP10", "literal-names-under-a-wrapper",
         each(plain(ATTENTION, "kimi"),
              listing(lambda names: names.extend(sorted({n.removesuffix(".weight") for n in kimi().tensors
                                                         if ".self_attn." in n and "norm" not in n})))),
         "TP10", base="kimi-ct-mxfp4", place="self_attn"),
    Case("TP10", "other-file", body(lambda b: b["exclude_modules"].append(f"{DOWN_0}*")), "CF04 TP10", place=DOWN_0),
    Case("TP10", "mla-in-one-layer", each(plain(r"0\.self_attn\.q_b_proj$", "mixture"),
         add("model.layers.0.self_attn.q_b_proj")), "TP10", base="mixture-nvfp4", place="q_b_proj"),
    # the algorithm
    Case("CF03", "mxfp4", modelopt_mxfp4, "CF03", base="llama-mxfp4"),
    Case("CF03", "w4a8", algorithm("W4A8_NVFP4_FP8"), "CF03"),
    Case("CF03", "none", algorithm(None), "CF03"),
    # spelling
    Case("CF08", "regex", add("re:.*visual.*"), "CF08"),
    Case("CF08", "class", each(plain(r"self_attn\.o_proj$", "llama"), add("model.layers.[01].self_attn.o_proj")),
         "CF08"),
    Case("CF08", "space", add("lm head"), "CF08"),
    Case("CF09", "glob", add("*visual*"), "CF09", base="llama-mxfp4"),
    Case("CF09", "no-regex", add("re:(lm_head"), "CF09 CF30w", base="llama-ct-nvfp4"),
    Case("CF09", "unanchored", add("re:embed_tokens"), "CF09w", base="llama-mxfp4"),
    Case("CF09", "look-ahead", add("re:(?!.*mlp).*head"), "CF09w CF30w", base="llama-ct-mxfp4"),
    Case("CF10", "layer-1", add("model.layers.1"), "CF10 NM08 TP10", base="mixture-nvfp4", place="model.layers.1"),
    Case("CF11", "listed", add(f"{EXPERT}.up_proj"), "CF11 NM07 NM08", base="mixture-nvfp4", place="experts"),
    Case("CF11", "listed", add(f"{EXPERT}.up_proj"), "CF11 NM07 NM08 TP10", base="mixture-mxfp4", place="experts"),
    Case("CF11", "listed", add(f"{EXPERT}.up_proj"), "CF11 NM07", base="mixture-ct-nvfp4", place="experts"),
    Case("CF11", "meant", each(plain_expert, add("model.layers.2.mlp.experts.3.up_proj")), "CF11 NM08w",
         base="mixture-nvfp4"),
    Case("CF30", "typing-error", add("model.layers.0.self_atn.q_proj"), "CF30w"),
    Case("CF30", "typing-error", add(r"re:^model\.layers\.0\.atn\..*$"), "CF30w", base="llama-mxfp4"),
    Case("CF30", "typing-error", add("model.layers.0.mlp.Down_proj"), "CF30w", base="llama-ct-nvfp4"),
    Case("CF30", "another-model", add(*(f"decoder.block.{n}.ffn.wi" for n in range(40))), "CF30w"),
    # members of one layer
    Case("FU06", "gate-plain", each(plain(r"0\.mlp\.gate_proj$", "llama"), add("model.layers.0.mlp.gate_proj*")),
         "FU06", place="model.layers.0.mlp.gate_up_proj"),
    Case("FU06", "k-plain", plain(r"0\.self_attn\.k_proj$", "llama"), "FU06 NM07", base="llama-mxfp4"),
    Case("FU06", "latent", each(plain(r"0\.self_attn\.q_a_proj$", "mixture"), add("model.layers.0.self_attn.q_a_proj")),
         "FU06", base="mixture-ct-nvfp4"),
]  # fmt: skip

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("defaults-of-a-tool", "llama-ct-nvfp4", add("re:.*mlp.gate$", "re:.*embed_tokens$", "re:.*vision.*", "Embedding")),
    ("first-layer-left-alone", "llama-nvfp4", each(plain(r"layers\.0\.", "llama"), add("model.layers.0.*"))),
    ("last-layer-left-alone", "llama-mxfp4",
     each(plain(r"layers\.1\.", "llama"), add(r"re:^model\.layers\.1\..*$"))),
    ("experts-of-a-layer-left-alone", "mixture-nvfp4",
     each(plain(r"2\.mlp\.experts\.", "mixture"), add("model.layers.2.mlp.experts*"))),
    ("experts-of-a-layer-left-alone-by-name", "mixture-mxfp4",
     each(plain(r"2\.mlp\.experts\.", "mixture"),
          add(*(f"model.layers.2.mlp.experts.{e}.{p}_proj" for e in range(4) for p in ("gate", "up", "down"))))),
    ("named-fused-layers", "mixture-mxfp4",
     each(plain(r"0\.mlp\.(gate|up)_proj", "mixture"), add(r"re:^model\.layers\.0\.mlp\.(gate|up|gate_up)_proj$"))),
]  # fmt: skip

# Lists of published checkpoints over what they leave alone: without routers, some with a head nobody quantizes.
PUBLISHED: list[tuple[str, str, Edit]] = [
    # kernels of three dimensions are convolutions, which no list names and no engine quantizes
    ("convolution", "llama-nvfp4",
     put("model.layers.0.linear_attn.conv1d.weight", Tensor("BF16", (8, 1, 4), bytes(64)))),
    ("kimi-experts-and-mlp", "kimi-nvfp4",
     each(plain(ATTENTION, "kimi"), only("*self_attn*", "*vision_tower*", "*mm_projector*", "language_model.lm_head"))),
    ("kimi-experts-only", "kimi-nvfp4",
     each(plain(REST, "kimi"), only("language_model.lm_head", "*self_attn*", "*shared_experts*", "vision_tower*",
                                    "mm_projector*", f"{KIMI}.0.mlp*"))),
    ("kimi-experts-only-quark", "kimi-mxfp4",
     each(plain(REST, "kimi"), only("lm_head", "re:.*self_attn.*", "re:.*shared_experts.*",
                                    r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "re:mm_projector.*",
                                    "re:vision_tower.*"))),
    ("kimi-experts-only-ct", "kimi-ct-mxfp4",
     each(plain(REST, "kimi"), only("re:.*lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp.gate$",
                                    r"re:.*layers\.0\.mlp.*", "re:mm_projector.*", "re:vision_tower.*"))),
]  # fmt: skip
