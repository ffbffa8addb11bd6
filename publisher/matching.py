"""Name patterns: the recipe's globs, and how serving engines read the exclude list of a checkpoint.

Every engine has an algorithm of its own for the question "is this module left unquantized?", and they disagree: plain
substrings in vLLM's modelopt reader, dotted paths and single name parts in SGLang's, exact names or `re:` regexes in
the Quark and compressed-tensors readers. Each is written down here once, so that a list can be proven before it is
published. Model-specific renaming (vLLM's `WeightsMapper`) is not modelled.

Patterns come from strangers. Globs run in linear time: `fnmatch.translate` writes atomic groups. Foreign regexes are
refused rather than timed: at most 500 characters, at most three open-ended repeats, a group may be optional but not
repeated, no look-around and no back-references; names longer than 512 characters are refused. What is left costs at
most a cube of the name's length.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from publisher.errors import PublisherError

MAX_PATTERN = 500
MAX_NAME = 512
MAX_REPEATS = 3

FusedMap = Mapping[str, Sequence[str]]
Matcher = Callable[[str], bool]


class PatternError(PublisherError):
    """A pattern that cannot be used: empty, too long, control characters, or a regex that may never end."""


class PartlyFused(PublisherError):
    """A list names some members of a fused layer and not the others; the engine refuses to load it."""


def check_pattern(pattern: str) -> str:
    """The pattern itself, when it can be one.

    Raises:
        PatternError: empty, longer than `MAX_PATTERN`, or with control characters or spaces.
    """
    if not pattern:
        raise PatternError("An empty pattern matches nothing.", hint="Remove it.")
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"The pattern {pattern[:40]!r}... has {len(pattern):,} characters; {MAX_PATTERN} are read.")
    if not pattern.isprintable() or any(character.isspace() for character in pattern):
        raise PatternError(
            f"The pattern {pattern[:80]!r} holds a space or an unprintable character; module names have none.",
            hint="Remove it.",
        )
    return pattern


# --- globs ---------------------------------------------------------------------------------------------------------


class Globs:
    """Case-sensitive globs (`*`, `?`, `[...]`; `*` crosses dots) over module names, compiled once.

    Exact names and `prefix*` patterns are looked up, so that long exclude lists stay linear in the number of names.

    Args:
        patterns: in order of preference.

    Raises:
        PatternError: a pattern is empty, too long or holds control characters.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(check_pattern(pattern) for pattern in patterns)
        self._exact: dict[str, int] = {}
        self._prefix: dict[str, int] = {}
        self._regex: list[tuple[int, Callable[[str], object]]] = []
        for index, pattern in enumerate(self.patterns):
            if not _WILD.search(pattern):
                self._exact.setdefault(pattern, index)
            elif pattern.endswith("*") and not _WILD.search(pattern[:-1]):
                self._prefix.setdefault(pattern[:-1], index)
            else:
                self._regex.append((index, re.compile(fnmatch.translate(pattern)).match))
        self._lengths = sorted({len(prefix) for prefix in self._prefix})

    def first_match(self, name: str) -> str | None:
        """The first pattern that matches the whole name, None when none does."""
        none = len(self.patterns)
        best = self._exact.get(name, none)
        for length in self._lengths:
            if length > len(name):
                break
            best = min(best, self._prefix.get(name[:length], none))
        for index, match in self._regex:
            if index >= best:
                break
            if match(name):
                best = index
                break
        return self.patterns[best] if best < none else None

    def unused(self, names: Iterable[str]) -> tuple[str, ...]:
        """The patterns that match none of the names, each judged alone."""
        left = dict.fromkeys(self.patterns)
        found: set[str] = set()
        names = tuple(names)
        for name in names:
            match = self.first_match(name)
            if match is not None:
                found.add(match)
        shadowed = [pattern for pattern in left if pattern not in found]
        return tuple(p for p in shadowed if not any(map(Globs((p,)).first_match, names)))


_WILD = re.compile(r"[*?\[]")


# --- foreign regexes -----------------------------------------------------------------------------------------------

_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")


def compile_foreign(pattern: str) -> re.Pattern[str]:
    """Compile a regex that came with a checkpoint, when it cannot run away.

    Raises:
        PatternError: not a regex, or one whose running time is not bounded (see the module's docstring).
    """
    check_pattern(pattern)
    repeats = _open_repeats(pattern)
    if repeats > MAX_REPEATS:
        raise PatternError(
            f"The regex {pattern[:80]!r} has {repeats} open-ended repeats; {MAX_REPEATS} are evaluated.",
            hint="Write it with fewer `*` and `+`, or list the names.",
        )
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"{pattern[:80]!r} is not a regex: {error}.", hint="Correct the pattern.") from None


