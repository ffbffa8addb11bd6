"""CF: what only compressed-tensors' declarations have: groups with targets, formats, a parser that forbids extras."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.modules import Module
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.findings import ERROR, WARNING, Found
from publisher.matching import PatternError, compile_foreign
from publisher.rules import Scope, rule
from publisher.subjects import Headers, Modules

CONFIG = "config.json"
MIXED = "mixed-precision"
ARGUMENTS = re.compile(r"^`config_groups\..+\.(weights|input_activations)(\.|`)")
SCHEMAS = {"nvfp4-pack-quantized": "compressed-nvfp4", "mxfp4-pack-quantized": "compressed-mxfp4"}
PARTS = ("weights", "input_activations", "output_activations")


def _declared(subject: Headers | Modules) -> list[QuantConfig]:
    return [quant for quant in subject.checkpoint.declarations if quant.dialect == "compressed-tensors"]


DECLARED = Scope("compressed-tensors declaration", lambda subject: bool(_declared(subject)))
Group = tuple[str, Mapping[str, Any]]


def _groups(quant: QuantConfig) -> list[Group]:
    groups = quant.raw.get("config_groups")
    rows = groups.items() if isinstance(groups, Mapping) else ()
    return [(str(name), group) for name, group in rows if isinstance(group, Mapping)]


def _arguments(quant: QuantConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The arguments of every part of every group, with their place."""
    for name, group in _groups(quant):
        for part in PARTS:
            spec = group.get(part)
            if isinstance(spec, Mapping):
                yield f"{name}.{part}", spec


def _short(value: Any) -> str:
    return str(value)[:120]


# --- the block by itself -------------------------------------------------------------------------------------------


@rule("CF15", "unparsable-block", severity=ERROR, refuses=("vllm", "sglang", "transformers"), scope=DECLARED)
def unparsable_block(headers: Headers) -> Iterator[Found]:
    """compressed-tensors' own classes refuse the block: an unknown key, a wrong type, or arguments that do not fit.

    Why: the engines read every group's arguments with these classes, and transformers the whole block; a single
    unknown key is an error.
    Fix: write the block as the library does, or remove what it does not know.
    Seen: vllm-project/compressed-tensors PR 599 (fields newer than the reader's library).
    """
    for quant in _declared(headers):
        for problem in jsonio.problems(dict(quant.raw), "compressed-tensors"):
            refuses = None if ARGUMENTS.match(problem) else ("transformers",)
            message = f"{quant.origin}: {problem.rstrip('.')}; write the block as compressed-tensors does."
            yield Found(message, file=CONFIG, engines=refuses, refuses=refuses)


@rule("CF17", "wrong-group-arguments", severity=ERROR, refuses=("vllm", "sglang", "tensorrt-llm"), scope=DECLARED)
def wrong_group_arguments(headers: Headers) -> Iterator[Found]:
    """A group's arguments are not its FP4 format's: 4-bit symmetric floats, tensor groups of 16 or groups of 32.

    Why: engines choose the kernel by these arguments and stop where none fits. Inputs are of the same family or absent;
    eight-bit inputs beside MXFP4 weights are not judged.
    Fix: write the arguments of the NVFP4 or MXFP4 preset.
    Seen: vLLM `compressed_tensors.py`; TensorRT-LLM `models/quant_config_utils.py`.
    """
    for quant in _declared(headers):
        for name, group in _groups(quant):
            schema = SCHEMAS.get(str(group.get("format") or quant.raw.get("format")))
            inputs = group.get("input_activations")
            wide = isinstance(inputs, Mapping) and inputs.get("num_bits") == 8 and schema == "compressed-mxfp4"
            judged = {key: value for key, value in group.items() if not (wide and key == "input_activations")}
            for problem in jsonio.problems(judged, schema) if schema else ():
                yield Found(f"{quant.origin}: {name}: {problem.rstrip('.')}; write the preset's value.", file=CONFIG)


