"""CF: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

from tests.builders.edits import Edit, body, config, later, no_export, quant, wrong_input_spec
from tests.rules.cases import Case

CASES = [
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
]

LEGITIMATE: list[tuple[str, str, Edit]] = []
