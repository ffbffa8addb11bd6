"""Packed weights that are declared pruned in pairs, 4 of 8: of every four payload bytes at most two may be non-zero.

Blackwell's sparse FP4 instructions keep two of four neighbouring pairs of weights (CUTLASS
`sm1xx_sparse_config.inl`); checkpoints store them densely, so only the zeros tell. No engine reads a declaration of it,
so one is any of: the key `sparsity` of config.json, a word or an object with `pattern` and `modules` (globs);
`sparsity_structure` in a `sparsity_config`; a card tag. Without `modules` it is about the experts where experts are
packed, otherwise about every layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import UnreadableWeight
from publisher.matching import Globs, PatternError, check_pattern
from publisher.subjects.evidence import Evidence, Meter
from publisher.subjects.modules import is_packed
from publisher.subjects.packed import PackedWeight, open_packed
from publisher.subjects.publication import read_card
from publisher.subjects.sampled import rows_looked, runs_of

SPARSE_SUFFIX = "weight_kept"  # what `publisher convert --to sparse` calls the kept bytes of a weight
CHUNK = 4  # bytes of payload that form one group of eight weights
NONZERO = 0x77  # code 8 is -0.0
MAX_GLOBS = 10_000
_BYTES = 4 << 20
_DECLARED = re.compile(r"(?i)(paired[- ]?)?4[:-]8([- ]?(paired|sparse|sparsity))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A packed weight that should be pruned 4 of 8 in pairs.

    Args:
        module: the module.
        groups: groups of eight weights looked at.
        dense: those with more than two non-zero bytes.
        first: row and byte of the first of them.
        flaw: why it could not be looked at.
    """

    module: Module
    groups: int = 0
    dense: int = 0
    first: tuple[int, int] | None = None
    flaw: str | None = None


@dataclass(frozen=True, slots=True)
class Stated:
    """What the key `sparsity` of config.json says: pattern and storage as they stand, and its globs if they are any."""

    pattern: Any
    storage: Any
    globs: Globs | None

    @property
    def paired(self) -> bool:
        """Whether it means paired 4:8."""
        return isinstance(self.pattern, str) and _DECLARED.fullmatch(self.pattern.strip()) is not None


def stated_pruning(checkpoint: Checkpoint) -> Stated | None:
    """The statement in config.json; None where there is none."""
    stated = checkpoint.config.get("sparsity")
    if not isinstance(stated, Mapping):
        return None if stated is None else Stated(stated, None, None)
    return Stated(stated.get("pattern"), stated.get("storage"), _globs(stated.get("modules")))


def _globs(modules: Any) -> Globs | None:
    """Globs over module names; None where they are none that can be read."""
    if not isinstance(modules, list) or not modules or len(modules) > MAX_GLOBS:
        return None
    try:
        return Globs([check_pattern(pattern) if isinstance(pattern, str) else "" for pattern in modules])
    except PatternError:
        return None


def declares_pruning(evidence: Evidence, meter: Meter) -> bool:
    """Whether configuration or card say paired 4:8."""
    stated = stated_pruning(evidence.checkpoint)
    said: list[Any] = [stated.pattern if stated else None]
    for quant in evidence.checkpoint.declarations:
        sparsity = quant.raw.get("sparsity_config")
        said.append(sparsity.get("sparsity_structure") if isinstance(sparsity, Mapping) else None)
    if evidence.has_card:
        tags = read_card(evidence.checkpoint.files, meter).metadata.get("tags")
        said += tags if isinstance(tags, list) else []
    return any(isinstance(text, str) and _DECLARED.fullmatch(text.strip()) for text in said)


def pruned_modules(evidence: Evidence, meter: Meter) -> tuple[Module, ...]:
    """The packed weights a declaration is about, in file order; none where nothing is declared."""
    return pruned_in(evidence.checkpoint) if declares_pruning(evidence, meter) else ()


def pruned_in(checkpoint: Checkpoint, globs: Globs | None = None) -> tuple[Module, ...]:
    """The packed weights that are pruned if any are, in file order.

    Args:
        checkpoint: the checkpoint.
        globs: over their modules; what config.json says where None, the experts or all where it says nothing.
    """
    packed = [m for m in checkpoint.modules.values() if is_packed(m) and m.weight is not None]
    stated = stated_pruning(checkpoint)
    globs = globs or (stated.globs if stated else None)
    if globs is None:
        found = [m for m in packed if m.role == "expert"] or packed
    else:
        found = [m for m in packed if globs.first_match(m.name) is not None]
    return tuple(sorted(found, key=lambda m: (m.ref.shard, m.ref.begin)))


def read_pruned(evidence: Evidence, meter: Meter) -> Iterator[Pruned]:
    """Every weight the declaration is about, in file order; nothing where there is none.

    Raises:
        CheckpointError: a shard cannot be read, or is shorter than its header says.
    """
    for module in pruned_modules(evidence, meter):
        try:
            weight = open_packed(evidence.checkpoint, module, meter)
        except UnreadableWeight as error:
            yield Pruned(module=module, flaw=error.message)
        else:
            yield _look(weight, evidence.sample)


def _look(weight: PackedWeight, sample: int | None) -> Pruned:
    if weight.columns % (2 * CHUNK):
        return Pruned(module=weight.module, flaw=f"rows of {weight.columns} weights are no whole groups of eight")
    groups = dense = 0
    first: tuple[int, int] | None = None
    for begin, end in _pieces(weight, sample):
        bytes_ = weight.codes(begin, end) & NONZERO
        full = (bytes_.reshape(end - begin, -1, CHUNK) != 0).sum(axis=2) > 2
        groups += full.size
        dense += int(full.sum())
        if first is None and full.any():
            row, group = np.argwhere(full)[0].tolist()
            first = begin + row, group * CHUNK
    return Pruned(module=weight.module, groups=groups, dense=dense, first=first)


def _pieces(weight: PackedWeight, sample: int | None) -> Iterator[tuple[int, int]]:
    step = max(1, _BYTES // (weight.columns // 2))
    for low, high in runs_of(weight.module.name, weight.rows, rows_looked(weight, sample)):
        for begin in range(low, high, step):
            yield begin, min(begin + step, high)
