"""The only door to JSON, YAML, TOML and JSON Schema.

What comes in is data from a stranger: duplicate keys, NaN and Infinity literals, a byte-order mark, deep nesting and
oversized documents are refused with the file's name, never silently repaired. What goes out is canonical: the same
object gives the same bytes, and a file appears under its name complete or not at all.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import yaml

from publisher.errors import PublisherError

DATA = Path(__file__).parent / "data"
MAX_DOCUMENT = 256 * 1024 * 1024  # an index of 500,000 tensors is about 60 MB
MAX_DEPTH = 200
MEND = "Correct that file, or fetch it again, and run the same command again."
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./+-]*(?: [A-Za-z0-9_./+-]+)*")
_HALF = re.compile("[\ud800-\udfff]")
_NOT_PLAIN = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"})


class DocumentError(PublisherError):
    """A document is not what its format or its schema says."""


# --- in ------------------------------------------------------------------------------------------------------------


def loads_json(data: bytes | str, where: str) -> Any:
    """Parse strict JSON.

    Args:
        data: the document, UTF-8 when bytes.
        where: what to call it in an error, usually its path.

    Raises:
        DocumentError: not UTF-8, a byte-order mark, not JSON, a duplicate key, NaN or Infinity, nested too deep.
    """
    text = _text(data, where)
    try:
        value = json.loads(
            text,
            object_pairs_hook=functools.partial(_unique, where),
            parse_constant=functools.partial(_constant, where),
            parse_float=functools.partial(_finite, where),
        )
    except json.JSONDecodeError as error:
        raise DocumentError(
            f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            hint="Fetch or write the file again.",
        ) from None
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError:  # Python converts no integer of more than 4,300 digits
        raise DocumentError(f"{where} holds a number of thousands of digits.", hint=MEND) from None
    _limit_depth(value, where)
    return value


def _too_deep(where: str) -> DocumentError:
    return DocumentError(f"{where} is nested deeper than this program reads ({MAX_DEPTH} levels).", hint=MEND)


def _limit_depth(value: Any, where: str) -> None:
    """What is read here is walked and written again by recursion elsewhere."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 1:
            raise _too_deep(where)
        level = [
            item
            for holder in level
            for item in (holder.values() if isinstance(holder, dict) else holder if isinstance(holder, list) else ())
            if isinstance(item, dict | list)
        ]