def _open_repeats(pattern: str) -> int:
    """Open-ended repeats in a pattern; a `.*` at its end costs nothing and is not counted."""
    text = re.sub(r"(?<!\\)\.\*\$?\Z", "", pattern)
    count, position, after_group = 0, 0, False
    while position < len(text):
        step, repeat = _token(text, position, after_group)
        count += repeat
        after_group = text[position] == ")"
        position += step
    return count


def _token(text: str, position: int, after_group: bool) -> tuple[int, int]:
    """Length of the token at a position, and 1 when it is an open-ended repeat."""
    character = text[position]
    if character == "\\":
        if text[position + 1 : position + 2].isdigit():
            raise _runaway(text, "back-references")
        return 2, 0
    if character == "[":
        match = _CLASS.match(text, position)
        return (match.end() - position if match else 1), 0
    if text.startswith("(?", position) and not text.startswith("(?:", position):
        raise _runaway(text, "look-around, flags or names in a group")
    if character in "*+":
        if after_group:
            raise _runaway(text, "a repeated group")
        return 1 + text.startswith(("?", "+"), position + 1), 1
    counted = _COUNT.match(text, position) if character == "{" else None
    if counted:
        if after_group:
            raise _runaway(text, "a repeated group")
        return counted.end() - position, 1
    return 1, 0


def _runaway(pattern: str, what: str) -> PatternError:
    return PatternError(
        f"The regex {pattern[:80]!r} has {what}, which may never end on a hostile name; it is not evaluated.",
        hint="Write it without, or list the names.",
    )


class ExactOrRegex:
    """Entries of Quark's and compressed-tensors' lists: the whole name, or `re:` and a regex matched at the start.

    vLLM `compressed_tensors/utils.py` and `quark/utils.py`, `check_equal_or_regex_match`.

    Raises:
        PatternError: a `re:` entry that cannot be evaluated safely.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self.exact = frozenset(entry for entry in entries if not entry.startswith("re:"))
        self._regexes = tuple(compile_foreign(entry[3:]).match for entry in entries if entry.startswith("re:"))

    def __call__(self, name: str) -> bool:
        """Whether an entry matches a name."""
        return name in self.exact or any(match(_bounded(name)) for match in self._regexes)


def _bounded(name: str) -> str:
    if len(name) > MAX_NAME:
        raise PatternError(f"The module name {name[:60]!r}... has {len(name):,} characters; {MAX_NAME} are matched.")
    return name


# --- what a list leaves out, as its producer means it --------------------------------------------------------------


def modelopt_excluded(entries: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """The names a modelopt exclude list leaves unquantized: its exporter writes globs over full names."""
    globs = Globs(entries)
    return frozenset(name for name in names if globs.first_match(name) is not None)


def exact_or_regex_excluded(entries: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """The names a Quark or compressed-tensors list leaves unquantized: exact names or `re:`."""
    matcher = ExactOrRegex(entries)
    return frozenset(name for name in names if matcher(name))


Excluded = Callable[[Iterable[str], Iterable[str]], frozenset[str]]
DIALECTS: Mapping[str, Excluded] = {
    "modelopt": modelopt_excluded,
    "quark": exact_or_regex_excluded,
    "compressed-tensors": exact_or_regex_excluded,
}


# --- engines -------------------------------------------------------------------------------------------------------


def _shards(prefix: str, fused: FusedMap) -> list[str] | None:
    """The names of a fused layer's members; the engines replace the last part wherever it occurs in the prefix."""
    last = prefix.rpartition(".")[2]
    return [prefix.replace(last, member) for member in fused[last]] if last in fused else None


