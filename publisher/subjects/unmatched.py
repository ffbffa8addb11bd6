"""Entries of an exclude list that no module answers to, under anybody's reading.

An entry counts as answered when its name, or a pattern of it, meets a module, a parent of one, a fused layer or a MoE
module anywhere; engines disagree about more than that, and nobody's reading is to be called a typing error. Entries for
a kind of module the model does not have (a router in a dense model, a tower in a text model) are a tool's defaults.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable

from publisher.checkpoint.modules import fused_group_of, layer_of, role_of
from publisher.matching import PatternError, compile_foreign
from publisher.matching.patterns import WILD, bounded
from publisher.subjects.exclusion import Exclusion

MAX_LOOKS = 5_000_000  # comparisons over the names of all experts
MANY = 2_000  # entries that are looked for as a part of a name
DEFAULTS = frozenset({"router", "head", "embedding", "vision", "projector", "mtp", "norm"})
_TOWERS = re.compile(r"vision|visual|image|audio")
_SYNTAX = re.compile(r"\\d|\\(.)|[*^$?+()|\[\]]")


def unmatched(exclusion: Exclusion) -> tuple[str, ...]:
    """The entries, in the list's order; empty where the list cannot be evaluated."""
    if not exclusion.readable:
        return ()
    known = _known(exclusion)
    few = [name for name in known if not _is_expert(name)] + _corners(exclusion)
    roles = {exclusion.role(name) for name in exclusion.layers}
    left = [entry for entry in exclusion.entries if entry not in known and not _default(entry, roles)]
    left = [entry for entry in left if not _beyond(entry, exclusion)]
    left = [entry for entry in left if not any(map(_look(entry), few))]
    literal = [entry for entry in left if not entry.startswith("re:") and not WILD.search(entry)]
    text = "\n".join(known) if literal else ""
    parts = {entry for entry in literal[:MANY] if entry in text} | set(literal[MANY:])
    rest = [entry for entry in left if entry not in parts]
    patterns = [entry for entry in rest if entry.startswith("re:") or WILD.search(entry)]
    if len(patterns) * len(known) > MAX_LOOKS:
        return tuple(entry for entry in rest if entry not in patterns)
    return tuple(entry for entry in rest if entry not in patterns or not any(map(_look(entry), known)))


def _known(exclusion: Exclusion) -> frozenset[str]:
    """Every name an entry may mean: modules, their parents and fused layers."""
    found: set[str] = set()
    for name in exclusion.checkpoint.modules:
        fused = None if _is_expert(name) else fused_group_of(name)
        found |= {name} if fused is None else {name, fused}
        position = name.rfind(".")
        while position > 0 and name[:position] not in found:
            found.add(name[:position])
            position = name.rfind(".", 0, position)
    return frozenset(found)


def _is_expert(name: str) -> bool:
    return ".experts." in name


def _corners(exclusion: Exclusion) -> list[str]:
    """The experts of the first and of the last MoE module."""
    modules = list(exclusion.experts.values())
    return [member.name for module in (*modules[:1], *modules[-1:]) for member in module]


def _default(entry: str, roles: Iterable[str]) -> bool:
    """Whether an entry is about a kind of module the model has none of, or names a class, or a tied head."""
    if re.fullmatch(r"[A-Z]\w+", entry):
        return True
    plain = _SYNTAX.sub(lambda match: match.group(1) or "", entry.removeprefix("re:")).strip(".")
    role = "vision" if _TOWERS.search(plain) else role_of(plain)
    return role in DEFAULTS and role not in set(roles)


def _beyond(entry: str, exclusion: Exclusion) -> bool:
    """Whether an entry is about a layer after the decoder's last, which predicts more tokens and may be left out."""
    config = exclusion.checkpoint.config
    text = config.get("text_config")
    depth = (text if isinstance(text, dict) else config).get("num_hidden_layers")
    layer = layer_of(entry.replace("\\", "").rstrip("*"))
    return type(depth) is int and layer is not None and layer >= depth


def _look(entry: str) -> Callable[[str], object]:
    if not entry.startswith("re:"):
        return re.compile(fnmatch.translate(entry)).match
    search = compile_foreign(entry[3:]).search
    return lambda name: _searched(search, name)


def _searched(search: Callable[[str], object], name: str) -> object:
    try:
        return search(bounded(name))
    except PatternError:
        return True  # too long to look at
