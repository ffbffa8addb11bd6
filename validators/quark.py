"""CF: what only Quark's declarations have: the export block, tensor specs and specs per layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import Headers, Modules

CONFIG = "config.json"
MODES = ("even", "floor", "ceil")


def _declared(subject: Headers | Modules) -> list[QuantConfig]:
    return [quant for quant in subject.checkpoint.declarations if quant.dialect == "quark"]


DECLARED = Scope("quark declaration", lambda subject: bool(_declared(subject)))


@rule("CF21", "incomplete-quark-config", severity=ERROR, refuses=("vllm", "sglang"), scope=DECLARED)
def incomplete_quark_config(headers: Headers) -> Iterator[Found]:
    """A Quark declaration lacks a part that the loaders read without asking.

    Why: vLLM and SGLang stop on a missing `export`, `kv_cache_group` or `layer_type_quant_config`.
    Fix: write the block as Quark's exporter does.
    Seen: vLLM and SGLang `quark/quark.py`.
    """
    for quant in _declared(headers):
        for problem in jsonio.problems(dict(quant.raw), "quark-export"):
            yield Found(f"{quant.origin}: {problem}; write the block as Quark does.", file=CONFIG)


@rule("CF22", "wrong-quark-spec", severity=ERROR, refuses=("vllm", "sglang"), scope=DECLARED)
def wrong_quark_spec(headers: Headers) -> Iterator[Found]:
    """A Quark MXFP4 declaration does not say fp4, per_group, 32, e8m0, static weights, dynamic or no activations.

    Why: vLLM finds no scheme for anything else and stops. Quark's NVFP4, a list of two specs, is not judged here.
    Fix: write the weight and input specs of OCP MXFP4.
    Seen: vLLM `quark/quark.py`, scheme selection.
    """
    for quant in _declared(headers):
        config = quant.raw.get("global_quant_config")
        if isinstance(config, Mapping) and not isinstance(config.get("weight"), list):
            for problem in jsonio.problems(dict(config), "quark-mxfp4"):
                yield Found(f"{quant.origin}.global_quant_config: {problem}; correct it.", file=CONFIG)


@rule("CF23", "unknown-scale-mode", severity=WARNING, scope=DECLARED)
def unknown_scale_mode(headers: Headers) -> Iterator[Found]:
    """`scale_calculation_mode` of a Quark MX spec is not even, floor or ceil.

    Why: nobody can then requantize a block and prove the checkpoint; the field says how each scale was chosen.
    Fix: write the mode Quark used; its default is even.
    Seen: Quark's `quantization/config/config.py` has these three.
    """
    for quant in _declared(headers):
        for place, spec in _specs(quant.raw):
            mode = spec.get("scale_calculation_mode")
            if spec.get("scale_format") == "e8m0" and mode is not None and mode not in MODES:
                message = f"{quant.origin}.{place}: scale_calculation_mode is {str(mode)[:60]!r}"
                yield Found(f"{message}, none of {', '.join(MODES)}; write the mode that was used.", file=CONFIG)


def _specs(raw: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    config = raw.get("global_quant_config")
    for key in ("weight", "input_tensors"):
        spec = config.get(key) if isinstance(config, Mapping) else None
        for one in spec if isinstance(spec, list) else [spec]:
            if isinstance(one, Mapping):
                yield f"global_quant_config.{key}", one


@rule("CF24", "reversed-layer-key", severity=WARNING, engines=("vllm",), scope=DECLARED)
def reversed_layer_key(modules: Modules) -> Iterator[Found]:
    """A key of `layer_quant_config` has no `*` and is not the full name of a module.

    Why: vLLM looks whether a module's name is a part of such a key, not the other way round, so a short key means no
    module at all and the global spec is used without a word.
    Fix: write the module's full name, or a glob such as `*.down_proj`.
    Seen: vLLM `quark/quark.py`, the lookup of a layer's config.
    """
    for quant in _declared(modules):
        layers = quant.raw.get("layer_quant_config")
        for key in layers if isinstance(layers, Mapping) else ():
            if "*" not in key and key not in modules.checkpoint.modules:
                message = (
                    f"{quant.origin}: layer_quant_config has the key {key[:120]!r}, which is no module's full name"
                )
                yield Found(f"{message}; write the full name or a glob.", file=CONFIG, tensor=key)