def _all_or_none(prefix: str, shards: list[str], matches: Matcher) -> bool:
    found = [matches(shard) for shard in shards]
    if any(found) != all(found):
        named = [shard.rpartition(".")[2] for shard, hit in zip(shards, found, strict=True) if hit]
        raise PartlyFused(
            f"The exclude list names {', '.join(named)} of {prefix} but not all {len(shards)} of its members.",
            hint="Quantize all members of a fused layer or none.",
        )
    return found[0]


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
        self.entries = tuple(_split_stars(entries) if mapped else entries)
        self._names = frozenset(self.entries)
        self._fused, self._always = fused, tuple(always)
        self._expert_entries = tuple(entry for entry in self.entries if "experts" in entry)
        self._globs = tuple(re.compile(fnmatch.translate(e)).match for e in self.entries if _WILD.search(e))

    def __call__(self, prefix: str) -> bool:
        """Whether the engine leaves a module unquantized."""
        if self._skipped(prefix):
            return True
        inner = prefix.removeprefix("language_model.")
        if any(entry in prefix or entry in inner for entry in self.entries):
            return True
        return any(match(prefix) for match in self._globs) or any(part in prefix for part in self._always)

    def _skipped(self, prefix: str) -> bool:
        shards = _shards(prefix, self._fused)
        if shards is not None:
            return _all_or_none(prefix, shards, self._names.__contains__)
        if "experts" in prefix:
            return any(prefix in entry for entry in self._expert_entries)
        return prefix in self._names


def _split_stars(entries: Iterable[str]) -> Iterable[str]:
    for entry in entries:
        if len(entry) >= 2 and entry.endswith("*") and entry[-2] != ".":
            yield from (entry[:-1], entry[:-1] + ".*")
        else:
            yield entry


class SglangModelopt:
    """SGLang's reading of a modelopt list (`modelopt_quant.py` `is_layer_excluded`, `quantization/utils.py`).

    An entry that is a dotted part of the name; an entry as a regex with `.` and `*` translated and nothing else, over
    the name, the name without `language_model.`, or any single part of it; and for MLA projections an entry's last
    part inside the name's last part, in whatever layer.

    Args:
        entries: the exclude list.
        fused: fused layer's last name part to its members.
        tails: the projections that are compared by their last part only.
    """

    def __init__(self, entries: Iterable[str], fused: FusedMap, *, tails: Iterable[str] = ()) -> None:
        self.entries = tuple(entries)
        self._fused = fused
        self._dotted = tuple(f".{entry}." for entry in self.entries)
        self._regexes = tuple(_sglang_regex(entry) for entry in self.entries if _SPECIAL.search(entry))
        self._plain = frozenset(self.entries)
        self._tails = frozenset(entry.rpartition(".")[2] for entry in self.entries) & frozenset(tails)

    def __call__(self, prefix: str) -> bool:
        """Whether the engine leaves a module unquantized."""
        shards = _shards(prefix, self._fused)
        if shards is not None and _all_or_none(prefix, shards, self._listed):
            return True
        return self._listed(prefix) or self._matches(prefix)

    def _listed(self, prefix: str) -> bool:
        padded = f".{prefix}."
        return any(entry in padded for entry in self._dotted)

    def _matches(self, prefix: str) -> bool:
        inner = prefix.removeprefix("language_model.")
        candidates = {prefix, inner, *prefix.split(".")}
        if not self._plain.isdisjoint(candidates):
            return True
        if any(match(candidate) for match in self._regexes for candidate in candidates):
            return True
        last = prefix.rpartition(".")[2]
        return any(tail in last for tail in self._tails)


_SPECIAL = re.compile(r"[^\w.\-]")
_REGEX_LIKE = re.compile(r"[^\w.\-*]")


def _sglang_regex(entry: str) -> Callable[[str], object]:
    """`fullmatch` of an entry; where only `*` is special the glob's linear form means the same."""
    if not _REGEX_LIKE.search(entry):
        return re.compile(fnmatch.translate(entry)).match
    return compile_foreign(entry.replace(".", r"\.").replace("*", ".*")).fullmatch


class VllmExactOrRegex:
    """vLLM's reading of a Quark or compressed-tensors list (`config_utils.py`, `quark/utils.py`).

    A direct match of the fused name wins, else all members or none; for Quark an entry at or below a MoE module
    leaves out the whole of it.

    Args:
        entries: the exclude or ignore list.
        fused: fused layer's last name part to its members.
        moe_children: whether an entry below `….experts` leaves out all experts (Quark).
    """

    def __init__(self, entries: Iterable[str], fused: FusedMap, *, moe_children: bool) -> None:
        self._matches = ExactOrRegex(entries)
        self._fused, self._children = fused, moe_children

    def __call__(self, prefix: str) -> bool:
        """Whether the engine leaves a module unquantized."""
        if self._matches(prefix):
            return True
        if self._children and prefix.endswith("experts"):
            return any(entry.startswith(f"{prefix}.") for entry in self._matches.exact)
        shards = _shards(prefix, self._fused)
        return shards is not None and _all_or_none(prefix, shards, self._matches)