@rule("CF18", "leftover-sparsity", severity=ERROR, scope=DECLARED)
def leftover_sparsity(headers: Headers) -> Iterator[Found]:
    """`sparsity_config` is not empty.

    Why: vLLM raises where it names targets, even for the format `dense`; no engine reads sparse FP4 weights.
    Fix: write an empty object or leave the key out, also for weights that are sparse but stored densely.
    Seen: vllm-project/vllm issue 51188 (RedHatAI/granite-3.1-8b-instruct-quantized.w4a16).
    """
    for quant in _declared(headers):
        sparsity = quant.raw.get("sparsity_config")
        if sparsity:
            targets = sparsity.get("targets") if isinstance(sparsity, Mapping) else True
            message = f"{quant.origin}: sparsity_config is {_short(sparsity)}; write an empty object."
            yield Found(message, file=CONFIG, severity=ERROR if targets else WARNING, refuses=("vllm",) * bool(targets))


@rule("CF20", "producer-arguments", severity=WARNING, scope=DECLARED)
def producer_arguments(headers: Headers) -> Iterator[Found]:
    """A group carries arguments that only the producer needs: an activation order by group, or observer settings.

    Why: they say how scales were searched and nothing about the stored numbers; readers of other versions refuse them.
    Fix: remove `observer_kwargs`, and `actorder` where it is group or dynamic.
    Seen: compressed-tensors 0.20 removed activation order by group.
    """
    for quant in _declared(headers):
        for place, spec in _arguments(quant):
            order, kwargs = spec.get("actorder"), spec.get("observer_kwargs")
            if order is True or (isinstance(order, str) and order.lower() in ("group", "dynamic")):
                yield Found(f"{quant.origin}: {place}.actorder is {_short(order)}; remove it.", file=CONFIG)
            if kwargs:
                yield Found(f"{quant.origin}: {place}.observer_kwargs is {_short(kwargs)}; remove it.", file=CONFIG)


@rule("CF31", "younger-than-stated", severity=WARNING, scope=DECLARED)
def younger_than_stated(headers: Headers) -> Iterator[Found]:
    """The block has fields that the compressed-tensors version it names does not know.

    Why: that version refuses them, so the block was edited or merged, and who installs the version named cannot load
    the checkpoint. Only released versions are compared.
    Fix: write the version that made the block, or remove the younger fields.
    Seen: vllm-project/compressed-tensors PR 599 (`scale_dtype` and `zp_dtype` refused by older readers).
    """
    for quant in _declared(headers):
        stated = _version(quant.raw.get("version"))
        for place, since in _since(quant) if stated else ():
            if (needed := _version(since)) and stated and stated < needed:
                message = f"{quant.origin}: {place} came with compressed-tensors {since}"
                message += f", the block names {_short(quant.raw['version'])}; write the version that made it."
                yield Found(message, file=CONFIG)


def _version(text: Any) -> tuple[int, ...] | None:
    """A release's numbers; None for anything else, such as a nightly build."""
    numbers = isinstance(text, str) and re.fullmatch(r"\d{1,6}(\.\d{1,6}){1,3}", text)
    return tuple(int(part) for part in text.split(".")) if numbers else None


def _since(quant: QuantConfig) -> Iterator[tuple[str, str]]:
    """What the block uses that has not always been there, and the release it came with."""
    facts = jsonio.data("dialects/compressed-tensors-since.json")
    forms = [("format", quant.raw.get("format"))]
    for name, group in _groups(quant):
        forms.append((f"{name}.format", group.get("format")))
        if group.get("format") is not None:
            yield f"{name}.format", facts["group"]["format"]
    for place, form in forms:
        if isinstance(form, str) and form in facts["formats"]:
            yield f"{place} {form}", facts["formats"][form]
    for place, spec in _arguments(quant):
        for key in sorted(facts["arguments"].keys() & spec.keys()):
            yield f"{place}.{key}", facts["arguments"][key]
        strategy = spec.get("strategy")
        if isinstance(strategy, str) and strategy in facts["strategies"]:
            yield f"{place}.strategy {strategy}", facts["strategies"][strategy]


