"""What differs between two checkpoints: documents, side files, tensors, how modules are stored, and, asked for, bits.

Everything is grouped by class of modules with the layers it concerns, so the answer about 500,000 tensors fits a
screen; time is linear in the number of tensors, and only headers and small files are read unless values are asked for.
What was compared by size alone, or not at all, is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from publisher.checkpoint.census import SCALES, spans, stored_as
from publisher.checkpoint.files import Files
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.keys import KeyChange, changes
from publisher.checkpoint.modules import class_of, layer_of
from publisher.checkpoint.open import INDEX, Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.checkpoint.values import Pair, ValueChange, compare

LEVELS = ("headers", "scales", "full")
SMALL = 4 << 20  # bytes of a side file that is read whatever the level
FAR_SMALL = 1 << 20  # the same in a repository
STEP = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A side file: added, removed or changed, with its sizes; None where it is not there."""

    name: str
    kind: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tensors or modules of one class that differ in the same way.

    Args:
        pattern: their class.
        before: what they are on one side, empty when they are not there.
        after: the same on the other side.
        count: how many.
        layers: the layers they lie in, such as `0–59`.
        example: the first one's name.
    """

    pattern: str
    before: str
    after: str
    count: int
    layers: str
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueGroup:
    """Tensors of one class whose bits differ.

    Args:
        pattern: their class.
        count: how many differ.
        of: how many were compared.
        elements: stored elements that differ, of all of them.
        layers: the layers they lie in.
        first: the first of them.
    """

    pattern: str
    count: int
    of: int
    elements: int
    layers: str
    first: ValueChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What differs between two checkpoints.

    Args:
        declared: fields of the declaration engines obey.
        documents: file name to its changed keys.
        index: changed keys of the index's metadata, and how its weight map differs.
        files: side files.
        modules: modules stored differently.
        tensors: tensors added, removed, or of another dtype or shape, outside those modules.
        inside: such tensors within them.
        moved: tensors that lie in another shard.
        shards: number of shards on either side.
        values: tensors whose bits differ.
        compared: tensors whose bits were compared.
        alike: tensors of equal dtype and shape.
        by_size: side files of equal size that were not read.
    """

    declared: tuple[KeyChange, ...]
    documents: Mapping[str, tuple[KeyChange, ...]]
    index: tuple[KeyChange, ...]
    files: tuple[FileChange, ...]
    modules: tuple[Group, ...]
    tensors: tuple[Group, ...]
    inside: int
    moved: int
    shards: tuple[int, int]
    values: tuple[ValueGroup, ...]
    compared: int
    alike: int
    by_size: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing that was compared differs."""
        return not (
            self.declared
            or any(self.documents.values())
            or self.index
            or self.files
            or self.modules
            or self.tensors
            or self.inside
            or self.moved
            or self.shards[0] != self.shards[1]
            or self.values
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        return {
            "same": self.same,
            "declared": [_plain(change) for change in self.declared],
            "documents": {name: [_plain(change) for change in found] for name, found in self.documents.items()},
            "index": [_plain(change) for change in self.index],
            "files": [_plain(change) for change in self.files],
            "modules": [_plain(group) for group in self.modules],
            "tensors": [_plain(group) for group in self.tensors],
            "tensors_of_changed_modules": self.inside,
            "moved": self.moved,
            "shards": list(self.shards),
            "values": [{**_plain(group), "first": _plain(group.first)} for group in self.values],
            "values_compared": self.compared,
            "tensors_alike": self.alike,
            "compared_by_size": list(self.by_size),
        }


def _plain(value: Any) -> dict[str, Any]:
    found = {name: getattr(value, name) for name in value.__slots__}
    return {name: list(item) if isinstance(item, tuple) else item for name, item in found.items()}


def difference(
    before: Checkpoint,
    after: Checkpoint,
    *,
    level: str = "headers",
    progress: Callable[[int, int], None] | None = None,
) -> Difference:
    """Compare two checkpoints.

    Args:
        before: one.
        after: the other.
        level: headers compares no tensor's bits, scales those of scales, full all of them and every side file.
        progress: called with (bytes done, bytes in all) while bits are compared.
    """
    changed = _changed_modules(before, after)
    tensors, pairs, inside, moved = _tensors(before, after, changed)
    asked = [] if level == "headers" else [pair for pair in pairs if level == "full" or _is_scale(pair[0].name)]
    files, by_size = _files(before, after, level)
    return Difference(
        declared=_declarations(before, after),
        documents={
            name: found for name in ("config.json", "hf_quant_config.json") if (found := _document(before, after, name))
        },
        index=_index(before, after),
        files=files,
        modules=_module_groups(changed),
        tensors=tensors,
        inside=inside,
        moved=moved,
        shards=(len(before.shards), len(after.shards)),
        values=_values(asked, compare(before, after, asked, progress=progress)),
        compared=len(asked),
        alike=len(pairs),
        by_size=by_size,
    )


def _is_scale(name: str) -> bool:
    suffix = name.rpartition(".")[2]
    return suffix in SCALES or suffix.endswith("_scales")


def _declarations(before: Checkpoint, after: Checkpoint) -> tuple[KeyChange, ...]:
    """The declarations engines obey, field by field; as a whole where one side has none."""
    one, other = before.quant, after.quant
    if one is None or other is None:
        return changes(*({"quantization": "none" if q is None else _named(q)} for q in (one, other)))
    return changes(_fields(one), _fields(other))


def _named(quant: QuantConfig) -> str:
    return f"{quant.format or quant.algo or 'unknown'} in {quant.dialect}"


def _fields(quant: QuantConfig) -> Mapping[str, Any]:
    return {
        "quantization": _named(quant),
        "algorithm": quant.algo,
        "block": quant.group_size,
        "activations": quant.activations,
        "kv cache": quant.kv_cache,
        "excluded": len(quant.ignore),
    }


def _document(before: Checkpoint, after: Checkpoint, name: str) -> tuple[KeyChange, ...]:
    one, other = (_content(checkpoint, name) for checkpoint in (before, after))
    if one is None or other is None:
        kind = "added" if one is None else "removed"
        return () if one is other else (KeyChange(key="(the file)", kind=kind, before="", after=""),)
    return changes(one, other)


def _content(checkpoint: Checkpoint, name: str) -> Mapping[str, Any] | None:
    if name in checkpoint.document_flaws:
        return {"(unreadable)": checkpoint.document_flaws[name]}
    if name not in checkpoint.files.sizes:
        return None
    return checkpoint.config if name == "config.json" else checkpoint.hf_quant_config


def _index(before: Checkpoint, after: Checkpoint) -> tuple[KeyChange, ...]:
    """The index's metadata key by key, its weight map by what it names."""
    if before.index is None and after.index is None:
        return ()
    if before.index is None or after.index is None:
        kind = "added" if before.index is None else "removed"
        return (KeyChange(key="(the file)", kind=kind, before="", after=""),)
    one, other = before.weight_map, after.weight_map
    found = list(changes(before.index.get("metadata"), after.index.get("metadata")))
    gone, come = sum(name not in other for name in one), sum(name not in one for name in other)
    if gone or come:
        found.append(
            KeyChange(key="weight_map", kind="changed", before=f"{gone:,} names only here", after=f"{come:,} only here")
        )
    return tuple(found)


