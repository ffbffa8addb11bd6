"""CF: what config.json and hf_quant_config.json declare, in any dialect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import BLOCK, Headers, Modules

CONFIG = "config.json"
BLOCKS = frozenset({"quantization_config", "compression_config"})
# Who finds a declaration in a place other than the top level of config.json.
READERS = {
    "config.json: text_config.quantization_config": ("vllm", "sglang", "transformers"),
    "config.json: compression_config": ("vllm", "sglang"),
    "hf_quant_config.json": ("vllm", "sglang", "tensorrt-llm"),
}
EXCLUDES = ("ignore", "exclude", "exclude_modules", "modules_to_not_convert")
# Parts of a declaration whose group sizes are about something else than the weights' blocks.
ELSEWHERE = frozenset({"kv_cache_scheme", "kv_cache_quant_config", "output_activations", "output_tensors", "bias"})


DECLARED = Scope("quantization declaration", lambda headers: bool(headers.checkpoint.declarations))


@rule("CF01", "misplaced-declaration", severity=ERROR, engines=ENGINES, scope=DECLARED)
def misplaced_declaration(headers: Headers) -> Iterator[Found]:
    """The quantization block is not exactly once in config.json, at the top level.

    Why: engines and tools search several places in different orders, so a nested or second block makes them disagree;
    without any in config.json half of them do not see that the checkpoint is quantized.
    Fix: keep one `quantization_config` at the top level and delete the others.
    Seen: the nested int4 block of moonshotai/Kimi-K2.5; NVIDIA-NeMo/RL PR 3615 (no block in config.json).
    """
    places = list(_blocks(headers.checkpoint.config))
    top = "quantization_config" in places
    if not top:
        origins = {quant.origin for quant in headers.checkpoint.declarations}
        blind = tuple(e for e in ENGINES if not any(e in READERS.get(origin, ()) for origin in origins))
        message = f"{CONFIG} has no quantization_config at its top level; write it there."
        yield Found(message, file=CONFIG, engines=blind, refuses=blind)
    for place in places:
        if place != "quantization_config":
            yield Found(
                f"{CONFIG} has a second declaration at {place}; delete it.", file=CONFIG, engines=() if top else None
            )


def _blocks(value: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of all quantization blocks, without looking into them."""
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        if key in BLOCKS and item is not None:
            yield path + key
        else:
            yield from _blocks(item, f"{path}{key}.")


@rule("CF02", "unknown-method", severity=ERROR, refuses=ENGINES)
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
        message = f"{flaw.rstrip('.')}; nothing it declares could be judged. Write it again."
        yield Found(message, file=CONFIG, engines=())  # CF29 says who refuses it
        return
    if quant is None:
        found = f"but {len(packed):,} of its modules are packed" if packed else "and holds no packed weights"
        message = f"The checkpoint declares no quantization {found}; quantize it, or write the declaration."
        yield Found(message, file=CONFIG, engines=None if packed else ())
        return
    method = quant.raw.get("quant_method", quant.dialect)
    file = quant.origin.partition(":")[0]
    facts = jsonio.data("dialects/declarations.json")
    methods = facts["methods"]
    if method not in methods and quant.dialect in methods:
        yield _renamed(str(method), quant.dialect, facts["aliases"].get(str(method).lower(), {}), file)
    elif method not in methods:
        message = f"quant_method is {str(method)[:40]!r}; FP4 is declared by one of {', '.join(methods)}."
        yield Found(message, file=file)
    elif quant.format in (*BLOCK, "mixed"):
        yield from _layout(modules, quant, file)


def _renamed(method: str, meant: str, alias: Mapping[str, Any], file: str) -> Found:
    """An engine's own name of a method: some read it, and no tool that compares names with the file or a flag."""
    message = f"quant_method is {method[:40]!r}, a reader's own name for {meant}; write {meant}."
    if alias.get("readers"):
        return Found(message, file=file, severity=WARNING, engines=())
    return Found(message, file=file, refuses=ENGINES)


def _layout(modules: Modules, quant: QuantConfig, file: str) -> Iterator[Found]:
    """Whether the tensors' names are those of the declared method."""
    native = any(name.endswith("_blocks") for name in modules.checkpoint.tensors)
    if not modules.packed and not modules.stacked and not native:
        message = f"{quant.origin} declares {quant.format}, but no weight is packed; quantize the model."
        yield Found(message, file=file)
        return
    suffixes = Counter("weight_packed" if "weight_packed" in m.tensors else "weight" for m in modules.packed)
    wanted = "weight_packed" if quant.dialect in ("compressed-tensors", "auto-round") else "weight"
    odd = sum(count for suffix, count in suffixes.items() if suffix != wanted)
    if quant.dialect != "mxfp4" and odd:
        message = f"{quant.dialect} stores payloads as `{wanted}`; {odd:,} modules do otherwise. Declare their method."
        yield Found(message, file=file)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


