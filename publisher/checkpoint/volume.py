"""How many bytes the tensors should have, by the configuration's geometry and the formats they are stored in.

The dense layers, the experts, the embedding and the head are counted from `config.json`; everything else is taken as
it lies there. A model type that `data/architectures/geometry.json` does not know gives no prediction.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.checkpoint.header import DTYPE_BITS
from publisher.checkpoint.modules import Module, layer_of
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.parallel import experts_of, stored_format, text_config

GROUPS = ("dense", "experts", "mixtral")
_BITS = {"nvfp4": 4.5, "mxfp4": 4.25, "mxfp8": 8.25}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One kind of linear layer: how its modules are named, their shape, and how many there should be."""

    pattern: re.Pattern[str]
    out: int
    width: int
    count: int


def predictable(checkpoint: Checkpoint) -> bool:
    """Whether the model type's geometry is known and the configuration gives its sizes."""
    return bool(_count(text_config(checkpoint), "num_hidden_layers")) and any(_rows(checkpoint))


def predicted_bytes(checkpoint: Checkpoint) -> int | None:
    """Bytes of all tensors, were every layer there with the shape its configuration gives; None when it is unknown."""
    rows = tuple(_rows(checkpoint))
    layers = _count(text_config(checkpoint), "num_hidden_layers")
    if not rows or not layers:
        return None
    kinds: dict[str, _Row | None] = {}
    found = [0] * len(rows)
    sizes = [0.0] * len(rows)
    rest = 0
    for name, module in checkpoint.modules.items():
        if module.kind not in kinds:
            kinds[module.kind] = next((row for row in rows if row.pattern.search(name)), None)
        row = kinds[module.kind]
        if row is None or (layer_of(name) or 0) >= layers or module.weight is None:
            rest += sum(ref.size for ref in module.tensors.values())
            continue
        at = rows.index(row)
        found[at] += 1
        sizes[at] += _size(module, row)
    if not all(found):
        return None
    return rest + round(sum(size / n * row.count for size, n, row in zip(sizes, found, rows, strict=True)))


def _size(module: Module, row: _Row) -> float:
    """Bytes of one module with the configuration's shape, in the format it is stored in."""
    weight = module.weight
    form = stored_format(module)
    bits = _BITS.get(form or "")
    others = {suffix: ref.size for suffix, ref in module.tensors.items() if ref is not weight}
    if bits is None:
        bits = 4.0 if form == "int4" else float(DTYPE_BITS.get(weight.dtype if weight else "", 8))
    else:
        others.pop("weight_scale", None)
    return row.out * row.width * bits / 8 + sum(others.values())


def _rows(checkpoint: Checkpoint) -> Iterator[_Row]:
    text = text_config(checkpoint)
    hidden, vocabulary = _count(text, "hidden_size"), _count(text, "vocab_size")
    table = jsonio.data("architectures/geometry.json")
    known = text.get("model_type")
    groups = table["model_types"].get(known, ()) if isinstance(known, str) else ()
    for group in (group for group in groups if group in GROUPS):
        for entry in table["linears"][group]:
            out, width = _product(text, entry["out"]), _product(text, entry["in"])
            count = _modules(checkpoint, group, entry["pattern"])
            if out and width and count:
                yield _Row(pattern=_compiled(entry["pattern"]), out=out, width=width, count=count)
    if groups and hidden and vocabulary:
        yield _Row(pattern=_compiled(r"(^|\.)embed_tokens$"), out=vocabulary, width=hidden, count=1)


def _modules(checkpoint: Checkpoint, group: str, pattern: str) -> int:
    """How many modules a pattern of the geometry table names; gate and up, or w1 and w3, are two."""
    text = text_config(checkpoint)
    layers, experts = _count(text, "num_hidden_layers") or 0, experts_of(checkpoint)
    each = 2 if "|" in pattern or "[13]" in pattern else 1
    if group == "dense":
        return each * (_dense(text, layers) if experts else layers)
    return each * (layers - _dense(text, layers)) * (experts or 0)


def _dense(text: Mapping[str, Any], layers: int) -> int:
    """Layers without experts in a model that has some."""
    first, step = _count(text, "first_k_dense_replace") or 0, _count(text, "moe_layer_freq")
    step = step or _count(text, "decoder_sparse_step") or 1
    only = text.get("mlp_only_layers")
    listed = {n for n in only if type(n) is int} if isinstance(only, list) else set()
    if "first_k_dense_replace" in text:
        sparse = sum(1 for n in range(min(layers, 10_000)) if n >= first and n % step == 0)
    else:
        sparse = sum(1 for n in range(min(layers, 10_000)) if n not in listed and (n + 1) % step == 0)
    return layers - sparse


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _product(text: Mapping[str, Any], keys: list[str]) -> int:
    product = 1
    for key in keys:
        product *= _count(text, key) or 0
    return product


def _count(text: Mapping[str, Any], key: str) -> int | None:
    value = text.get(key)
    return value if type(value) is int and 0 < value < 1 << 32 else None
