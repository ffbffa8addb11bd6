"""Subjects that cost nothing more: headers, shards, and the module table with what counts as FP4 in it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from publisher.checkpoint.header import ShardHeader
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig

BLOCK = {"nvfp4": 16, "mxfp4": 32}
# Scalars of a module that rules judge, as the layouts spell them.
SCALARS = ("weight_scale_2", "weight_global_scale", "input_scale", "input_scale_2", "input_global_scale")
SCALE_SUFFIXES = ("weight_scale", *SCALARS)
# Scalars of the key-value cache: on `self_attn` or its projections; Quark writes `k_proj.output_scale`.
CACHE_SCALARS = ("k_scale", "v_scale", "q_scale", "kv_scale", "output_scale", "prob_output_scale")


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


def module_format(checkpoint: Checkpoint, module: Module) -> str | None:
    """A packed module's format: as declared, or by its tensors where the declaration leaves it to each layer."""
    declared = checkpoint.quant.format if checkpoint.quant else None
    if declared in BLOCK:
        return declared
    if "weight_scale_2" in module.tensors or "weight_global_scale" in module.tensors:
        return "nvfp4"
    scale = module.tensors.get("weight_scale")
    if scale is None:
        return None
    return "nvfp4" if scale.dtype == "F8_E4M3" else "mxfp4" if scale.dtype == "U8" else None
