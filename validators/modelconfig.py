"""CF: the keys of config.json that describe the model, which quantization must leave as the source has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.open import Checkpoint
from publisher.errors import PublisherError
from publisher.findings import ERROR, INFO, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import Headers, Modules, Pair

CONFIG, GENERATION = "config.json", "generation_config.json"
# Keys of a config that quantization or the writing library owns.
OWNED = frozenset(
    {"quantization_config", "compression_config", "sparsity", "transformers_version", "dtype", "torch_dtype"}
)
DTYPES = ("bfloat16", "float16")
DEFAULT_THETA = 10_000.0
_ABSENT = object()
CONFIGURED = Scope("config.json", lambda subject: bool(subject.checkpoint.config))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _places(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The objects that hold a language model's keys, by the prefix of their keys."""
    nested = config.get("text_config")
    return {"": config} | ({"text_config.": nested} if isinstance(nested, Mapping) else {})


@rule("CF25", "config-drift", severity=ERROR, engines=ENGINES)
def config_drift(pair: Pair) -> Iterator[Found]:
    """A key of config.json that quantization does not own differs from the source.

    Why: geometry, rope and token ids decide what the model computes; libraries rewrite them when they save a config.
    Only the quantization block, `sparsity`, `transformers_version` and the dtype may differ.
    Fix: take config.json from the source and add the quantization block.
    Seen: vllm-project/vllm PR 44158 (rope_theta moved by transformers 5); intel/auto-round issue 1984.
    """
    for key, mine, theirs in _differences(pair.checkpoint.config, pair.source.config):
        said = ("is missing" if mine is _ABSENT else f"is {_short(mine)}") + (
            ", which the source does not have" if theirs is _ABSENT else f", the source says {_short(theirs)}"
        )
        yield Found(f"{CONFIG}: {key} {said}; restore the source's value.", file=CONFIG)


