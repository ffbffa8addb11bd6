"""Which decoder layers hold experts, by config.json.

Architectures say it in a dozen ways (`data/architectures/sparse.json`): the first sparse layer, every n-th, a list, a
kind per layer, a letter per layer. A mixture whose way is not known is not judged: None, not all layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from publisher import jsonio

MAX_DEPTH = 10_000


@functools.cache
def _facts() -> Mapping[str, Any]:
    facts: Mapping[str, Any] = jsonio.data("architectures/sparse.json")
    return facts


def sparse_layers(text: Mapping[str, Any]) -> list[int] | None:
    """Numbers of the layers that hold experts, ascending; None where config.json does not say or says it unreadably.

    Args:
        text: the language model's part of config.json.
    """
    depth = text.get("num_hidden_layers")
    if type(depth) is not int or not 0 < depth < MAX_DEPTH:
        return None
    listed = _listed(text, depth)
    if listed is not None:
        return sorted(layer for layer in listed if 0 <= layer < depth)
    tests = _tests(text, depth)
    if tests is None:
        return None
    return [layer for layer in range(depth) if all(test(layer) for test in tests)]


def _listed(text: Mapping[str, Any], depth: int) -> set[int] | None:
    """Layers named one by one, by number, by kind or by letter."""
    facts = _facts()
    for key in facts["sparse"]:
        value = text.get(key)
        if isinstance(value, str):
            value = [int(part) for part in value.split(",") if part.strip().isascii() and part.strip().isdigit()]
        if isinstance(value, list) and value and all(type(layer) is int for layer in value):
            return set(value)
    for key, sign in {**facts["kinds"], **facts["letters"]}.items():
        value = text.get(key)
        if isinstance(value, list | str) and len(value) == depth and sign in value:
            return {layer for layer, kind in enumerate(value) if kind == sign}
    each = text.get("moe_layer_freq")
    if isinstance(each, list) and len(each) == depth:
        return {layer for layer, flag in enumerate(each) if flag in (1, True)}
    return None


def _tests(text: Mapping[str, Any], depth: int) -> list[Callable[[int], bool]] | None:
    """What a sparse layer's number fulfils; None when no key says and the architecture is not sparse throughout."""
    facts, tests = _facts(), list[Callable[[int], bool]]()
    ends = {key: text[key] for key in (*facts["first"], *facts["last"]) if type(text.get(key)) is int}
    steps = {key: text[key] for key in facts["steps"] if type(text.get(key)) is int}
    if any(step < 1 for step in steps.values()):
        return None
    for key, value in ends.items():
        if key in facts["first"]:
            tests.append(functools.partial(int.__le__, value))
        else:
            tests.append(functools.partial(int.__ge__, value if value >= 0 else depth + value))
    tests += [functools.partial(_is_step, step, facts["steps"][key]) for key, step in steps.items()]
    dense = {layer for key in facts["dense"] if isinstance(text.get(key), list) for layer in text[key] if _whole(layer)}
    tests += [lambda layer: layer not in dense] if dense else []
    known = bool(ends or steps) or text.get("model_type") in facts["everywhere"]
    return tests if known else None


def _is_step(step: int, shift: int, layer: int) -> bool:
    return (layer + shift) % step == 0


def _whole(value: Any) -> bool:
    return type(value) is int
