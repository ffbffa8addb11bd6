"""What differs between two JSON documents, key by key, linear in their size.

A key is written as a path (`quantization_config.ignore`); lists of plain values are compared as sets with order
ignored, since an exclude list of thousands of names is read that way, and a changed order alone is told as such.
Keys that differ only in numbers (`quantized_layers.model.layers.7.…`) are one entry with a count.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publisher.checkpoint.modules import class_of

SHOWN = 120  # characters of a value
EXAMPLES = 3  # entries of a list


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One key, or several that differ only in numbers.

    Args:
        key: its path, numbers replaced by `*` where there are several.
        kind: added, removed or changed.
        before: the value as JSON, cut; empty when added.
        after: the same; empty when removed.
        count: how many keys.
    """

    key: str
    kind: str
    before: str
    after: str
    count: int = 1


def changes(before: Any, after: Any) -> tuple[KeyChange, ...]:
    """What differs, in key order; 1 and 1.0, true and 1 are different."""
    grouped: dict[tuple[str, str], list[KeyChange]] = {}
    for change in _walk("", before, after):
        grouped.setdefault((class_of(change.key), change.kind), []).append(change)
    found = [
        own[0]
        if len(own) == 1
        else KeyChange(key=key, kind=kind, before=own[0].before, after=own[0].after, count=len(own))
        for (key, kind), own in grouped.items()
    ]
    return tuple(sorted(found, key=lambda change: change.key))


def _walk(path: str, before: Any, after: Any) -> Iterator[KeyChange]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            place = f"{path}.{key}" if path else str(key)
            if key not in after:
                yield KeyChange(key=place, kind="removed", before=_shown(before[key]), after="")
            elif key not in before:
                yield KeyChange(key=place, kind="added", before="", after=_shown(after[key]))
            else:
                yield from _walk(place, before[key], after[key])
    elif not _same(before, after):
        told = _lists(before, after) if isinstance(before, list) and isinstance(after, list) else None
        shown = told or (_shown(before), _shown(after))
        yield KeyChange(key=path, kind="changed", before=shown[0], after=shown[1])


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, list | Mapping) or isinstance(after, list | Mapping):
        return type(before) is type(after) and _canonical(before) == _canonical(after)
    return type(before) is type(after) and bool(before == after)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _lists(before: list[Any], after: list[Any]) -> tuple[str, str] | None:
    """Two lists by their entries: what only one of them holds."""
    if max(len(before), len(after)) <= EXAMPLES:
        return None
    one, other = (Counter(map(_canonical, entries)) for entries in (before, after))
    gone, come = list((one - other).elements()), list((other - one).elements())
    if not gone and not come:
        return f"{len(before):,} entries", "the same in another order"
    return f"{len(before):,} entries{_only(gone)}", f"{len(after):,} entries{_only(come)}"


def _only(entries: list[str]) -> str:
    more = f" and {len(entries) - EXAMPLES:,} more" if len(entries) > EXAMPLES else ""
    return f", only here {', '.join(entry[:SHOWN] for entry in entries[:EXAMPLES])}{more}" if entries else ""


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and len(value) > EXAMPLES:
        return f"{{{len(value):,} keys}}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
