"""CF: what only modelopt's declarations have: two files, one algorithm or a map of them, a key-value cache scheme."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.modules import Module
from publisher.checkpoint.quantconfig import BLOCKS, QuantConfig
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import Headers, Modules

CONFIG, FILE = "config.json", "hf_quant_config.json"
NESTED_KEYS = ("group_size", "kv_cache_quant_algo", "exclude_modules")
SHOWN = 120


def _declared(subject: Headers | Modules) -> list[QuantConfig]:
    return [quant for quant in subject.checkpoint.declarations if quant.dialect == "modelopt"]


def _inline(subject: Headers | Modules) -> QuantConfig | None:
    return next((quant for quant in _declared(subject) if quant.origin.startswith(CONFIG)), None)


DECLARED = Scope("modelopt declaration", lambda subject: bool(_declared(subject)))
MIXED = Scope("MIXED_PRECISION declaration", lambda subject: any(q.format == "mixed" for q in _declared(subject)))
FP4 = Scope("modelopt FP4 declaration", lambda subject: any(q.format in BLOCKS for q in _declared(subject)))
NESTED = Scope("nested NVFP4 declaration", lambda headers: any(_nested_nvfp4(quant) for quant in _declared(headers)))


def _file(quant: QuantConfig) -> str:
    return quant.origin.partition(":")[0]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


@rule("CF04", "files-disagree", severity=ERROR, engines=("tensorrt-llm",), scope=DECLARED)
def files_disagree(headers: Headers) -> Iterator[Found]:
    """config.json and hf_quant_config.json are not both there, or do not declare the same.

    Why: vLLM and SGLang obey config.json, TensorRT-LLM obeys the other file; where they differ, the engines serve
    different models.
    Fix: write both files from one declaration.
    Seen: vllm-project/vllm PR 42181 (nvidia/Qwen3.5-397B-A17B-NVFP4).
    """
    inline = _inline(headers)
    file = next((quant for quant in _declared(headers) if quant.origin == FILE), None)
    if inline is None or file is None:
        lost = FILE if file is None else CONFIG
        flaw = headers.checkpoint.document_flaws.get(lost)
        yield Found(_one_sided(headers, lost, flaw), file=lost, engines=())
        return
    mine, theirs = _facts(inline), _facts(file)
    for key, value in mine.items():
        if value != theirs[key]:
            message = f"{key}: {CONFIG} says {_short(value)}, {FILE} says {_short(theirs[key])}; write them alike."
            yield Found(message, file=FILE)


def _one_sided(headers: Headers, lost: str, flaw: str | None) -> str:
    """What is wrong when only one of the two files holds a declaration of modelopt's."""
    if flaw:
        return f"{lost} cannot be read: {flaw.rstrip('.')}; write both files from one declaration."
    other = next((quant for quant in headers.checkpoint.declarations if quant.origin.startswith(CONFIG)), None)
    if lost == CONFIG and other is not None and other.dialect:
        return f"{CONFIG} declares {other.dialect[:40]}, {FILE} modelopt; keep the one that the tensors are in."
    return f"{lost} declares nothing, the other file does; write both files from one declaration."


def _facts(quant: QuantConfig) -> dict[str, Any]:
    return {
        "quant_algo": (quant.algo or "").upper() or None,
        "KV cache": quant.kv_cache,
        "group_size": quant.group_size,
        "excluded modules": sorted(set(quant.ignore)),
        "quantized_layers": quant.body.get("quantized_layers") or {},
    }


def _nested_nvfp4(quant: QuantConfig) -> bool:
    return quant.format == "nvfp4" and isinstance(quant.raw.get("quantization"), Mapping)


@rule("CF05", "incomplete-nested-keys", severity=ERROR, scope=NESTED)
def incomplete_nested_keys(headers: Headers) -> Iterator[Found]:
    """A nested NVFP4 declaration lacks group_size, kv_cache_quant_algo or exclude_modules.

    Why: vLLM reads all three without asking and stops, SGLang stops without group_size; they do so wherever this form
    is the one they obey, which is hf_quant_config.json when config.json declares nothing.
    Fix: write the three keys; `kv_cache_quant_algo` may be null and the list empty.
    Seen: vLLM and SGLang `modelopt_quant` readers of the nested form.
    """
    obeyed = headers.checkpoint.quant
    for quant in _declared(headers):
        lost = [key for key in NESTED_KEYS if key not in quant.body] if _nested_nvfp4(quant) else []
        if lost:
            refuses = ("vllm", "sglang") if "group_size" in lost else ("vllm",)
            message = f"{quant.origin}: `quantization` has no {', '.join(lost)}; write it as modelopt does."
            yield Found(message, file=_file(quant), refuses=refuses if quant is obeyed else ())


