"""ATOM's reading of a Quark list (`atom/config.py` `_matches_exclude`, `remap_layer_name`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from publisher.matching.fused import EXPERTS, FusedMap
from publisher.matching.patterns import Fnmatches, bounded, compile_foreign


class Atom:
    """`re:` found anywhere in the name, a glob as it stands or with `.*` behind it, else the name or a parent of it.

    Before that ATOM rewrites the patterns as texts: `.gate_proj` in one becomes `.gate_up_proj`, and
    `language_model.model.` becomes `model.` where the model says so.

    Args:
        entries: the exclude list.
        fused: fused layer's last name part to its members.
        replaced: text to its replacement, anywhere in an entry.
        children: whether an entry below a name leaves it out too, as newer releases read it for MoE modules.

    Raises:
        PatternError: a `re:` entry that cannot be evaluated safely.
    """

    def __init__(
        self,
        entries: Iterable[str],
        fused: FusedMap,
        *,
        replaced: Mapping[str, str] | None = None,
        children: bool = False,
    ) -> None:
        owner = {f".{member}": layer for layer, members in fused.items() for member in members}
        self.entries = tuple(dict.fromkeys(_rewritten(entry, owner, replaced or {}) for entry in entries))
        regexes = [entry[3:] for entry in self.entries if entry.startswith("re:")]
        rest = [entry for entry in self.entries if not entry.startswith("re:")]
        globs = [entry for entry in rest if "*" in entry or "?" in entry]
        self._regexes = tuple(compile_foreign(regex).search for regex in regexes)
        self._globs = Fnmatches([*globs, *(f"{entry}.*" for entry in globs)])
        self._names = frozenset(rest).difference(globs)
        self._parents = frozenset(_parents(self.entries)) if children else frozenset()

    def __call__(self, prefix: str) -> bool:
        """Whether the engine leaves a module unquantized."""
        if prefix in self._parents or self._named(prefix):
            return True
        return self._globs(prefix) or any(search(bounded(prefix)) for search in self._regexes)

    def _named(self, prefix: str) -> bool:
        position = len(prefix)
        while position > 0:
            if prefix[:position] in self._names:
                return True
            position = prefix.rfind(".", 0, position)
        return False


def _parents(entries: Iterable[str]) -> Iterable[str]:
    """The MoE modules that entries lie below."""
    for entry in entries:
        head, mark, _ = entry.partition(f".{EXPERTS}.")
        if mark:
            yield f"{head}.{EXPERTS}"


def _rewritten(entry: str, owner: Mapping[str, str], replaced: Mapping[str, str]) -> str:
    """An entry with the first fused member's name replaced once, and then the model's own texts."""
    for member, layer in owner.items():
        if member in entry:
            entry = entry.replace(member[1:], layer, 1)
            break
    for old, new in replaced.items():
        entry = entry.replace(old, new)
    return entry