def _finite(where: str, literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise DocumentError(f"{where} contains {literal[:40]}, which is larger than a number can be.", hint=MEND)
    return number


def load_json(path: Path) -> Any:
    """Read and parse a strict JSON file; a missing or unreadable file is a `DocumentError` too."""
    return loads_json(read_bytes(path), str(path))


def loads_yaml(data: bytes | str, where: str) -> Any:
    """Parse YAML with the safe loader; duplicate keys, aliases, tags and half characters are refused.

    Raises:
        DocumentError: not YAML of that kind, with the line.
    """
    try:
        return yaml.load(_text(data, where), Loader=_StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise DocumentError(f"{where} is not the YAML this program reads: {problem}{place}.", hint=MEND) from None
    except (RecursionError, ValueError, OverflowError) as error:
        raise DocumentError(f"{where} cannot be read as YAML: {error}.", hint=MEND) from None


def loads_toml(data: bytes | str, where: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        DocumentError: not TOML, with the place.
    """
    try:
        return tomllib.loads(_text(data, where))
    except tomllib.TOMLDecodeError as error:
        raise DocumentError(f"{where} is not TOML: {error}.", hint=MEND) from None


def read_bytes(path: Path, limit: int = MAX_DOCUMENT) -> bytes:
    """The bytes of a document of bounded size.

    Raises:
        DocumentError: missing, unreadable or longer than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            data = bytearray()  # in pieces: one read sets aside all it is asked for
            while len(data) <= limit and (piece := file.read(min(1 << 20, limit + 1 - len(data)))):
                data += piece
    except FileNotFoundError:
        raise DocumentError(f"{path} does not exist.", hint="Check the path.") from None
    except OSError as error:
        raise DocumentError(
            f"{path} cannot be read: {error.strerror or error}.", hint="Check the path and its permissions."
        ) from None
    if len(data) > limit:
        raise DocumentError(
            f"{path} is longer than {limit:,} bytes; no document of this kind is.", hint="Check the path."
        )
    return bytes(data)


def _text(data: bytes | str, where: str) -> str:
    if isinstance(data, str):
        return data
    if data.startswith(b"\xef\xbb\xbf"):
        raise DocumentError(f"{where} starts with a byte-order mark.", hint="Save it as plain UTF-8.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{where} is not UTF-8 (byte {error.start}).", hint="Save it as UTF-8.") from None


def _unique(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key in repeated(pairs):
        raise DocumentError(f"{where} has the key {key[:200]!r} twice in one object.", hint=MEND)
    return dict(pairs)


def repeated(pairs: list[tuple[str, Any]]) -> list[str]:
    """Keys that an object's pairs hold again, in order; Python's reader would silently keep the last of them."""
    if len(dict(pairs)) == len(pairs):
        return []
    seen: set[str] = set()
    found = []
    for key, _ in pairs:
        if key in seen:
            found.append(key)
        seen.add(key)
    return found


def _constant(where: str, literal: str) -> NoReturn:
    raise DocumentError(f"{where} contains {literal}, which is not JSON.", hint=MEND)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases (no billion laughs), without tags and without duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if reason := _not_read(event):
            raise yaml.composer.ComposerError(None, None, reason, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def is_text(value: str) -> bool:
    """Whether it can be written: JSON and YAML can spell half a surrogate pair, UTF-8 cannot."""
    return value.isascii() or not _HALF.search(value)


def _not_read(event: Any) -> str:
    """Why the strict loader does not take this node; a tag would run a constructor that its value need not fit."""
    if isinstance(event, yaml.AliasEvent):
        return "aliases are not read"
    if event.tag is not None:
        return f"the tag {event.tag[:60]!r} is not read"
    if isinstance(event, yaml.ScalarEvent) and not is_text(event.value):
        return "half a character (a lone surrogate)"
    return ""


# --- out -----------------------------------------------------------------------------------------------------------


def dump_json(value: Any) -> str:
    """Canonical JSON text: keys sorted, two spaces, UTF-8 kept, one newline at the end.

    Raises:
        ValueError: the value holds NaN or Infinity.
    """
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def dump_yaml(value: Any) -> str:
    """YAML text in the order of the value's keys, whose strings no YAML version can read as anything else.

    A string that is not a plain word is quoted, on one line; lists are indented; characters are kept.
    """
    dumped: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**31
    )
    return dumped


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _NOT_PLAIN and len(text) <= 200
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent)


def dump_line(value: Any) -> str:
    """Canonical JSON on one line, without a newline."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """The sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(dump_line(value).encode()).hexdigest()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that its name shows the old content or the new, never a part.

    The file is written beside its name, flushed to the disk and renamed; mode 0644.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what `write_atomic` leaves below a folder when its process is killed."""
    for path in folder.rglob(".*.partial"):
        if path.is_file() or path.is_symlink():
            path.unlink()


# --- schemas -------------------------------------------------------------------------------------------------------


@functools.cache
def data(name: str) -> Any:
    """A fact file of `publisher/data`, parsed once; `name` is its path there, such as `licences/hub.json`."""
    return load_json(DATA / name)


def problems(value: Any, schema: str) -> list[str]:
    """What a JSON Schema of `publisher/data/schemas` has against a value, all of it, in a person's words.

    Args:
        value: parsed JSON, YAML or TOML.
        schema: the schema's file name without `.schema.json`.
    """
    validator = jsonschema.Draft202012Validator(data(f"schemas/{schema}.schema.json"))
    try:
        errors = sorted(validator.iter_errors(value), key=lambda error: [str(part) for part in error.absolute_path])
        return list(_sentences(errors))
    except ValueError:  # Python writes no integer of more than 4,300 digits, which YAML can spell in hexadecimal
        return ["it holds a number of thousands of digits"]


def require(value: Any, schema: str, where: str, *, hint: str = "") -> None:
    """Refuse a value its schema refuses.

    Raises:
        DocumentError: naming every problem at once.
    """
    found = problems(value, schema)
    if found:
        raise DocumentError(f"{where}: " + "; ".join(found) + ".", hint=hint)


def _sentences(errors: Iterable[jsonschema.ValidationError]) -> Iterable[str]:
    for error in errors:
        place = ".".join(str(part) for part in error.absolute_path)
        yield (f"`{place}`: " if place else "") + _sentence(error)


def _sentence(error: jsonschema.ValidationError) -> str:
    schema: Any = error.schema
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = schema.get("properties", {})
        unknown = sorted(str(key) for key in error.instance if key not in known)
        more = f" and {len(unknown) - 10:,} more" if len(unknown) > 10 else ""
        shown = ", ".join(repr(key[:100]) for key in unknown[:10])
        return f"unknown key {shown}{more}; known keys are {', '.join(sorted(known))}"
    if error.validator == "enum":
        return f"{error.instance!r:.200} is none of {', '.join(map(str, schema['enum']))}"
    return error.message[:300]