@rule("CF12", "broken-layer-map", severity=ERROR, engines=("vllm", "sglang", "tensorrt-llm"), scope=MIXED)
def broken_layer_map(modules: Modules) -> Iterator[Found]:
    """The map of a MIXED_PRECISION declaration is missing, nested twice, names no module, or leaves quantized ones out.

    Why: vLLM stops without `quantized_layers`; a module that is not in it is built unquantized, and all NVFP4 layers
    get the group size of the first.
    Fix: write `quantized_layers` with one entry for every quantized module, in both files.
    Seen: sgl-project/sglang PR 28099 and vllm-project/vllm PR 35047 (maps doubly nested or lost).
    """
    known = _names(modules.checkpoint.modules)
    for quant in _declared(modules):
        if quant.format == "mixed":
            yield from _map_flaws(quant, known, modules)


def _names(names: Mapping[str, Any]) -> set[str]:
    """Module names and all names above them."""
    found: set[str] = set()
    for name in names:
        while name and name not in found:
            found.add(name)
            name = name.rpartition(".")[0]
    return found


def _map_flaws(quant: QuantConfig, known: set[str], modules: Modules) -> Iterator[Found]:
    file, layers = _file(quant), quant.body.get("quantized_layers")
    if not isinstance(layers, Mapping) or not layers:
        message = f"{quant.origin} is MIXED_PRECISION and has no `quantized_layers`; write one entry for every module."
        yield Found(message, file=file, refuses=("vllm", "sglang"))
        return
    if isinstance(layers.get("quantized_layers"), Mapping):
        message = f"{quant.origin}: `quantized_layers` stands inside `quantized_layers`; keep the inner map only."
        yield Found(message, file=file, refuses=("vllm",))
        return
    yield from _entries(quant, known)
    stored = [*modules.packed, *(module for module in modules.checkpoint.modules.values() if _is_fp8(module))]
    lost = [module.name for module in stored if quant.layer(module.name) is None]
    if lost:
        message = (
            f"{quant.origin}: {len(lost):,} quantized modules such as {_short(lost[0])} are not in `quantized_layers`"
        )
        yield Found(f"{message}; add them.", file=file, tensor=lost[0])


def _is_fp8(module: Module) -> bool:
    """A layer in FP8, which is read as 16 bits where the map does not name it."""
    weight = module.weight
    scaled = not module.tensors.keys().isdisjoint({"weight_scale", "weight_scale_inv"})
    return weight is not None and weight.dtype == "F8_E4M3" and len(weight.shape) == 2 and scaled


def _entries(quant: QuantConfig, known: set[str]) -> Iterator[Found]:
    file, sizes = _file(quant), Counter(e.group_size for e in quant.layers.values() if e.format == "nvfp4")
    if len(sizes) > 1:
        said = ", ".join(f"{size} ({count:,} times)" for size, count in sizes.most_common(5))
        yield Found(f"{quant.origin}: NVFP4 layers have group sizes {said}; write 16 everywhere.", file=file)
    for name, layer in quant.layers.items():
        if layer.format is None or layer.format == "mixed":
            message = f"{quant.origin}: {_short(name)} is declared {_short(layer.algo)}, which names no format"
            yield Found(f"{message}; write its `quant_algo`.", file=file, tensor=name)
        if name not in known:
            message = f"{quant.origin}: `quantized_layers` names {_short(name)}, which the checkpoint does not have"
            yield Found(f"{message}; write the module's full name or remove it.", file=file, tensor=name)


@rule("CF13", "other-algorithm", severity=ERROR, engines=("vllm", "sglang"), scope=DECLARED)
def other_algorithm(modules: Modules) -> Iterator[Found]:
    """The algorithm declared is not the one the tensors are for: W4A16 has no input scales, AWQ has pre-quant scales.

    Why: vLLM reads a missing input scale as whatever the memory held, SGLang as 1.0; a pre-quant scale that is not
    declared is never applied.
    Fix: write W4A16_NVFP4 for weight-only, NVFP4_AWQ or NVFP4_SVD with pre-quant scales, NVFP4 otherwise.
    Seen: vllm-project/vllm issue 56770; modelopt exports W4A4 without input scales when it was given no data.
    """
    quant = modules.quant
    if quant is None or quant.dialect != "modelopt":
        return
    facts, tally = jsonio.data("dialects/declarations.json")["modelopt"], _tally(modules, quant)
    for algo, (total, inputs, smoothed, example) in tally.items():
        smooths = facts[algo].get("pre_quant_scale", False)
        where: dict[str, Any] = {"file": CONFIG, "tensor": example}
        if facts[algo].get("activations") == "static" and not inputs:
            yield Found(f"None of {total:,} {algo} modules has an input scale; declare W4A16_NVFP4.", **where)
        if facts[algo].get("activations") == "none" and inputs == total:
            message = f"All {total:,} {algo} modules have an input scale; declare NVFP4."
            yield Found(message, **where, engines=())
        if smooths and not smoothed:
            message = f"None of {total:,} {algo} modules has a pre_quant_scale; declare NVFP4."
            yield Found(message, **where, engines=("sglang", "tensorrt-llm"))
        if not smooths and smoothed:
            message = f"{smoothed:,} of {total:,} {algo} modules have a pre_quant_scale; declare NVFP4_AWQ."
            yield Found(message, **where, engines=("sglang", "tensorrt-llm"), refuses=("vllm",))
    yield from _groups_without_inputs(modules)


