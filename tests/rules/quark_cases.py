"""CF: edits of Quark's declarations with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

from tests.builders.edits import Edit, no_export, quant, wrong_input_spec
from tests.rules.cases import Case

BASE = "llama-mxfp4"
SPEC = {"weight": {"dtype": "fp8_e4m3"}}

CASES = [
    Case("CF21", "no-export", quant(no_export), "CF21", base=BASE),
    Case("CF21", "kv-group-null", quant(lambda q: q["export"].update(kv_cache_group=None)), "CF21", base=BASE),
    Case("CF22", "static-inputs", quant(wrong_input_spec), "CF22", base=BASE),
    Case("CF22", "bias-spec", quant(lambda q: q["global_quant_config"].update(bias={})), "CF22", base=BASE),
    Case(
        "CF23",
        "mode",
        quant(lambda q: q["global_quant_config"]["weight"].update(scale_calculation_mode="round")),
        "CF23w",
        base=BASE,
    ),
    Case("CF24", "short-key", quant(lambda q: q["layer_quant_config"].update(down_proj=SPEC)), "CF24w", base=BASE),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("glob-layer-key", BASE, quant(lambda q: q["layer_quant_config"].update({"*lm_head": SPEC}))),
    ("full-layer-key", BASE, quant(lambda q: q["layer_quant_config"].update({"lm_head": SPEC}))),
]
