"""CF: config.json and hf_quant_config.json. What they declare, whether both agree, and what only the source may say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.findings import ERROR, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import BLOCK, Headers, Modules, Pair

CONFIG, FILE = "config.json", "hf_quant_config.json"
METHODS = ("modelopt", "quark", "compressed-tensors", "mxfp4", "auto-round")
BLOCKS = frozenset({"quantization_config", "compression_config"})
EXCLUDES = ("ignore", "exclude", "exclude_modules", "modules_to_not_convert")
# Keys of a config that quantization or the writing library owns.
OWNED = frozenset({*BLOCKS, "transformers_version", "dtype", "torch_dtype"})
# Parts of a declaration whose group sizes are about something else than the weights' blocks.
ELSEWHERE = frozenset({"kv_cache_scheme", "kv_cache_quant_config", "output_activations", "output_tensors", "bias"})


def _dialect(name: str) -> Scope:
    def holds(headers: Headers) -> bool:
        return any(quant.dialect == name for quant in headers.checkpoint.declarations)

    return Scope(f"{name} declaration", holds)


DECLARED = Scope("quantization declaration", lambda headers: bool(headers.checkpoint.declarations))


@rule("CF01", "misplaced-declaration", severity=ERROR, engines=ENGINES, scope=DECLARED)
def misplaced_declaration(headers: Headers) -> Iterator[Found]:
    """The quantization block is not exactly once in config.json, at the top level.

    Why: engines search several places in different orders, so a nested or second block makes them disagree; without
    any in config.json half of them do not see that the checkpoint is quantized.
    Fix: keep one `quantization_config` at the top level and delete the others.
    Seen: the nested int4 block of moonshotai/Kimi-K2.5; NVIDIA-NeMo/RL PR 3615 (no block in config.json).
    """
    places = list(_blocks(headers.checkpoint.config))
    if "quantization_config" not in places:
        yield Found(f"{CONFIG} has no quantization_config at its top level; write it there.", file=CONFIG)
    for place in places:
        if place != "quantization_config":
            yield Found(f"{CONFIG} has a second declaration at {place}; delete it.", file=CONFIG)


def _blocks(value: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of all quantization blocks, without looking into them."""
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        if key in BLOCKS and item is not None:
            yield path + key
        else:
            yield from _blocks(item, f"{path}{key}.")


@rule("CF02", "unknown-method", severity=ERROR, engines=ENGINES)
def unknown_method(modules: Modules) -> Iterator[Found]:
    """The declared method is missing or unreadable, not one that carries FP4, or not the one the tensors are in.

    Why: engines choose their loader by `quant_method`; a wrong one fails on the first tensor or, worse, loads packed
    bytes as weights.
    Fix: write the method that belongs to the tensors; an unquantized model has to be quantized first.
    Seen: NVIDIA/Model-Optimizer issue 1173 (a declaration over weights that stayed BF16).
    """
    quant, packed = modules.quant, modules.packed
    flaw = modules.checkpoint.document_flaws.get(CONFIG)
    if flaw:
        yield Found(f"{flaw.rstrip('.')}; engines read nothing of it. Write it again.", file=CONFIG)
        return
    if quant is None:
        found = f"but {len(packed):,} of its modules are packed" if packed else "and holds no packed weights"
        yield Found(
            f"The checkpoint declares no quantization {found}; quantize it, or write the declaration.", file=CONFIG
        )
        return
    method = quant.raw.get("quant_method", quant.dialect)
    file = quant.origin.partition(":")[0]
    if method not in METHODS:
        message = f"quant_method is {str(method)[:40]!r}; FP4 is declared by one of {', '.join(METHODS)}."
        yield Found(message, file=file)
    elif quant.format in (*BLOCK, "mixed"):
        yield from _layout(modules, quant, file)


