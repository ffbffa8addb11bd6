"""What must not be published or logged: access tokens, private keys, passwords, in the forms their issuers document.

One table (`data/sidefiles/secrets.json`) says what such strings look like. `find` looks for them in a file of any
length, piece by piece, text or not; `mask` takes them out of a line that a person or a log will see. Both know the
values of this process's own secret environment variables too, as they stand and in base64, whatever their form.

What is found is never repeated: a leak has a kind and a place. Refused as a token is what is no random string, such
as `hf_xxxx` or a long name in lower case.
"""

from __future__ import annotations

import base64
import codecs
import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from publisher import jsonio

OVERLAP = 8 << 10  # bytes; no pattern is longer
PIECE = 1 << 20  # bytes that are looked at at once, when a caller has no reason for another number
MAX_LEAKS = 20  # of one file
DISTINCT = 12  # different characters, at least, in a random string of a token's length
_HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}|hf_oauth_[A-Za-z0-9._-]+|(?<=[Bb]earer )[A-Za-z0-9._~+/-]{8,}")
_MASKED = "***"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Leak:
    """One secret in a file, by kind and place; the secret itself is not kept.

    Args:
        line: counted from 1.
        column: bytes from the line's start, counted from 1; tells something where a whole document is one line.
        kind: what it is, as in "a Hugging Face token".
        certain: False for what may be harmless, such as an address with a signature that has expired.
    """

    line: int
    column: int
    kind: str
    certain: bool = True

    @property
    def place(self) -> str:
        """The place in words."""
        return f"line {self.line:,}" + (f", byte {self.column:,}" if self.column > 1000 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    name: str
    hints: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    certain: bool
    mixed: bool

    def at(self, data: bytes, position: int) -> bool:
        """Whether a secret of this kind begins at a position."""
        match = self.pattern.match(data, position)
        return match is not None and _begins(data, position) and _random(match.group(), self.mixed)


@functools.cache
def _kinds() -> tuple[_Kind, ...]:
    return tuple(
        _Kind(
            name=row["name"],
            hints=tuple(hint.encode() for hint in row["hints"]),
            pattern=re.compile(row["pattern"].encode()),
            certain=row.get("certain", True),
            mixed=row.get("mixed", False),
        )
        for row in jsonio.data("sidefiles/secrets.json")["patterns"]
    )


def _begins(data: bytes, position: int) -> bool:
    """Whether no letter or digit stands before: but one that an escape such as `\\n` ends with."""
    before = data[max(position - 2, 0) : position]
    return not before[-1:].isalnum() or data[position : position + 3] == b"://" or before in (b"\\n", b"\\r", b"\\t")


def _random(found: bytes, mixed: bool) -> bool:
    """Whether it is no placeholder: tokens have many different characters, `mixed` ones digits and capitals too."""
    text = found.decode("ascii", "replace")
    if mixed and not (any(c.isdigit() for c in text) and any(c.isupper() for c in text)):
        return False
    return len(set(text.lower())) >= DISTINCT


# --- this process's own ----------------------------------------------------------------------------------------------


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Secret values of environment variables by the variable's name: tokens, keys and passwords, by their names.

    Args:
        variables: those of this process when None.
    """
    table = jsonio.data("sidefiles/secrets.json")["environment"]
    named = _compiled(table["names"])
    given = os.environ if variables is None else variables
    return {name: value for name, value in given.items() if named.search(name) and _secret(value, table["shortest"])}


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _secret(value: str, shortest: int) -> bool:
    """Whether a value is long enough to be searched for, and neither a path nor prose."""
    return len(value) >= shortest and len(set(value)) >= 6 and not re.search(r"\s|^[./~]", value)


@functools.lru_cache(maxsize=64)
def spellings(value: str) -> tuple[str, ...]:
    """The forms in which a secret can lie in a text: as it is, in JSON, percent-encoded, in base64 at any offset."""
    raw = value.encode("utf-8", "surrogateescape")
    forms = {value, json.dumps(value)[1:-1], quote(raw, safe="")}
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + raw).decode()
        inner = encoded[(0, 2, 3)[offset] : len(encoded) - (0, 3, 2)[(offset + len(raw)) % 3]]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return tuple(sorted(forms, key=len, reverse=True))


def _own(variables: Mapping[str, str] | None) -> list[tuple[str, bytes]]:
    return [
        (f"value of this environment's {name}", form.encode("utf-8", "surrogateescape"))
        for name, value in environment(variables).items()
        for form in spellings(value)
    ]


# --- finding ---------------------------------------------------------------------------------------------------------


def find(pieces: Iterable[bytes], variables: Mapping[str, str] | None = None) -> list[Leak]:
    """Secrets in a file, one per kind and line, at most `MAX_LEAKS`, in order.

    Args:
        pieces: the file's bytes in order; each is looked at together with the end of the one before. UTF-16 with a
            mark is read as text.
        variables: an environment whose secret values are looked for too; this process's when None.
    """
    own, found = _own(variables), dict[tuple[int, str], Leak]()
    for data, first_line, first_column in _windows(_as_utf8(pieces)):
        for position, kind, certain in _hits(data, own):
            line = first_line + data.count(b"\n", 0, position)
            start = data.rfind(b"\n", 0, position)
            column = position - start if start >= 0 else first_column + position
            found.setdefault((line, kind), Leak(line=line, column=column, kind=kind, certain=certain))
        if len(found) >= MAX_LEAKS:
            break
    return sorted(found.values())[:MAX_LEAKS]


def _hits(data: bytes, own: list[tuple[str, bytes]]) -> Iterator[tuple[int, str, bool]]:
    for kind in _kinds():
        for hint in kind.hints:
            position = data.find(hint)
            while position >= 0:
                if kind.at(data, position):
                    yield position, kind.name, kind.certain
                position = data.find(hint, position + len(hint))
    for name, form in own:
        position = data.find(form)
        if position >= 0:
            yield position, name, True


def _windows(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Pieces with the end of the one before, and the line and column at which each window begins, from 1."""
    kept, line, column = b"", 1, 1
    for piece in pieces:
        data = kept + piece
        yield data, line, column
        kept = data[-OVERLAP:]
        gone = len(data) - len(kept)
        newline = data.rfind(b"\n", 0, gone)
        line += data.count(b"\n", 0, gone)
        column = gone - newline if newline >= 0 else column + gone


def _as_utf8(pieces: Iterable[bytes]) -> Iterator[bytes]:
    decoder = None
    for number, piece in enumerate(pieces):
        if number == 0 and piece[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            decoder = codecs.getincrementaldecoder("utf-16")("replace")
        yield piece if decoder is None else decoder.decode(piece).encode("utf-8", "replace")


def homes(text: str) -> list[tuple[int, str]]:
    """Lines that name somebody's home folder, with the name; names that stand for anybody are passed over."""
    table = jsonio.data("sidefiles/secrets.json")["homes"]
    nobody = frozenset(table["nobody"])
    found: dict[str, int] = {}
    for match in _compiled(table["pattern"]).finditer(text):
        name = match.group(1)
        if name.lower() not in nobody and name not in found:
            found[name] = text.count("\n", 0, match.start()) + 1
    return [(line, name) for name, line in found.items()]


# --- masking ---------------------------------------------------------------------------------------------------------


def mask(text: str) -> str:
    """The text without tokens: what looks like one, and the values of this process's secret variables in any form."""
    for value in environment().values():
        for form in spellings(value):
            text = text.replace(form, _MASKED)
    text = _HUB_TOKEN.sub(_MASKED, text)
    for kind in _kinds():
        if kind.certain and any(hint.decode() in text for hint in kind.hints):
            text = _masked(text, kind)
    return text


def _masked(text: str, kind: _Kind) -> str:
    def replaced(match: re.Match[bytes]) -> bytes:
        return _MASKED.encode() if kind.at(match.string, match.start()) else match.group()

    return kind.pattern.sub(replaced, text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
