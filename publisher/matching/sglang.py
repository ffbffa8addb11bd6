"""SGLang's readings of exclude lists: modelopt (`modelopt_quant.py`), compressed-tensors and Quark. Read in 0.5.23."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

from publisher.matching.contained import DottedRuns
from publisher.matching.fused import FusedMap, all_or_none, shards
from publisher.matching.patterns import ExactOrRegex, Fnmatches, compile_foreign
from publisher.matching.vllm import INNER, VllmExactOrRegex


class SglangModelopt:
    """SGLang's reading of a modelopt list (`modelopt_quant.py` `is_layer_excluded`, `quantization/utils.py`).

    An entry that is a dotted part of the name; an entry as a regex with `.` and `*` translated and nothing else, over
    the name, the name without `language_model.`, or any single part of it; and for MLA projections an entry's last
    part inside the name's last part, in whatever layer. A MoE module is read by the second way only, so that an entry
    for one expert means nothing.

    Args:
        entries: the exclude list.
        fused: fused layer's last name part to its members.
        tails: the projections that are compared by their last part only.
    """

    def __init__(self, entries: Iterable[str], fused: FusedMap, *, tails: Iterable[str] = ()) -> None:
        self.entries = tuple(entries)
        self._fused = fused
        self._listed = DottedRuns(self.entries)
        special = [entry for entry in self.entries if _SPECIAL.search(entry)]
        self._globs = Fnmatches(entry for entry in special if not _REGEX_LIKE.search(entry))
        self._regexes = tuple(_regex(entry) for entry in special if _REGEX_LIKE.search(entry))
        self._plain = frozenset(self.entries)
        self._tails = frozenset(entry.rpartition(".")[2] for entry in self.entries) & frozenset(tails)
        self._part = functools.cache(self._one)

    def __call__(self, prefix: str) -> bool:
        """Whether the engine leaves a module unquantized."""
        names = shards(prefix, self._fused)
        if names is not None and all_or_none(prefix, names, self._listed):
            return True
        return self._listed(prefix) or self._matches(prefix)

    def _matches(self, prefix: str) -> bool:
        inner = prefix.removeprefix(INNER)
        if self._one(prefix) or (inner != prefix and self._one(inner)) or any(map(self._part, prefix.split("."))):
            return True
        last = prefix.rpartition(".")[2]
        return any(tail in last for tail in self._tails)

    def _one(self, text: str) -> bool:
        return text in self._plain or self._globs(text) or any(match(text) for match in self._regexes)


_SPECIAL = re.compile(r"[^\w.\-]")
_REGEX_LIKE = re.compile(r"[^\w.\-*]")


def _regex(entry: str) -> Callable[[str], object]:
    """`fullmatch` of an entry; where only `*` is special the glob's linear form means the same."""
    return compile_foreign(entry.replace(".", r"\.").replace("*", ".*")).fullmatch


class SglangCompressed:
    """SGLang's reading of a compressed-tensors list: `re:` at the start, exact, or whole dotted parts at the end.

    `compressed_tensors/utils.py` `should_ignore_layer`: a fused layer is what its members are, all or none.

    Args:
        entries: the ignore list.
        fused: fused layer's last name part to its members.
    """

    def __init__(self, entries: Iterable[str], fused: FusedMap) -> None:
        self._matches = ExactOrRegex(entries)
        self._fused = fused

    def __call__(self, prefix: str) -> bool:
        """Whether the engine leaves a module unquantized."""
        names = shards(prefix, self._fused)
        if names is not None and prefix not in self._matches.exact:
            return all_or_none(prefix, names, self._one)
        return self._one(prefix)

    def _one(self, name: str) -> bool:
        if self._matches(name):
            return True
        position = name.find(".")
        while position >= 0:
            if name[position + 1 :] in self._matches.exact:
                return True
            position = name.find(".", position + 1)
        return False


class SglangQuark(VllmExactOrRegex):
    """SGLang's reading of a Quark list (`quark/utils.py`): as vLLM's, an entry below a MoE module takes all of it.

    Args:
        entries: the exclude list.
        fused: fused layer's last name part to its members.
    """

    def __init__(self, entries: Iterable[str], fused: FusedMap) -> None:
        super().__init__(entries, fused, moe_children=True)
