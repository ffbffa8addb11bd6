"""Subjects that cost nothing more: headers, shards, and the module table with what counts as FP4 in it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from publisher.checkpoint.header import ShardHeader, TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.matching import DIALECTS, PatternError, modelopt_excluded
from publisher.subjects.exclusion import Exclusion

BLOCK = {"nvfp4": 16, "mxfp4": 32}
# Scalars of a module that rules judge, as the layouts spell them.
SCALARS = ("weight_scale_2", "weight_global_scale", "input_scale", "input_scale_2", "input_global_scale")
SCALE_SUFFIXES = ("weight_scale", *SCALARS)
# Scalars of the key-value cache: on `self_attn` or its projections; Quark writes `k_proj.output_scale`.
CACHE_SCALARS = ("k_scale", "v_scale", "q_scale", "kv_scale", "output_scale", "prob_output_scale")
PLAIN = frozenset({"BF16", "F16", "F32"})  # dtypes of what is not quantized
DEEPEST = 12  # name parts in front of which a prediction layer's number stands at the latest
EXPERT_COUNTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
Experts: TypeAlias = Mapping[str, Mapping[int, Mapping[str, Module]]]
_PREDICTING = re.compile(r"(?:.*\.)?(?:mtp|nextn)(?:\.(?:layers\.)?\d+)?(?=\.)")


@dataclass(frozen=True, slots=True)
class Headers:
    """The whole checkpoint as headers, index and JSON files tell it."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard's header."""

    checkpoint: Checkpoint
    header: ShardHeader