# --- side files ----------------------------------------------------------------------------------------------------


def _files(before: Checkpoint, after: Checkpoint, level: str) -> tuple[tuple[FileChange, ...], tuple[str, ...]]:
    """Side files that differ, and those that only their size was compared of."""
    skipped = {"config.json", "hf_quant_config.json", INDEX, ".gitattributes"}  # told above; the last is the Hub's own
    one, other = before.side_files, after.side_files
    found, by_size = [], []
    for name in sorted({*one, *other} - skipped):
        sizes = one.get(name), other.get(name)
        if None in sizes or sizes[0] != sizes[1]:
            kind = "added" if sizes[0] is None else "removed" if sizes[1] is None else "changed"
            found.append(FileChange(name=name, kind=kind, before=sizes[0], after=sizes[1]))
        elif level != "full" and not _small(before.files, after.files, name):
            by_size.append(name)
        elif _digest(before.files, name) != _digest(after.files, name):
            found.append(FileChange(name=name, kind="changed", before=sizes[0], after=sizes[1]))
    return tuple(found), tuple(by_size)


def _small(before: Files, after: Files, name: str) -> bool:
    near = before.local(name) is not None and after.local(name) is not None
    return before.sizes[name] <= (SMALL if near else FAR_SMALL)


def _digest(files: Files, name: str) -> str:
    digest = hashlib.sha256()
    for at in range(0, files.sizes[name], STEP):
        digest.update(files.read(name, at, at + STEP))
    return digest.hexdigest()


