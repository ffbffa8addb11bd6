"""vLLM's readings of exclude lists: modelopt (`modelopt.py`), compressed-tensors and Quark (`config_utils.py`).

Read in vLLM 0.33.0; the modelopt reading is the same in 0.17.1 and 0.23.0.
"""

from __future__ import annotations

from collections.abc import Iterable

from publisher.matching.contained import Substrings
from publisher.matching.fused import EXPERTS, PROJECTIONS, FusedMap, all_or_none, shards
from publisher.matching.patterns import WILD, ExactOrRegex, Fnmatches

INNER = "language_model."


class VllmModelopt:
    """vLLM's reading of a modelopt list (`modelopt.py` `is_layer_excluded`, `quant_utils.py` `is_layer_skipped`).

    Exact or all members of a fused layer; for a name with `experts` any entry that contains it; any entry that is a
    plain substring of the name; any glob. Where the model has a name mapper vLLM first splits `x*` into `x` and `x.*`.

    Args:
        entries: the exclude list.
        fused: fused layer's last name part to its members (`packed_modules_mapping`).
        always: name parts that are unquantized whatever the list says.
        mapped: whether the model has a name mapper, so that `x*` is split.
    """

    def __init__(
        self, entries: Iterable[str], fused: FusedMap, *, always: Iterable[str] = (), mapped: bool = False
    ) -> None:
        self.entries = tuple(dict.fromkeys(split_stars(entries) if mapped else entries))
        self._names = frozenset(self.entries)
        self._fused, self._always = fused, tuple(always)
        self._expert_entries = tuple(entry for entry in self.entries if EXPERTS in entry)
        self._parts = Substrings(self.entries)
        self._globs = Fnmatches(entry for entry in self.entries if WILD.search(entry))

    def __call__(self, prefix: str) -> bool:
        """Whether the engine leaves a module unquantized."""
        if self._skipped(prefix) or self._parts(prefix):  # a part of the name without `language_model.` is one of it
            return True
        return self._globs(prefix) or any(part in prefix for part in self._always)

    def _skipped(self, prefix: str) -> bool:
        if prefix in self._names:
            return True
        names = shards(prefix, self._fused)
        if names is not None:
            return all_or_none(prefix, names, self._names.__contains__)
        return EXPERTS in prefix and any(prefix in entry for entry in self._expert_entries)


def split_stars(entries: Iterable[str]) -> Iterable[str]:
    """`x*` as vLLM's mapper writes it: `x` and `x.*`; anything else as it is."""
    for entry in entries:
        if len(entry) >= 2 and entry.endswith("*") and entry[-2] != ".":
            yield from (entry[:-1], entry[:-1] + ".*")
        else:
            yield entry


class VllmExactOrRegex:
    """vLLM's reading of a Quark or compressed-tensors list (`config_utils.py`, `quark/utils.py`).

    A direct match of the fused name wins, else all members or none. For Quark an entry at or below a MoE module leaves
    out the whole of it; for compressed-tensors a MoE module is what expert 0's three projections are
    (`compressed_tensors_moe.py`).

    Args:
        entries: the exclude or ignore list.
        fused: fused layer's last name part to its members.
        moe_children: whether an entry below `….experts` leaves out all experts (Quark).
    """

    def __init__(self, entries: Iterable[str], fused: FusedMap, *, moe_children: bool) -> None:
        self._matches = ExactOrRegex(entries)
        self._fused, self._children = fused, moe_children
        self._parents = frozenset(_parents(self._matches.exact)) if moe_children else frozenset()

    def __call__(self, prefix: str) -> bool:
        """Whether the engine leaves a module unquantized."""
        if self._matches(prefix):
            return True
        if prefix.endswith(EXPERTS):
            if self._children:
                return prefix in self._parents
            return all_or_none(prefix, [f"{prefix}.0.{member}" for member in PROJECTIONS], self._matches)
        names = shards(prefix, self._fused)
        return names is not None and all_or_none(prefix, names, self._matches)


def _parents(names: Iterable[str]) -> Iterable[str]:
    """The MoE modules that names lie below."""
    for name in names:
        end = name.find(f"{EXPERTS}.")
        while end >= 0:
            yield name[: end + len(EXPERTS)]
            end = name.find(f"{EXPERTS}.", end + 1)
