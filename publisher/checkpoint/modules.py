"""The module table: which tensors belong to one linear layer, and what role that layer has.

A module is a tensor name without its last part. Roles come from name patterns in `data/architectures/roles.json`, in
order; what no pattern knows is `other` and is never quantized unasked. Patterns are matched once per class of names,
so that a table of 100,000 experts costs a few hundred matches.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from publisher import jsonio
from publisher.checkpoint.header import TensorRef


@dataclass(frozen=True, slots=True)
class Module:
    """One layer of a checkpoint.

    Args:
        name: full name as in the checkpoint, such as `model.layers.0.mlp.up_proj`.
        role: expert, router, shared_expert, attention, mlp, head, embedding, norm, vision, projector, mtp or other.
        tensors: the layer's tensors by suffix (`weight`, `weight_scale`, `bias`, ...).
        kind: its class: the name with every number replaced by `*`.
    """

    name: str
    role: str
    tensors: Mapping[str, TensorRef]
    kind: str

    @property
    def weight(self) -> TensorRef | None:
        """The weight or the packed payload, where the module has one."""
        return self.tensors.get("weight") or self.tensors.get("weight_packed")

    @property
    def ref(self) -> TensorRef:
        """The tensor to point at: the weight, or the first of whatever the module has."""
        return self.weight or next(iter(self.tensors.values()))

    @property
    def shards(self) -> frozenset[str]:
        """The files the module's tensors lie in."""
        return frozenset(ref.shard for ref in self.tensors.values())

    @property
    def quantized(self) -> bool:
        """Whether the weight is stored packed with block scales: what the files say, not what a config claims."""
        weight = self.weight
        return weight is not None and weight.dtype in {"U8", "I32"} and "weight_scale" in self.tensors


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    rows = jsonio.data("architectures/roles.json")["roles"]
    return tuple((re.compile(row["pattern"]), row["role"]) for row in rows)


def role_of(name: str) -> str:
    """The role of a module by its name."""
    for pattern, role in _patterns():
        if pattern.search(name):
            return role
    return "other"


_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(\d{1,6})(?:\.|$)")


def layer_of(name: str) -> int | None:
    """The layer number a name contains."""
    match = _LAYER.search(name)
    return int(match.group(1)) if match else None


_NUMBER = re.compile(r"\.\d+(?=\.|$)")


def class_of(name: str) -> str:
    """The name with every number replaced by `*`: the class of modules that differ only in layer and expert."""
    return _NUMBER.sub(".*", name)


def module_table(tensors: Iterable[TensorRef]) -> dict[str, Module]:
    """Group tensors into modules, in name order."""
    grouped: dict[str, dict[str, TensorRef]] = {}
    for ref in tensors:
        module, _, suffix = ref.name.rpartition(".")
        grouped.setdefault(module, {})[suffix] = ref
    return {name: _module(name, grouped[name]) for name in sorted(grouped)}


def _module(name: str, tensors: Mapping[str, TensorRef]) -> Module:
    kind, role = _class(class_of(name))
    return Module(name, role, tensors, kind)


@functools.lru_cache(maxsize=1 << 14)
def _class(kind: str) -> tuple[str, str]:
    """A class and the role of its modules; no role depends on a layer's or an expert's number."""
    return kind, role_of(kind)


# --- fused groups --------------------------------------------------------------------------------------------------


@functools.cache
def _fused() -> Mapping[str, str]:
    rows = jsonio.data("architectures/fused.json")["groups"]
    return {member: row["name"] for row in rows for member in row["members"]}


def fused_group_of(name: str) -> str | None:
    """The fused layer a module becomes a part of in the serving engines, or None.

    `model.layers.0.self_attn.q_proj` belongs to `model.layers.0.self_attn.qkv_proj`. Members of one fused layer must
    share their global scales.
    """
    parent, dot, last = name.rpartition(".")
    fused = _fused().get(last)
    return None if fused is None else f"{parent}{dot}{fused}"


def fused_groups(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Fused layer name to its members, for members present in `names`; a module alone in its group is left out."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        fused = fused_group_of(name)
        if fused is not None:
            grouped.setdefault(fused, []).append(name)
    return {fused: tuple(members) for fused, members in grouped.items() if len(members) > 1}