# --- tensors and modules -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Members:
    """A group while it is collected."""

    example: str
    count: int = 0
    layers: set[int] = field(default_factory=set)

    def add(self, name: str) -> None:
        self.count += 1
        layer = layer_of(name)
        if layer is not None:
            self.layers.add(layer)


def _changed_modules(before: Checkpoint, after: Checkpoint) -> dict[str, tuple[str, str]]:
    """Modules on both sides that are stored differently: name to how."""
    found = {}
    for name, module in before.modules.items():
        twin = after.modules.get(name)
        if twin is not None:
            forms = stored_as(module), stored_as(twin)
            if forms[0] != forms[1]:
                found[name] = forms
    return found


def _module_groups(changed: Mapping[str, tuple[str, str]]) -> tuple[Group, ...]:
    groups: dict[tuple[str, str, str], _Members] = {}
    for name, (one, other) in changed.items():
        _add(groups, (class_of(name), one, other), name)
    return _sorted(groups)


def _tensors(
    before: Checkpoint, after: Checkpoint, changed: Mapping[str, tuple[str, str]]
) -> tuple[tuple[Group, ...], list[Pair], int, int]:
    """Groups of tensors that differ, pairs that do not, how many differ within changed modules, how many moved."""
    groups: dict[tuple[str, str, str], _Members] = {}
    pairs: list[Pair] = []
    inside = moved = 0
    for name, own in _both(before.tensors, after.tensors):
        one, other = own
        if one is not None and other is not None:
            moved += one.shard != other.shard
            if (one.dtype, one.shape, one.size) == (other.dtype, other.shape, other.size):
                pairs.append((one, other))
                continue
        if name.rpartition(".")[0] in changed:
            inside += 1
        else:
            _add(groups, (class_of(name), _told(one, other), _told(other, one)), name)
    if len(before.shards) != len(after.shards):
        moved = 0  # every name of a shard holds the number of shards
    return _sorted(groups), pairs, inside, moved


def _both(
    one: Mapping[str, TensorRef], other: Mapping[str, TensorRef]
) -> Iterator[tuple[str, tuple[TensorRef | None, TensorRef | None]]]:
    yield from ((name, (ref, other.get(name))) for name, ref in one.items())
    yield from ((name, (None, ref)) for name, ref in other.items() if name not in one)


def _told(ref: TensorRef | None, beside: TensorRef | None) -> str:
    if ref is None:
        return ""
    shape = "×".join(map(str, ref.shape[:8])) or "scalar"
    size = f" in {ref.size:,} bytes" if beside is not None and beside.shape == ref.shape else ""
    return f"{ref.dtype} {shape}" + (size if beside is not None and beside.dtype == ref.dtype else "")


def _add(groups: dict[tuple[str, str, str], _Members], key: tuple[str, str, str], name: str) -> None:
    members = groups.get(key)
    if members is None:
        members = groups[key] = _Members(name)
    members.add(name)


def _sorted(groups: Mapping[tuple[str, str, str], _Members]) -> tuple[Group, ...]:
    """The largest groups first."""
    made = [
        Group(
            pattern=pattern,
            before=one,
            after=other,
            count=members.count,
            layers=spans(sorted(members.layers)),
            example=members.example,
        )
        for (pattern, one, other), members in groups.items()
    ]
    return tuple(sorted(made, key=lambda group: (-group.count, group.pattern)))


def _values(pairs: Iterable[Pair], found: Iterable[ValueChange]) -> tuple[ValueGroup, ...]:
    totals: dict[str, int] = {}
    for own, _ in pairs:
        pattern = class_of(own.name)
        totals[pattern] = totals.get(pattern, 0) + 1
    members: dict[str, _Members] = {}
    firsts: dict[str, ValueChange] = {}
    elements: dict[str, int] = {}
    for change in found:
        pattern = class_of(change.name)
        members.setdefault(pattern, _Members(change.name)).add(change.name)
        firsts.setdefault(pattern, change)
        elements[pattern] = elements.get(pattern, 0) + change.elements
    made = [
        ValueGroup(
            pattern=pattern,
            count=own.count,
            of=totals[pattern],
            elements=elements[pattern],
            layers=spans(sorted(own.layers)),
            first=firsts[pattern],
        )
        for pattern, own in members.items()
    ]
    return tuple(sorted(made, key=lambda group: (-group.count, group.pattern)))
