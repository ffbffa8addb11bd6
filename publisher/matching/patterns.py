"""Name patterns: globs, foreign regexes, and the exact-or-`re:` entries of Quark's and compressed-tensors' lists.

Patterns come from strangers. Globs run in linear time: `fnmatch.translate` writes atomic groups. Foreign regexes are
refused rather than timed: at most 500 characters, at most three open-ended repeats, a group may be optional but not
repeated, no look-around and no back-references; names longer than 512 characters are refused. What is left costs at
most a cube of the name's length.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable

from publisher.errors import PublisherError

MAX_PATTERN = 500
MAX_NAME = 512
MAX_REPEATS = 3


class PatternError(PublisherError):
    """A pattern that cannot be used: empty, too long, control characters, or a regex that may never end."""


class NoRegex(PatternError):
    """What follows `re:` is not a regular expression."""


def check_pattern(pattern: str) -> str:
    """The pattern itself, when it can be one.

    Raises:
        PatternError: empty, longer than `MAX_PATTERN`, or with control characters or spaces.
    """
    if not pattern:
        raise PatternError("An empty pattern matches nothing.", hint="Remove it.")
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"The pattern {pattern[:40]!r}... has {len(pattern):,} characters; {MAX_PATTERN} are read.")
    if not pattern.isprintable() or " " in pattern:  # every other space is unprintable
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
            if not WILD.search(pattern):
                self._exact.setdefault(pattern, index)
            elif pattern.endswith("*") and not WILD.search(pattern[:-1]):
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


WILD = re.compile(r"[*?\[]")


class Fnmatches:
    """Whether any of many entries matches a name as `fnmatch` would; exact names and `prefix*` are looked up.

    Args:
        entries: any strings; those that no name can match are allowed.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(dict.fromkeys(entries))
        self._exact = frozenset(entry for entry in entries if not WILD.search(entry))
        wild = [entry for entry in entries if entry not in self._exact]
        ends = {entry[:-1] for entry in wild if entry.endswith("*") and not WILD.search(entry[:-1])}
        self._prefixes: dict[int, set[str]] = {}
        for end in ends:
            self._prefixes.setdefault(len(end), set()).add(end)
        self._matches = tuple(
            re.compile(fnmatch.translate(e)).match for e in wild if e[:-1] not in ends or e[-1] != "*"
        )

    def __call__(self, name: str) -> bool:
        """Whether an entry matches the whole name."""
        if name in self._exact or any(name[:length] in ends for length, ends in self._prefixes.items()):
            return True
        return any(match(name) for match in self._matches)


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
        raise NoRegex(f"{pattern[:80]!r} is not a regex: {error}.", hint="Correct the pattern.") from None


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


_WIDE = re.compile(r"(?<!\\)(?:\.|\\[wWSD]|\])[*+]")


def regex_cost(pattern: str, length: int) -> int:
    """Steps a regex may take on a name of a length, at worst: repeats of digits cost next to nothing."""
    wide = len(_WIDE.findall(re.sub(r"(?<!\\)\.\*\$?\Z", "", pattern)))
    return int(length ** max(wide, 1))


class ExactOrRegex:
    """Entries of Quark's and compressed-tensors' lists: the whole name, or `re:` and a regex matched at the start.

    vLLM `compressed_tensors/utils.py` and `quark/utils.py`, `check_equal_or_regex_match`.

    Raises:
        PatternError: a `re:` entry that cannot be evaluated safely.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self.exact = frozenset(entry for entry in entries if not entry.startswith("re:"))
        self.regexes = tuple(compile_foreign(entry[3:]) for entry in entries if entry.startswith("re:"))
        self._regexes = tuple(regex.match for regex in self.regexes)

    def __call__(self, name: str) -> bool:
        """Whether an entry matches a name."""
        return name in self.exact or any(match(bounded(name)) for match in self._regexes)


def bounded(name: str) -> str:
    """The name itself.

    Raises:
        PatternError: it is longer than `MAX_NAME`.
    """
    if len(name) > MAX_NAME:
        raise PatternError(f"The module name {name[:60]!r}... has {len(name):,} characters; {MAX_NAME} are matched.")
    return name