# --- the block and the tensors -------------------------------------------------------------------------------------


@rule(
    "CF16", "other-format", severity=ERROR, refuses=("vllm", "sglang", "tensorrt-llm", "transformers"), scope=DECLARED
)
def other_format(modules: Modules) -> Iterator[Found]:
    """`format` is missing, unknown, not the tensors' layout, or a group's format contradicts the block's.

    Why: readers choose the decoder by it; one that has a fallback decodes the bytes as something else.
    Fix: write the format of the tensors; `mixed-precision` only where every group states its own.
    Seen: ml-explore/mlx-lm issue 1865 (FP8 bytes decoded as four-bit integers).
    """
    known = jsonio.data("dialects/declarations.json")["compressed-tensors"]
    stored = _stored(modules)
    for quant in _declared(modules):
        form = quant.raw.get("format")
        if not isinstance(form, str) or form not in known:
            yield Found(f"{quant.origin}: format is {_short(form)}; write the one the tensors are in.", file=CONFIG)
            continue
        yield from _group_formats(quant, form)
        if form != MIXED:
            for found, (count, example) in stored.items():
                if found != form:
                    message = f"{quant.origin}: format is {form}, but {count:,} modules such as {example} are {found}"
                    yield Found(f"{message}; declare them so.", file=CONFIG, tensor=example)


def _group_formats(quant: QuantConfig, form: str) -> Iterator[Found]:
    for name, group in _groups(quant):
        own = group.get("format")
        if form == MIXED and own is None:
            yield Found(f"{quant.origin} is {MIXED}, and {name} states no format; write it.", file=CONFIG)
        elif form != MIXED and own is not None and own != form:
            message = f"{quant.origin}: format is {form}, that of {name} is {_short(own)}; write {MIXED} or one format."
            yield Found(message, file=CONFIG)


def _stored(modules: Modules) -> dict[str, tuple[int, str]]:
    """The formats of the packed payloads by their tensors: how many modules, and the first."""
    found: dict[str, tuple[int, str]] = {}
    for name, module in modules.checkpoint.modules.items():
        form = _form(module) if "weight_packed" in module.tensors else None
        if form is not None:
            count, example = found.get(form, (0, name))
            found[form] = count + 1, example
    return found


def _form(module: Module) -> str | None:
    payload, scale = module.tensors["weight_packed"].dtype, module.tensors.get("weight_scale")
    if payload == "I32":
        return "pack-quantized"
    if payload != "U8" or scale is None:
        return None
    return {"F8_E4M3": "nvfp4-pack-quantized", "U8": "mxfp4-pack-quantized"}.get(scale.dtype)


@rule("CF19", "ambiguous-targets", severity=ERROR, engines=("vllm", "sglang", "tensorrt-llm"), scope=DECLARED)
def ambiguous_targets(modules: Modules) -> Iterator[Found]:
    """A target matches no module, a module is reached by groups that differ, or one of several groups targets a class.

    Why: vLLM takes the first target that matches, so a module gets one scheme or the other by the order of names;
    TensorRT-LLM refuses class names where there are several groups.
    Fix: give each group targets of its own, by full names or anchored `re:` patterns.
    Seen: unsloth/Qwen3.8-27B-NVFP4 (overlapping groups); intel/auto-round PR 2128 (every group targets Linear).
    """
    for quant in _declared(modules):
        targets = _targets(quant)
        classes = Counter(target for rows in targets.values() for target in rows if _is_class(target))
        if len(targets) > 1 and classes:
            shared = any(count > 1 for count in classes.values())
            message = f"{quant.origin}: {len(targets)} groups, and {', '.join(sorted(classes))[:120]} is a target"
            engines = None if shared else ("tensorrt-llm",)
            refuses = ("tensorrt-llm",)
            yield Found(f"{message}; name the modules instead.", file=CONFIG, engines=engines, refuses=refuses)
        yield from _reached(quant, targets, modules)


