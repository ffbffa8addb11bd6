"""What an exclude list leaves out as its producer means it: modelopt writes globs, Quark and compressed-tensors names.

Quark matches a recipe's patterns with `fnmatch` and then writes the names it resolved; a list of its dialect is
therefore read as names, and as `re:` entries where somebody wrote those for vLLM (which Quark itself never matches).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from publisher.matching.patterns import ExactOrRegex, Globs


def modelopt_excluded(entries: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """The names a modelopt exclude list leaves unquantized: its exporter writes globs over full names."""
    globs = Globs(entries)
    return frozenset(name for name in names if globs.first_match(name) is not None)


def exact_or_regex_excluded(entries: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """The names a Quark or compressed-tensors list leaves unquantized: exact names or `re:`."""
    matcher = ExactOrRegex(entries)
    return frozenset(name for name in names if matcher(name))


def quark_selected(patterns: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """The names Quark's quantizer keeps by a recipe's `exclude`: `fnmatch` over full names."""
    return modelopt_excluded(patterns, names)


Excluded = Callable[[Iterable[str], Iterable[str]], frozenset[str]]
DIALECTS: Mapping[str, Excluded] = {
    "modelopt": modelopt_excluded,
    "quark": exact_or_regex_excluded,
    "compressed-tensors": exact_or_regex_excluded,
}