def _tally(modules: Modules, quant: QuantConfig) -> dict[str, tuple[int, int, int, str]]:
    """By algorithm: FP4 modules, those with an input scale, those with a pre-quant scale, and the first's name."""
    known = {a for a, fact in jsonio.data("dialects/declarations.json")["modelopt"].items() if fact["format"] in BLOCKS}
    found: dict[str, tuple[int, int, int, str]] = {}
    for module in modules.packed:
        layer = quant.layer(module.name) if quant.format == "mixed" else None
        algo = ((layer.algo if layer is not None else quant.algo) or "").upper()
        if algo in known:
            total, inputs, smoothed, example = found.get(algo, (0, 0, 0, module.name))
            inputs += "input_scale" in module.tensors
            smoothed += "pre_quant_scale" in module.tensors
            found[algo] = total + 1, inputs, smoothed, example
    return found


def _groups_without_inputs(modules: Modules) -> Iterator[Found]:
    """vLLM takes NVFP4 for weight-only where no group has inputs; the others do not look."""
    quant = _inline(modules)
    groups = quant.raw.get("config_groups") if quant is not None else None
    if quant is None or not isinstance(groups, Mapping) or quant.format != "nvfp4":
        return
    inputs = [isinstance(g, Mapping) and bool(g.get("input_activations")) for g in groups.values()]
    weight_only = (quant.algo or "").upper().startswith("W4A16")
    if inputs and not weight_only and not any(inputs):
        message = f"{quant.origin}: quant_algo is {quant.algo}, but no group has input_activations; declare W4A16_NVFP4"
        yield Found(f"{message} or write them.", file=CONFIG, engines=())
    if weight_only and any(inputs):
        message = f"{quant.origin}: quant_algo is {quant.algo}, but a group has input_activations; remove them."
        yield Found(message, file=CONFIG, engines=())


@rule("CF14", "unread-cache-scheme", severity=WARNING, engines=("vllm", "tensorrt-llm"), scope=DECLARED)
def unread_cache_scheme(headers: Headers) -> Iterator[Found]:
    """`kv_cache_scheme` in config.json is not {num_bits 8, type float, dynamic false}, and not absent.

    Why: vLLM and TensorRT-LLM read only that; anything else leaves the key-value cache in 16 bits without a word.
    A four-bit cache is a rule of its own.
    Fix: write the dictionary as modelopt does, or leave the key out.
    Seen: vLLM `modelopt.py`, which passes over a scheme that is a string.
    """
    for quant in _declared(headers):
        scheme = quant.raw.get("kv_cache_scheme")
        if scheme is None or (isinstance(scheme, str) and scheme.upper() == "NVFP4"):
            continue
        read = isinstance(scheme, Mapping) and scheme.get("num_bits") == 8 and scheme.get("type") == "float"
        if not read or scheme.get("dynamic") not in (False, None):
            message = (
                f"{quant.origin}: kv_cache_scheme is {_short(scheme)}; write num_bits 8, type float, dynamic false."
            )
            yield Found(message, file=_file(quant))


@rule("CF27", "unnamed-producer", severity=WARNING, engines=("tensorrt-llm",), scope=DECLARED)
def unnamed_producer(headers: Headers) -> Iterator[Found]:
    """A modelopt declaration does not name modelopt and its version as the producer.

    Why: TensorRT-LLM, and vLLM where only hf_quant_config.json is there, know the layout by this name; the version
    tells which of the exporter's defects to look for.
    Fix: write `producer` with name and version.
    Seen: vLLM `model_arch_config_convertor.py`.
    """
    for quant in _declared(headers):
        producer = quant.raw.get("producer")
        name, version = (
            (producer.get("name"), producer.get("version")) if isinstance(producer, Mapping) else (None,) * 2
        )
        if name != "modelopt" or not isinstance(version, str) or not version.strip():
            message = f"{quant.origin}: the producer is {_short(name)}, version {_short(version)}"
            yield Found(f"{message}; write modelopt and the version that made it.", file=_file(quant))


@rule("CF37", "unstated-block-length", severity=WARNING, engines=("vllm", "sglang", "tensorrt-llm"), scope=FP4)
def unstated_block_length(headers: Headers) -> Iterator[Found]:
    """No place of a modelopt FP4 declaration says how long a block is.

    Why: every reader then takes a default of its own, mostly 16, which is half of an MXFP4 block.
    Fix: write `group_size` in hf_quant_config.json and in the config groups, or publish MXFP4 in another layout.
    Seen: modelopt 0.47's MXFP4 preset exports an algorithm and nothing else.
    """
    declared = [quant for quant in _declared(headers) if quant.format in BLOCKS]
    if declared and not any(quant.group_sizes for quant in declared):
        block = BLOCKS[str(declared[0].format)]
        message = f"{declared[0].origin} states no group_size, and no other file does; write {block}."
        yield Found(message, file=_file(declared[0]))