def _differences(mine: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys that differ, keys that quantization owns left out."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*mine, *theirs} - OWNED):
            yield from _differences(mine.get(key, _ABSENT), theirs.get(key, _ABSENT), f"{path}.{key}" if path else key)
    elif mine is not theirs and (mine != theirs or type(mine) is not type(theirs)):
        yield path, mine, theirs


@rule("CF26", "unstated-dtype", severity=WARNING, engines=("vllm", "tensorrt-llm"), scope=CONFIGURED)
def unstated_dtype(headers: Headers) -> Iterator[Found]:
    """config.json does not say that the model computes in bfloat16 or float16.

    Why: vLLM then derives a dtype from the stored tensors, where the F32 scales can win; TensorRT-LLM takes bfloat16.
    Fix: write the source's `torch_dtype` (or `dtype`).
    Seen: vLLM `model_arch_config_convertor.py`.
    """
    said = [
        (prefix + key, value[key])
        for prefix, value in _places(headers.checkpoint.config).items()
        for key in ("dtype", "torch_dtype")
        if value.get(key) is not None
    ]
    if not said:
        yield Found(f"{CONFIG} has neither dtype nor torch_dtype; write bfloat16 or float16.", file=CONFIG)
    elif said[0][1] not in DTYPES:
        key, value = said[0]
        yield Found(f"{CONFIG}: {key} is {_short(value)}; write bfloat16 or float16.", file=CONFIG)
    elif len({str(value) for _, value in said}) > 1:
        listed = ", ".join(f"{key} {_short(value)}" for key, value in said)
        yield Found(f"{CONFIG} states several dtypes: {listed}; write one.", file=CONFIG)


@rule("CF32", "two-rope-forms", severity=ERROR, engines=ENGINES, scope=CONFIGURED)
def two_rope_forms(modules: Modules) -> Iterator[Found]:
    """`rope_parameters` and the older `rope_theta` or `rope_scaling` disagree, or only the newer form is there.

    Why: readers of transformers 5 take `rope_parameters`, older ones `rope_theta` and fall back to 10,000 without it;
    positions then turn at another speed, which shows in long texts only.
    Fix: keep the source's form, or write both with the same values.
    Seen: vllm-project/vllm PR 44158 and sgl-project/sglang PR 14745.
    """
    for prefix, config in _places(modules.checkpoint.config).items():
        new = config.get("rope_parameters")
        if not isinstance(new, Mapping):
            continue
        yield from _rope_conflicts(prefix, config, new)
        theta = new.get("rope_theta")
        alone = "rope_theta" not in config and isinstance(theta, int | float) and theta != DEFAULT_THETA
        if alone and not _same_rope(modules.source, prefix, new):
            message = f"{CONFIG}: {prefix}rope_theta is only in rope_parameters ({_short(theta)}); older readers take"
            message += f" {DEFAULT_THETA:,.0f}. Write {prefix}rope_theta too."
            mild = INFO if modules.source is None else WARNING
            yield Found(message, file=CONFIG, severity=mild, engines=())


def _rope_conflicts(prefix: str, config: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Found]:
    pairs = [("rope_theta", config.get("rope_theta"), new.get("rope_theta"))]
    old = config.get("rope_scaling")
    if isinstance(old, Mapping):
        pairs.append(("rope_type", old.get("rope_type", old.get("type")), new.get("rope_type")))
        pairs.append(("factor", old.get("factor"), new.get("factor")))
    for key, older, newer in pairs:
        if older is not None and newer is not None and older != newer:
            message = f"{CONFIG}: {prefix}rope_parameters says {key} {_short(newer)}, the older form {_short(older)}"
            yield Found(f"{message}; write the source's value in both.", file=CONFIG)


def _same_rope(source: Checkpoint | None, prefix: str, new: Mapping[str, Any]) -> bool:
    place = _places(source.config).get(prefix, {}) if source is not None else {}
    return place.get("rope_parameters") == new


@rule("CF33", "stop-tokens-disagree", severity=WARNING, engines=("vllm", "sglang", "transformers"), scope=CONFIGURED)
def stop_tokens_disagree(modules: Modules) -> Iterator[Found]:
    """config.json and generation_config.json name end-of-sequence tokens, and no common one.

    Why: engines stop at the ids of generation_config.json where they read it and at those of config.json otherwise; a
    model that misses its token never stops. What the source says alike is the source's own.
    Fix: take both files from the source.
    Seen: InfiniTensor/InfiniLM PR 387; QwenLM/Qwen3 issue 1422.
    """
    mine = _stops(modules.checkpoint)
    if modules.source is not None and _stops(modules.source) == mine:
        return
    config, generation = mine
    if config and generation and not config & generation:
        said = f"{CONFIG} stops at {_short(sorted(config))}, {GENERATION} at {_short(sorted(generation))}"
        severity = INFO if modules.source is None else WARNING
        yield Found(f"{said}; compare both with the source.", file=GENERATION, severity=severity)


def _stops(checkpoint: Checkpoint) -> tuple[frozenset[int], frozenset[int]]:
    """The end-of-sequence ids of config.json and of generation_config.json."""
    config = checkpoint.config
    said = next((p["eos_token_id"] for p in _places(config).values() if p.get("eos_token_id") is not None), None)
    if not 0 < checkpoint.files.sizes.get(GENERATION, 0) <= 1 << 20:
        return _ids(said), frozenset()
    try:
        generation = jsonio.loads_json(checkpoint.files.read(GENERATION), GENERATION)
    except PublisherError:  # CF29 names the flaw
        return _ids(said), frozenset()
    return _ids(said), _ids(generation.get("eos_token_id") if isinstance(generation, Mapping) else None)


def _ids(value: Any) -> frozenset[int]:
    return frozenset(item for item in (value if isinstance(value, list) else [value]) if type(item) is int)


SEEING = ("visi", "visual", "image", "vit", "patch_embed", "siglip", "clip", "vpm")


@rule("CF34", "other-architecture", severity=ERROR, engines=("vllm", "sglang", "tensorrt-llm"), scope=CONFIGURED)
def other_architecture(modules: Modules) -> Iterator[Found]:
    """config.json describes a model with a vision tower and the checkpoint has none, or the other way round.

    Why: engines build what `architectures` names; a tower without tensors stays uninitialised, and tensors without a
    tower are names nobody knows.
    Fix: keep the source's architecture and all its tensors.
    Seen: vllm-project/vllm PR 36607 and issue 39993 (models loaded as text only and saved again).
    """
    config = modules.checkpoint.config
    names = config.get("architectures")
    architectures = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    multimodal = any(name.endswith("ForConditionalGeneration") for name in architectures)
    if multimodal and isinstance(config.get("vision_config"), Mapping) and modules.checkpoint.modules:
        if not any(_sees(name, module.role) for name, module in modules.checkpoint.modules.items()):
            message = (
                f"{CONFIG} names {_short(architectures[0])} and a vision_config, but no tensor is of a vision tower"
            )
            yield Found(f"{message}; copy them from the source.", file=CONFIG)
    elif architectures and all(name.endswith("ForCausalLM") for name in architectures) and not _mentions(config):
        tower = next((name for name, module in modules.checkpoint.modules.items() if module.role == "vision"), None)
        if tower is not None:
            message = f"{CONFIG} names {_short(architectures[0])}, but {tower[:120]} is of a vision tower"
            yield Found(f"{message}; restore the source's architecture.", file=CONFIG, tensor=tower, severity=WARNING)


def _sees(name: str, role: str) -> bool:
    return role in ("vision", "projector") or any(part in name for part in SEEING)


def _mentions(config: Mapping[str, Any]) -> bool:
    """Whether any key speaks of images."""
    return any(part in key.lower() for key in config for part in ("vis", "image", "img", "mm_", "processor"))


@rule(
    "CF40",
    "unnamed-architecture",
    severity=ERROR,
    refuses=("vllm", "sglang", "tensorrt-llm", "atom", "transformers"),
    scope=CONFIGURED,
)
def unnamed_architecture(headers: Headers) -> Iterator[Found]:
    """config.json names no model type, or no architecture.

    Why: every engine chooses the model's code by these two names.
    Fix: take both from the source's config.json.
    Seen: modelopt's exporter raises a TypeError for `architectures: null`; hand-made configurations lack it.
    """
    config = headers.checkpoint.config
    kind, names = config.get("model_type"), config.get("architectures")
    if not isinstance(kind, str) or not kind:
        yield Found(f"model_type is {_short(kind)}; write the source's.", file=CONFIG)
    if not isinstance(names, list) or not names:
        yield Found(f"architectures is {_short(names)}; write the source's list.", file=CONFIG)
    for name in names if isinstance(names, list) else ():
        if not isinstance(name, str) or not name.isidentifier():
            yield Found(f"architectures names {_short(name)!r}, which is no class; write the source's.", file=CONFIG)


# Sizes without which no engine can build the model; a key that is absent has a default or another name.
SIZES = (
    "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "n_routed_experts", "num_experts", "num_local_experts",
    "max_position_embeddings",
)  # fmt: skip


@rule("CF41", "nonsense-size", severity=ERROR, refuses=ENGINES, scope=CONFIGURED)
def nonsense_size(headers: Headers) -> Iterator[Found]:
    """A size in config.json, such as the number of layers or heads, is not a positive whole number.

    Why: engines build the model by it, and stop or build another one.
    Fix: take the value from the source's config.json.
    Seen: found by editing good checkpoints at random.
    """
    for prefix, place in _places(headers.checkpoint.config).items():
        for key in SIZES:
            value = place.get(key, 1)
            if value is None and key in ("num_key_value_heads", "head_dim", "n_routed_experts"):
                continue
            per_layer = isinstance(value, list) and value and all(type(n) is int and n >= 0 for n in value)
            if not per_layer and (type(value) is not int or value <= 0):
                yield Found(f"{prefix}{key} is {_short(value)}; write the source's number.", file=CONFIG)
