"""What config.json says about a model: its class, sizes, attention, experts, positions. Anything but numbers is text.

A multimodal configuration keeps the language model's numbers in `text_config`; they are looked up there first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from publisher.card.value import Row, Value, count

_MLA = (
    ("kv_lora_rank", "KV rank"),
    ("q_lora_rank", "Q rank"),
    ("qk_nope_head_dim", "no-position head"),
    ("qk_rope_head_dim", "rotary head"),
    ("v_head_dim", "value head"),
)
_EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts")
_VISION = ("vision_config", "visual")
_AUDIO = ("audio_config",)
FILE = "config.json"


def architecture_rows(config: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows of a card's first table; what the configuration does not say is left out."""
    return tuple(_rows(config, _text(config)))


def architecture_class(config: Mapping[str, Any]) -> str | None:
    """The first of `architectures`."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def has_vision(config: Mapping[str, Any]) -> bool:
    """Whether the configuration has an image part."""
    return any(isinstance(config.get(key), Mapping) for key in _VISION)


def _rows(config: Mapping[str, Any], text: Mapping[str, Any]) -> Iterator[Row]:
    name = architecture_class(config)
    kind = config.get("model_type")
    if name:
        more = f" ({kind})" if isinstance(kind, str) and kind else ""
        yield Row("Architecture", Value(name + more, f"{FILE}: architectures, model_type"))
    modalities = ["text", *(["images"] if has_vision(config) else []), *(["audio"] if _has(config, _AUDIO) else [])]
    if len(modalities) > 1:
        yield Row("Input", Value(", ".join(modalities), f"{FILE}: vision_config, audio_config"))
    layers, hidden = _number(text, "num_hidden_layers"), _number(text, "hidden_size")
    if layers and hidden:
        yield Row("Layers × hidden size", Value(f"{count(layers)} × {count(hidden)}", f"{FILE}: num_hidden_layers"))
    yield from _attention(text)
    yield from _experts(text)
    vocabulary = _number(text, "vocab_size")
    if vocabulary:
        yield Row("Vocabulary", Value(count(vocabulary), f"{FILE}: vocab_size"))
    yield from _context(text)


def _attention(text: Mapping[str, Any]) -> Iterator[Row]:
    heads, shared = _number(text, "num_attention_heads"), _number(text, "num_key_value_heads")
    mla = [f"{label} {count(value)}" for key, label in _MLA if (value := _number(text, key))]
    if not heads:
        return
    parts = [f"{count(heads)} heads"]
    if _number(text, "kv_lora_rank"):
        parts = [f"MLA, {parts[0]}", *mla]
    elif shared:
        parts.append(f"{count(shared)} KV heads")
    dimension = _number(text, "head_dim")
    if dimension:
        parts.append(f"head size {count(dimension)}")
    yield Row("Attention", Value(", ".join(parts), f"{FILE}: num_attention_heads"))


def _experts(text: Mapping[str, Any]) -> Iterator[Row]:
    key = next((key for key in _EXPERTS if _number(text, key)), None)
    if key is None:
        return
    parts = [f"{count(_number(text, key) or 0)} routed"]
    shared, active = _number(text, "n_shared_experts"), _number(text, "num_experts_per_tok")
    if shared:
        parts.append(f"{count(shared)} shared")
    if active:
        parts.append(f"{count(active)} active per token")
    width = _number(text, "moe_intermediate_size")
    if width:
        parts.append(f"intermediate size {count(width)}")
    yield Row("Experts", Value(", ".join(parts), f"{FILE}: {key}"))


def _context(text: Mapping[str, Any]) -> Iterator[Row]:
    length = _number(text, "max_position_embeddings")
    if not length:
        return
    found = (text.get(key) for key in ("rope_scaling", "rope_parameters"))
    scaling: Mapping[str, Any] = next((value for value in found if isinstance(value, Mapping)), {})
    kind = scaling.get("rope_type", scaling.get("type"))
    factor = scaling.get("factor")
    more = ""
    if isinstance(kind, str) and kind and kind != "default":
        number = f" × {factor:g}" if type(factor) in (int, float) else ""
        more = f" (RoPE scaling: {kind}{number})"
    yield Row("Context length", Value(f"{count(length)} tokens{more}", f"{FILE}: max_position_embeddings"))


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, Mapping) else config


def _number(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if type(value) is int and 0 < value < 10**15 else None


def _has(config: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    return any(isinstance(config.get(key), Mapping) for key in keys)