@dataclass(frozen=True)
class Modules:
    """The module table beside the quantization declared; shapes are checked against the source where it is at hand."""

    checkpoint: Checkpoint
    source: Checkpoint | None = None

    @property
    def quant(self) -> QuantConfig | None:
        """The declaration the engines obey."""
        return self.checkpoint.quant

    @functools.cached_property
    def packed(self) -> tuple[Module, ...]:
        """Modules stored as FP4, or meant to be: a packed payload, or scales of one."""
        return tuple(module for module in self.checkpoint.modules.values() if is_packed(module))

    @functools.cached_property
    def stacked(self) -> tuple[Module, ...]:
        """Modules that hold the packed experts of a layer in one tensor for each projection."""
        return tuple(module for module in self.checkpoint.modules.values() if stack_of(module))

    @functools.cached_property
    def exclusion(self) -> Exclusion:
        """The exclude list as its producer and the engines read it."""
        return Exclusion(self.checkpoint, self.packed, self.predicts)

    @functools.cached_property
    def text(self) -> Mapping[str, Any]:
        """config.json's keys of the language model: `text_config` where there is one."""
        nested = self.checkpoint.config.get("text_config")
        return nested if isinstance(nested, Mapping) else self.checkpoint.config

    @functools.cached_property
    def expert_count(self) -> int | None:
        """Routed experts of a layer by config.json."""
        counts = (self.text.get(key) for key in EXPERT_COUNTS)
        return next((count for count in counts if type(count) is int and 0 < count < 1 << 20), None)

    @functools.cached_property
    def experts(self) -> Experts:
        """For each `experts` module its numbered experts, and of each the modules by projection, in name order."""
        found: dict[str, dict[int, dict[str, Module]]] = {}
        for name, module in self.checkpoint.modules.items():
            head, mark, tail = name.rpartition(".experts.")
            if not mark or (module.weight is None and "weight_scale" not in module.tensors):
                continue
            number, _, projection = tail.partition(".")
            if projection and len(number) <= 6 and number.isascii() and number.isdecimal():
                found.setdefault(f"{head}.experts", {}).setdefault(int(number), {})[projection] = module
        return found

    @functools.cached_property
    def cache_scales(self) -> tuple[TensorRef, ...]:
        """Every scale of the key-value cache, whatever its module is called, in name order."""
        names = frozenset(CACHE_SCALARS)
        return tuple(
            module.tensors[suffix]
            for module in self.checkpoint.modules.values()
            if not names.isdisjoint(module.tensors)
            for suffix in sorted(names & module.tensors.keys())
        )

    @functools.cached_property
    def latent(self) -> bool:
        """Whether attention is latent (MLA), so that there is no key projection to hang a scale on."""
        return any(name.endswith(".kv_a_proj_with_mqa") for name in self.checkpoint.modules)

    @functools.cached_property
    def predicting(self) -> frozenset[str]:
        """Layers that predict more tokens ahead (MTP, nextn), such as `model.layers.61` or `mtp.layers.0`.

        They are named so, or are numbered on after the decoder's last layer (DeepSeek-V3, GLM).
        """
        depth, modules, found = self.text.get("num_hidden_layers"), self.checkpoint.modules, set()
        for name in modules:
            if "mtp" in name or "nextn" in name:
                named = _PREDICTING.match(name)
                found |= {named.group()} if named is not None else set()
            parent, mark, tail = name.partition(".layers.")
            number = tail.partition(".")[0]
            if mark and type(depth) is int and number.isdecimal() and len(number) <= 6 and int(number) >= depth > 0:
                found |= {f"{parent}.layers.{number}"} if f"{parent}.embed_tokens" in modules else set()
        return frozenset(found)

    def predicts(self, name: str) -> bool:
        """Whether a module lies in such a layer."""
        at = 0
        for _ in range(DEEPEST if self.predicting else 0):
            at = name.find(".", at + 1)
            if at < 0 or name[:at] in self.predicting:
                return at > 0
        return False

    def excluded(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the names that the declaration leaves unquantized, as its producer means it.

        Of a dialect without a reader of its own an entry means the module it names, or matches as a glob, and all below
        it. Empty where a pattern cannot be used.
        """
        if self.quant is None:
            return frozenset()
        matcher, entries = DIALECTS.get(self.quant.dialect), self.quant.ignore
        try:
            if matcher is None:
                return modelopt_excluded([form for entry in entries for form in (entry, f"{entry}.*")], names)
            return matcher(entries, names)
        except PatternError:
            return frozenset()

    def format_of(self, module: Module) -> str | None:
        """nvfp4, mxfp4, or None when the module is neither."""
        return module_format(self.checkpoint, module)


def is_packed(module: Module) -> bool:
    """Whether a module is FP4 by its tensors; FP8 and plain layers are not.

    A scale beside a plain or missing weight counts: it is a broken set, and somebody must say so.
    """
    weight = module.weight
    if weight is not None and weight.dtype in {"U8", "F4", "I8"}:
        return weight.name.endswith(("weight", "weight_packed")) and len(weight.shape) > 0
    if weight is not None and (weight.dtype.startswith("F8") or weight.dtype == "I32"):
        return "weight_scale_2" in module.tensors or "weight_global_scale" in module.tensors
    return any(suffix in module.tensors for suffix in ("weight_scale", "weight_scale_2", "weight_global_scale"))


def stack_of(module: Module) -> tuple[str, ...]:
    """The projections of a layer whose experts are packed in one tensor each, as modelopt stores gpt-oss's NVFP4."""
    if module.role != "expert":
        return ()
    found = []
    for suffix, ref in module.tensors.items():
        scale = module.tensors.get(f"{suffix}_weight_scale")
        if ref.dtype == "U8" and len(ref.shape) == 3 and scale is not None and scale.dtype == "F8_E4M3":
            found.append(suffix)
    return tuple(found)


def module_format(checkpoint: Checkpoint, module: Module) -> str | None:
    """A packed module's format: as declared, or by its tensors where the declaration leaves it to each layer."""
    quant = checkpoint.quant
    if quant is not None and quant.format in BLOCK:
        return quant.format
    layer = quant.layer(module.name) if quant is not None and quant.layers else None
    if layer is not None and layer.format in BLOCK:
        return layer.format
    if "weight_scale_2" in module.tensors or "weight_global_scale" in module.tensors:
        return "nvfp4"
    scale = module.tensors.get("weight_scale")
    if scale is None:
        return None
    return "nvfp4" if scale.dtype == "F8_E4M3" else "mxfp4" if scale.dtype == "U8" else None
