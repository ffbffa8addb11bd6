"""CF: edits of modelopt's declarations with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.builders.edits import UP, Edit, body, drop, each, put, quant
from tests.builders.tiny import Tensor, Tiny, f32
from tests.rules.cases import Case

MIXED = "mixture-mixed"
EXPERT = "model.layers.1.mlp.experts.0.up_proj"


def both(change: Callable[[dict[str, Any]], Any]) -> Edit:
    """The same change of the block and of the file."""
    return each(quant(change), body(change))


def layer(name: str, entry: Any) -> Edit:
    return both(lambda q: q["quantized_layers"].update({name: entry}))


def nested_twice(tiny: Tiny) -> None:
    both(lambda q: q.update(quantized_layers={"quantized_layers": q["quantized_layers"]}))(tiny)


def no_inputs(tiny: Tiny) -> None:
    """What modelopt 0.47 exports when it was given no calibration data."""
    drop(*[name for name in tiny.tensors if name.endswith("input_scale")])(tiny)


def inputs(tiny: Tiny) -> None:
    for name in [name for name in tiny.tensors if name.endswith(".weight_scale")]:
        put(name.replace("weight_scale", "input_scale"), f32(0.003))(tiny)


def under_specified(tiny: Tiny) -> None:
    """No place says the length of a block."""
    del tiny.config["quantization_config"]["config_groups"]
    del tiny.hf_quant_config["quantization"]["group_size"]


SMOOTH = Tensor("BF16", (64,), b"\x80\x3f" * 64)

CASES = [
    Case("CF04", "kv", body(lambda b: b.update(kv_cache_quant_algo="FP8")), "CF04"),
    Case("CF04", "exclude", body(lambda b: b["exclude_modules"].append("model.norm")), "CF04"),
    Case("CF04", "file-missing", lambda tiny: setattr(tiny, "hf_quant_config", None), "CF04 SD03"),
    Case("CF04", "layer-map", body(lambda b: b.update(quantized_layers={EXPERT: {}})), "CF04 CF12", base=MIXED),
    Case("CF05", "no-cache-key", body(lambda b: b.pop("kv_cache_quant_algo")), "CF05"),
    Case("CF05", "no-group-size", body(lambda b: b.pop("group_size")), "CF05", base="llama-w4a16"),
    Case(
        "CF05",
        "obeyed",
        each(lambda tiny: tiny.config.pop("quantization_config"), body(lambda b: b.pop("exclude_modules"))),
        "CF01 CF04 CF05 NM07 NM08",
    ),
    Case("CF12", "no-map", both(lambda q: q.pop("quantized_layers")), "CF04 CF12", base=MIXED),
    Case("CF12", "nested-twice", nested_twice, "CF04 CF12", base=MIXED),
    Case("CF12", "group-sizes", layer(EXPERT, {"quant_algo": "NVFP4", "group_size": 32}), "CF12", base=MIXED),
    Case("CF12", "unknown-algorithm", layer(EXPERT, {"quant_algo": "FP3"}), "CF12 FU10", base=MIXED),
    Case("CF12", "no-such-module", layer("model.layers.9.mlp.up_proj", {"quant_algo": "FP8"}), "CF12", base=MIXED),
    Case("CF12", "left-out", both(lambda q: q["quantized_layers"].pop(EXPERT, None)), "CF12", base=MIXED),
    Case(
        "CF12",
        "eight-bits-left-out",
        both(lambda q: q["quantized_layers"].pop("model.layers.1.self_attn.o_proj", None)),
        "CF12",
        base=MIXED,
    ),
    Case("CF13", "never-calibrated", no_inputs, "CF13 NM01"),
    Case("CF13", "calibrated-weight-only", inputs, "CF13 NM01w", base="llama-w4a16"),
    Case("CF13", "smoothed-undeclared", put(f"{UP}.pre_quant_scale", SMOOTH), "CF13 NM01 NM22"),
    Case("CF13", "awq-without-scales", both(lambda q: q.update(quant_algo="NVFP4_AWQ")), "CF03 CF13"),
    Case(
        "CF13",
        "groups-say-weight-only",
        quant(lambda q: q["config_groups"]["group_0"].pop("input_activations")),
        "CF13 NM01w",
    ),
    Case("CF14", "text", quant(lambda q: q.update(kv_cache_scheme="FP8")), "CF04 CF14w"),
    Case("CF27", "no-producer", quant(lambda q: q.pop("producer")), "CF27w"),
    Case("CF27", "no-version", lambda tiny: tiny.hf_quant_config.update(producer={"name": "modelopt"}), "CF27w"),
    Case("CF37", "nowhere", under_specified, "CF05 CF37w"),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("map-by-experts-module", MIXED, lambda tiny: _whole(tiny)),
    ("algorithm-in-lower-case", "llama-nvfp4", both(lambda q: q.update(quant_algo="nvfp4"))),
]


def _whole(tiny: Tiny) -> None:
    """The experts of a layer as one entry of the map, which vLLM looks up too."""
    at = "model.layers.1.mlp.experts"

    def change(declared: dict[str, Any]) -> None:
        layers = declared["quantized_layers"]
        declared["quantized_layers"] = {n: e for n, e in layers.items() if not n.startswith(at)} | {
            at: {"quant_algo": "NVFP4", "group_size": 16}
        }

    both(change)(tiny)