def _layout(modules: Modules, quant: QuantConfig, file: str) -> Iterator[Found]:
    """Whether the tensors' names are those of the declared method."""
    native = any(name.endswith("_blocks") for name in modules.checkpoint.tensors)
    if not modules.packed and not native:
        message = f"{quant.origin} declares {quant.format}, but no weight is packed; quantize the model."
        yield Found(message, file=file)
        return
    suffixes = Counter("weight_packed" if "weight_packed" in m.tensors else "weight" for m in modules.packed)
    wanted = "weight_packed" if quant.dialect in ("compressed-tensors", "auto-round") else "weight"
    odd = sum(count for suffix, count in suffixes.items() if suffix != wanted)
    if quant.dialect != "mxfp4" and odd:
        message = f"{quant.dialect} stores payloads as `{wanted}`; {odd:,} modules do otherwise. Declare their method."
        yield Found(message, file=file)


@rule("CF04", "files-disagree", severity=ERROR, engines=("vllm", "sglang", "tensorrt-llm"), scope=_dialect("modelopt"))
def files_disagree(headers: Headers) -> Iterator[Found]:
    """config.json and hf_quant_config.json are not both there, or do not declare the same.

    Why: vLLM and SGLang obey config.json, TensorRT-LLM obeys the other file; where they differ, the engines serve
    different models.
    Fix: write both files from one declaration.
    Seen: vllm-project/vllm PR 42181 (nvidia/Qwen3.5-397B-A17B-NVFP4).
    """
    declared = headers.checkpoint.declarations
    inline = next((quant for quant in declared if quant.origin.startswith(CONFIG)), None)
    file = next((quant for quant in declared if quant.origin == FILE), None)
    if inline is None or file is None:
        lost = FILE if file is None else CONFIG
        flaw = headers.checkpoint.document_flaws.get(lost)
        message = f"{lost} cannot be read: {flaw}" if flaw else f"{lost} declares nothing, the other file does"
        yield Found(f"{message.rstrip('.')}; write both files from one declaration.", file=lost)
        return
    mine, theirs = _facts(inline), _facts(file)
    for key, value in mine.items():
        if value != theirs[key]:
            message = f"{key}: {CONFIG} says {_short(value)}, {FILE} says {_short(theirs[key])}; write them alike."
            yield Found(message, file=FILE)