@rule(
    "CF06",
    "wrong-group-size",
    severity=ERROR,
    refuses=("vllm", "sglang", "tensorrt-llm"),
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
                engines = _size_readers(quant, place, quant is headers.checkpoint.quant)
                yield Found(message, file=quant.origin.partition(":")[0], engines=engines)


def _size_readers(quant: QuantConfig, place: str, obeyed: bool) -> tuple[str, ...] | None:
    """Who reads a modelopt group size in this place; None where the rule's own engines do."""
    if quant.dialect != "modelopt":
        return None
    if place.startswith("config_groups."):
        return ("sglang",)
    if not quant.origin.startswith(CONFIG):
        return ("vllm", "sglang", "tensorrt-llm") if obeyed else ("tensorrt-llm",)
    return ("vllm", "sglang")


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


@rule("CF07", "bad-exclude-list", severity=ERROR, engines=ENGINES, refuses=("vllm",), scope=DECLARED)
def bad_exclude_list(headers: Headers) -> Iterator[Found]:
    """The list of excluded modules is no list of unique, non-empty strings.

    Why: vLLM refuses anything else; an empty string matches every module.
    Fix: write each excluded name once.
    Seen: vLLM `modelopt.py` raises on a list that is none.
    """
    for quant in headers.checkpoint.declarations:
        file = quant.origin.partition(":")[0]
        for flaw in quant.flaws:
            yield Found(f"{quant.origin}: {flaw}; write a list of names.", file=file, refuses=("vllm",))
        for key in EXCLUDES:
            names = quant.body.get(key)
            twice = [n for n, count in Counter(map(str, names)).items() if count > 1] if isinstance(names, list) else []
            if twice:
                message = f"{quant.origin}: `{key}` names {len(twice)} modules twice, such as {_short(twice[0])}."
                yield Found(message + " Write each once.", file=file, engines=())


@rule("CF28", "native-auto-round", severity=ERROR, scope=DECLARED)
def native_auto_round(headers: Headers) -> Iterator[Found]:
    """The checkpoint is in AutoRound's own layout.

    Why: vLLM's reader of it knows no NVFP4, and other engines need AutoRound installed beside them.
    Fix: export with `--format llm_compressor`, which writes compressed-tensors.
    Seen: vLLM `inc/inc.py`; intel/auto-round issue 2242.
    """
    for quant in headers.checkpoint.declarations:
        if quant.dialect == "auto-round":
            packing = quant.raw.get("packing_format")
            read = quant.format == "mxfp4" and isinstance(packing, str) and packing.endswith("llm_compressor")
            refuses = () if read else ("vllm",)
            message = f"{quant.origin}: the data type {_short(quant.algo)} is packed as {_short(packing)}"
            yield Found(f"{message}; export as llm_compressor.", file=CONFIG, refuses=refuses)


@rule("CF39", "nothing-declared", severity=ERROR, scope=DECLARED)
def nothing_declared(headers: Headers) -> Iterator[Found]:
    """A compressed-tensors or Quark declaration names its method and then nothing: no groups, no weight spec.

    Why: engines stop, or load the model as unquantized; a selection that matched no layer looks like this.
    Fix: correct the selection and quantize again, or write what the tensors are.
    Seen: modelopt 0.46 did the like for NemotronH, whose layers a wildcard did not match.
    """
    for quant in headers.checkpoint.declarations:
        lost = _lost(quant)
        if lost is not None:
            message = f"{quant.origin}: `{lost}` is {_short(_at(quant, lost))}; write what the tensors are."
            refuses = ("vllm", "sglang", "tensorrt-llm") if lost == "config_groups" else ("vllm", "sglang")
            yield Found(message, file=quant.origin.partition(":")[0], refuses=refuses)


def _lost(quant: QuantConfig) -> str | None:
    """The key that should say what is quantized and does not."""
    if quant.dialect == "compressed-tensors":
        groups = quant.raw.get("config_groups")
        return None if isinstance(groups, Mapping) and groups else "config_groups"
    if quant.dialect == "quark":
        config, layers = quant.raw.get("global_quant_config"), quant.raw.get("layer_quant_config")
        return (
            None if layers or (isinstance(config, Mapping) and config.get("weight")) else "global_quant_config.weight"
        )
    return None


def _at(quant: QuantConfig, key: str) -> Any:
    value: Any = quant.body
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