def _targets(quant: QuantConfig) -> dict[str, list[str]]:
    found = {}
    for name, group in _groups(quant):
        rows = group.get("targets")
        found[name] = [row for row in rows if isinstance(row, str)] if isinstance(rows, list) else []
    return found


def _is_class(target: str) -> bool:
    return not target.startswith("re:") and re.fullmatch(r"[A-Z]\w*", target) is not None


def _reached(quant: QuantConfig, targets: Mapping[str, list[str]], modules: Modules) -> Iterator[Found]:
    exact: dict[str, list[str]] = {}
    regexes: list[tuple[str, str, Callable[[str], object]]] = []
    for group, rows in targets.items():
        for target in rows:
            if not target.startswith("re:"):
                exact.setdefault(target, []).append(group)
                continue
            try:
                regexes.append((group, target, compile_foreign(target[3:]).match))
            except PatternError as error:
                yield Found(f"{quant.origin}: {group}: {error.message.rstrip('.')}; correct the target.", file=CONFIG)
    unseen = {row for rows in targets.values() for row in rows if not _is_class(row)}
    unseen -= {target for target in unseen if target.startswith("re:") and target not in {r[1] for r in regexes}}
    schemes = {name: {part: group.get(part) for part in PARTS} for name, group in _groups(quant)}
    doubled: dict[str, set[str]] = {}
    for name in modules.checkpoint.modules if unseen else ():
        hit = {*exact.get(name, ())}
        unseen.discard(name)
        for group, target, match in regexes:
            if (group not in hit or target in unseen) and len(name) <= 512 and match(name):
                hit.add(group)
                unseen.discard(target)
        if len(hit) > 1 and any(schemes[one] != schemes[other] for one in hit for other in hit):
            doubled[name] = hit
        if not unseen and len(targets) < 2:
            break
    for target in sorted(unseen):
        yield Found(
            f"{quant.origin}: the target {_short(target)} matches no module; correct or remove it.", file=CONFIG
        )
    yield from _conflicts(quant, doubled, modules)


def _conflicts(quant: QuantConfig, doubled: Mapping[str, set[str]], modules: Modules) -> Iterator[Found]:
    left = sorted(doubled.keys() - modules.excluded(doubled))
    if left:
        groups = ", ".join(sorted(doubled[left[0]]))
        message = f"{quant.origin}: {len(left):,} modules such as {left[0]} are targets of {groups}"
        yield Found(f"{message[:300]}; let one group reach each.", file=CONFIG, tensor=left[0])


@rule("CF38", "tied-head-reached", severity=ERROR, refuses=("transformers",), scope=DECLARED)
def tied_head_reached(modules: Modules) -> Iterator[Found]:
    """A head tied to the embedding is reached by the target Linear, and no ignore entry leaves it out.

    Why: the head has no tensors of its own; transformers builds it quantized, finds nothing to load and stops.
    Fix: add `lm_head` to `ignore`.
    Seen: AutoRound 0.16's MXFP4 export of a tied model ignores the embedding instead of the head.
    """
    tied = modules.text.get("tie_word_embeddings", modules.checkpoint.config.get("tie_word_embeddings"))
    heads = [name for name, module in modules.checkpoint.modules.items() if module.role == "head"]
    if tied is not True or heads:
        return
    embedding = next((n for n in modules.checkpoint.modules if n.endswith("model.embed_tokens")), "model.embed_tokens")
    head = embedding.removesuffix("model.embed_tokens") + "lm_head"
    for quant in _declared(modules):
        reached = any("Linear" in rows for rows in _targets(quant).values())
        if reached and not modules.excluded([head, "lm_head"]):
            message = f"{quant.origin}: the tied {head} is a Linear and not in `ignore`; add it."
            yield Found(message, file=CONFIG, tensor=head)