def _facts(quant: QuantConfig) -> dict[str, Any]:
    nested = quant.raw.get("quantization")
    body = nested if isinstance(nested, Mapping) else quant.raw
    return {
        "quant_algo": (quant.algo or "").upper() or None,
        "KV cache": quant.kv_cache,
        "group_size": quant.group_size,
        "excluded modules": sorted(set(quant.ignore)),
        "quantized_layers": body.get("quantized_layers") or {},
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


@rule(
    "CF06",
    "wrong-group-size",
    severity=ERROR,
    engines=("vllm", "sglang", "tensorrt-llm"),
    scope=Scope(
        "NVFP4 or MXFP4 declaration",
        lambda headers: any(quant.format in BLOCK for quant in headers.checkpoint.declarations),
    ),
)
def wrong_group_size(headers: Headers) -> Iterator[Found]:
    """A declared group size is not the format's block length (16 for NVFP4, 32 for MXFP4).

    Why: engines that read this spelling refuse, or apply each scale to the wrong elements.
    Fix: write the format's own block length in every place.
    Seen: SGLang `modelopt_quant.py` compares the spellings and refuses.
    """
    for quant in headers.checkpoint.declarations:
        block = BLOCK.get(quant.format or "")
        if block is None or (quant.algo or "").upper().startswith("W4A8"):
            continue
        for place, value in _group_sizes(quant.raw):
            if type(value) is not int or value != block:
                message = (
                    f"{quant.origin}: {place} is {_short(value)}, {quant.format} has blocks of {block}; correct it."
                )
                yield Found(message, file=quant.origin.partition(":")[0])


def _group_sizes(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for item in value[:1]:  # a two-level spec: only the first level has blocks
            yield from _group_sizes(item, path)
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        if key == "group_size" and item is not None:
            yield path + key, item
        elif key not in ELSEWHERE and not key.startswith("layer_"):
            yield from _group_sizes(item, f"{path}{key}.")


@rule("CF07", "bad-exclude-list", severity=ERROR, engines=ENGINES, scope=DECLARED)
def bad_exclude_list(headers: Headers) -> Iterator[Found]:
    """The list of excluded modules is no list of unique, non-empty strings.

    Why: vLLM refuses anything else; an empty string matches every module.
    Fix: write each excluded name once.
    Seen: vLLM `modelopt.py` raises on a list that is none.
    """
    for quant in headers.checkpoint.declarations:
        file = quant.origin.partition(":")[0]
        for flaw in quant.flaws:
            yield Found(f"{quant.origin}: {flaw}; write a list of names.", file=file)
        nested = quant.raw.get("quantization")
        for body in (quant.raw, nested if isinstance(nested, Mapping) else {}):
            for key in EXCLUDES:
                names = body.get(key)
                twice = (
                    [n for n, count in Counter(map(str, names)).items() if count > 1] if isinstance(names, list) else []
                )
                if twice:
                    message = f"{quant.origin}: `{key}` names {len(twice)} modules twice, such as {_short(twice[0])}."
                    yield Found(message + " Write each once.", file=file)


@rule("CF21", "incomplete-quark-config", severity=ERROR, engines=("vllm", "sglang"), scope=_dialect("quark"))
def incomplete_quark_config(headers: Headers) -> Iterator[Found]:
    """A Quark declaration lacks a part that the loaders read without asking.

    Why: vLLM and SGLang stop on a missing `export`, `kv_cache_group` or `layer_type_quant_config`.
    Fix: write the block as Quark's exporter does.
    Seen: vLLM and SGLang `quark/quark.py`.
    """
    for quant in headers.checkpoint.declarations:
        if quant.dialect == "quark":
            for problem in jsonio.problems(dict(quant.raw), "quark-export"):
                yield Found(f"{quant.origin}: {problem}; write the block as Quark does.", file=CONFIG)


@rule("CF22", "wrong-quark-spec", severity=ERROR, engines=("vllm", "sglang"), scope=_dialect("quark"))
def wrong_quark_spec(headers: Headers) -> Iterator[Found]:
    """A Quark MXFP4 declaration does not say fp4, per_group, 32, e8m0, static weights, dynamic or no activations.

    Why: vLLM finds no scheme for anything else and stops. Quark's NVFP4, a list of two specs, is not judged here.
    Fix: write the weight and input specs of OCP MXFP4.
    Seen: vLLM `quark/quark.py`, scheme selection.
    """
    for quant in headers.checkpoint.declarations:
        config = quant.raw.get("global_quant_config")
        if quant.dialect == "quark" and isinstance(config, Mapping) and not isinstance(config.get("weight"), list):
            for problem in jsonio.problems(dict(config), "quark-mxfp4"):
                yield Found(f"{quant.origin}.global_quant_config: {problem}; correct it.", file=CONFIG)


@rule("CF25", "config-drift", severity=ERROR, engines=ENGINES)
def config_drift(pair: Pair) -> Iterator[Found]:
    """A key of config.json that quantization does not own differs from the source.

    Why: geometry, rope and token ids decide what the model computes; libraries rewrite them when they save a config.
    Only the quantization block, `transformers_version` and the dtype may differ.
    Fix: take config.json from the source and add the quantization block.
    Seen: vllm-project/vllm PR 44158 (rope_theta moved by transformers 5); intel/auto-round issue 1984.
    """
    for key, mine, theirs in _differences(pair.checkpoint.config, pair.source.config):
        said = ("is missing" if mine is _ABSENT else f"is {_short(mine)}") + (
            ", which the source does not have" if theirs is _ABSENT else f", the source says {_short(theirs)}"
        )
        yield Found(f"{CONFIG}: {key} {said}; restore the source's value.", file=CONFIG)


_ABSENT = object()


def _differences(mine: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys that differ, keys that quantization owns left out."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*mine, *theirs} - OWNED):
            yield from _differences(mine.get(key, _ABSENT), theirs.get(key, _ABSENT), f"{path}.{key}" if path else key)
    elif mine is not theirs and (mine != theirs or type(mine) is not type(theirs)):
        yield path, mine, theirs
