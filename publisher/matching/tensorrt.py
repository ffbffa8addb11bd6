"""TensorRT-LLM's readings of exclude lists (`modeling_utils.QuantConfig.is_module_excluded_from_quantization`)."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.matching.fused import FusedMap, shards
from publisher.matching.patterns import Fnmatches, bounded, compile_foreign


class TensorrtOld:
    """Releases before `re:` was read: `fnmatchcase` on the name; a list of regexes leaves nothing out, silently.

    Args:
        entries: the exclude list.
        fused: fused layer's last name part to its members.
    """

    def __init__(self, entries: Iterable[str], fused: FusedMap) -> None:
        self._globs = Fnmatches(entries)
        self._fused = fused

    def __call__(self, prefix: str) -> bool:
        """Whether the engine leaves a module unquantized: its own name or any member's will do."""
        return any(map(self._one, [prefix, *(shards(prefix, self._fused) or ())]))

    def _one(self, name: str) -> bool:
        return self._globs(name)


class TensorrtNew(TensorrtOld):
    """Releases of 2026: the name or any of its ancestors; `re:` is a full match, `x.*` also means `x` itself.

    Args:
        entries: the exclude list.
        fused: fused layer's last name part to its members.

    Raises:
        PatternError: a `re:` entry that cannot be evaluated safely.
    """

    def __init__(self, entries: Iterable[str], fused: FusedMap) -> None:
        entries = tuple(entries)
        globs = [entry for entry in entries if not entry.startswith("re:")]
        super().__init__([*globs, *(entry[:-2] for entry in globs if entry.endswith(".*") and len(entry) > 2)], fused)
        self._regexes = tuple(compile_foreign(entry[3:]).fullmatch for entry in entries if entry.startswith("re:"))
        self._known: dict[str, bool] = {}

    def _one(self, name: str) -> bool:
        found = self._known.get(name)
        if found is None:
            parent = name.rpartition(".")[0]
            found = (bool(parent) and self._one(parent)) or self._globs(name) or self._regex(name)
            self._known[name] = found
        return found

    def _regex(self, name: str) -> bool:
        return any(match(bounded(name)) for match in self._regexes)
