"""CF: edits of what any declaration says, with exactly the codes they raise."""

from __future__ import annotations

from tests.builders.edits import Edit, body, config, later, quant
from tests.builders.tiny import Tiny
from tests.rules.cases import Case

MODELOPT = {"quant_method": "modelopt"}


def auto_round(data: str, packing: str) -> Edit:
    """AutoRound's own declaration over compressed-tensors' tensors, as its native export writes it."""

    def edit(tiny: Tiny) -> None:
        block = tiny.config["quantization_config"]
        size = 16 if data == "nv_fp" else 32
        tiny.config["quantization_config"] = {
            "quant_method": "auto-round",
            "bits": 4,
            "data_type": data,
            "group_size": size,
            "act_bits": 4,
            "act_dynamic": True,
            "packing_format": packing,
            "ignore": block["ignore"],
        }

    return edit


CASES = [
    Case(
        "CF01", "nested", config(text_config={"quantization_config": {"quant_method": "modelopt"}}), "CF01 CF25 CF27w"
    ),
    Case("CF01", "only-in-file", lambda tiny: tiny.config.pop("quantization_config"), "CF01 CF04"),
    Case(
        "CF01",
        "old-key",
        lambda tiny: tiny.config.update(compression_config=tiny.config.pop("quantization_config")),
        "CF01",
        base="llama-ct-nvfp4",
    ),
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
        "CF01 CF02 CF04 CF25 CF29",
        place="config.json",
    ),
    Case("CF02", "foreign", quant(lambda q: q.update(quant_method="awq")), "CF02", base="llama-mxfp4"),
    Case("CF02", "readers-own-name", quant(lambda q: q.update(quant_method="modelopt_fp4")), "CF02w"),
    Case(
        "CF02",
        "underscore",
        quant(lambda q: q.update(quant_method="compressed_tensors")),
        "CF02",
        base="llama-ct-mxfp4",
    ),
    Case(
        "CF02",
        "other-layout",
        quant(lambda q: (q.clear(), q.update(quant_method="compressed-tensors", format="nvfp4-pack-quantized"))),
        "CF02 CF04 CF15 CF39 NM07 SD03",
    ),
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
            quant(lambda q: q.update(ignore=["lm_head", "lm_head"]))(tiny),
            body(lambda b: b.update(exclude_modules=["lm_head"]))(tiny),
        ],
        "CF07",
    ),
    Case("CF07", "empty-name", quant(lambda q: q["exclude"].append("")), "CF07", base="llama-mxfp4"),
    Case("CF07", "no-list", quant(lambda q: q.update(ignore="lm_head")), "CF04 CF07"),
    Case("CF28", "nvfp4", auto_round("nv_fp", "auto_round:llm_compressor"), "CF28", base="llama-ct-nvfp4"),
    Case("CF28", "mxfp4", auto_round("mx_fp", "auto_round:llm_compressor"), "CF28", base="llama-ct-mxfp4"),
    Case("CF39", "no-groups", quant(lambda q: q.update(config_groups={})), "CF39 NM03w", base="llama-ct-nvfp4"),
    Case(
        "CF39",
        "no-weight",
        quant(lambda q: q["global_quant_config"].update(weight=None)),
        "CF22 CF39",
        base="llama-mxfp4",
    ),
]

LEGITIMATE: list[tuple[str, str, Edit]] = []
