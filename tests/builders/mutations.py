"""Random edits of a finished checkpoint folder, by class: bytes and fields that change what the files mean."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (None, 0, -1, 7, 2.5, True, "", "x", [], {}, [1], {"a": 1})
SCALES = ("weight_scale", "weight_scale_2", "weight_global_scale", "input_scale", "input_global_scale")
PAYLOADS = ("weight_packed", "weight")


@dataclass(frozen=True)
class Mutation:
    """One edit: a file of the folder and its new bytes, None to delete it."""

    kind: str
    path: str
    data: bytes | None
    what: str


def header_of(raw: bytes) -> tuple[int, dict[str, Any]]:
    length = struct.unpack("<Q", raw[:8])[0]
    return length, json.loads(raw[8 : 8 + length])


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _tensors(folder: Path, wanted: Callable[[str, dict[str, Any]], bool]) -> Iterator[tuple[Path, str, int, int]]:
    for path in _shards(folder):
        raw = path.read_bytes()
        length, head = header_of(raw)
        for name, entry in head.items():
            if name != "__metadata__" and wanted(name, entry):
                begin, end = entry["data_offsets"]
                yield path, name, 8 + length + begin, 8 + length + end


def _byte(raw: bytes, at: int, rng: random.Random) -> bytes:
    data = bytearray(raw)
    data[at] ^= 1 << rng.randrange(8) if rng.random() < 0.5 else rng.randrange(1, 256)
    return bytes(data)


def _in_tensor(kind: str, wanted: Callable[[str, dict[str, Any]], bool]) -> Mutator:
    def mutate(folder: Path, rng: random.Random) -> Mutation | None:
        found = list(_tensors(folder, wanted))
        if not found:
            return None
        path, name, begin, end = rng.choice(found)
        at = rng.randrange(begin, end)
        raw = path.read_bytes()
        data = _byte(raw, at, rng)
        if kind == "payload" and not _codes_differ(raw[at], data[at]):
            return None
        return Mutation(kind, path.name, data, f"{name} byte {at - begin}: {raw[at]:02x} to {data[at]:02x}")

    return mutate


def _codes_differ(old: int, new: int) -> bool:
    """Whether two payload bytes stand for different numbers: +0 and -0 are the same one."""

    def numbers(byte: int) -> tuple[int, ...]:
        return tuple(code if code & 7 else 0 for code in (byte & 15, byte >> 4))

    return numbers(old) != numbers(new)


def _is_scale(name: str, entry: dict[str, Any]) -> bool:
    return name.rpartition(".")[2] in SCALES


def _is_payload(name: str, entry: dict[str, Any]) -> bool:
    return name.rpartition(".")[2] in PAYLOADS and entry["dtype"] == "U8"


def _is_plain(name: str, entry: dict[str, Any]) -> bool:
    return not _is_scale(name, entry) and not _is_payload(name, entry)


def header_byte(folder: Path, rng: random.Random) -> Mutation | None:
    path = rng.choice(_shards(folder))
    raw = path.read_bytes()
    length, old = header_of(raw)
    at = rng.randrange(0, 8 + length)
    data = _byte(raw, at, rng)
    try:
        same = header_of(data) == (length, old)
    except (ValueError, struct.error, RecursionError):
        same = False
    return None if same else Mutation("header byte", path.name, data, f"byte {at}: {raw[at]:02x} to {data[at]:02x}")


def header_field(folder: Path, rng: random.Random) -> Mutation | None:
    path = rng.choice(_shards(folder))
    raw = path.read_bytes()
    length, head = header_of(raw)
    names = [name for name in head if name != "__metadata__"]
    name = rng.choice(names)
    entry = dict(head[name])
    what = rng.choice(["dtype", "shape", "offset", "rename", "drop"])
    if what == "dtype":
        entry["dtype"] = rng.choice(
            [d for d in ("BF16", "F16", "F32", "U8", "I8", "F8_E4M3", "F8_E8M0") if d != entry["dtype"]]
        )
    elif what == "shape":
        entry["shape"] = [*entry["shape"], 1] if rng.random() < 0.3 else [n + 1 for n in entry["shape"]] or [1, 1]
    elif what == "offset":
        entry["data_offsets"] = [n + rng.choice((-2, 2)) for n in entry["data_offsets"]]
    new = {key: value for key, value in head.items() if key != name}
    if what == "rename":
        new[f"{name}x"] = entry
    elif what != "drop":
        new[name] = entry
    text = json.dumps(
        {key: new[key] for key in (*[k for k in head if k in new], *[k for k in new if k not in head])}
    ).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + raw[8 + length :]
    return Mutation("header field", path.name, data, f"{name}: {what}")


def _field(name: str, kind: str) -> Mutator:
    def mutate(folder: Path, rng: random.Random) -> Mutation | None:
        path = folder / name
        if not path.is_file():
            return None
        value = json.loads(path.read_bytes())
        new, place = _changed(value, rng, "")
        if new == value and type(new) is type(value) and json.dumps(new) == json.dumps(value):
            return None
        return Mutation(kind, name, json.dumps(new).encode(), place)

    return mutate


def _changed(value: Any, rng: random.Random, path: str) -> tuple[Any, str]:
    """One node of a document replaced, dropped, added to or slightly altered."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}, f"{path}.{key} dropped"
        new, place = _changed(value[key], rng, f"{path}.{key}")
        return value | {key: new}, place
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        if rng.random() < 0.3:
            return value[:at] + value[at + 1 :], f"{path}[{at}] dropped"
        new, place = _changed(value[at], rng, f"{path}[{at}]")
        return [*value[:at], new, *value[at + 1 :]], place
    if type(value) in (int, float) and rng.random() < 0.6:
        return value * 2 + 1, f"{path} doubled"
    if isinstance(value, str) and value and rng.random() < 0.6:
        return value[:-1], f"{path} cut"
    if isinstance(value, bool) and rng.random() < 0.6:
        return not value, f"{path} flipped"
    return rng.choice(VALUES), f"{path} replaced"


def document_byte(folder: Path, rng: random.Random) -> Mutation | None:
    path = rng.choice(sorted(folder.glob("*.json")))
    raw = path.read_bytes()
    if not raw:
        return None
    at = rng.randrange(len(raw))
    data = _byte(raw, at, rng)
    try:
        same = json.loads(data) == json.loads(raw)
    except (ValueError, RecursionError):
        same = False
    return None if same else Mutation("document byte", path.name, data, f"byte {at}: {raw[at]:02x} to {data[at]:02x}")


def side_file(folder: Path, rng: random.Random) -> Mutation | None:
    known = {"config.json", "hf_quant_config.json", "model.safetensors.index.json", "publish.json", "README.md"}
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".safetensors" and p.name not in known]
    path = rng.choice(paths)
    name, raw = path.relative_to(folder).as_posix(), path.read_bytes()
    if rng.random() < 0.2:
        return Mutation("side file", name, None, "deleted")
    at = rng.randrange(len(raw))
    return Mutation("side file", name, _byte(raw, at, rng), f"byte {at}")


def whole_file(folder: Path, rng: random.Random) -> Mutation | None:
    path = rng.choice(_shards(folder))
    raw = path.read_bytes()
    what = rng.choice(["deleted", "cut", "longer", "empty", "of another shard"])
    other = rng.choice(_shards(folder)).read_bytes()
    data = {"deleted": None, "cut": raw[: rng.randrange(1, len(raw))], "longer": raw + b"\0", "empty": b""}.get(
        what, other
    )
    return None if data == raw else Mutation("shard", path.name, data, what)


Mutator = Callable[[Path, random.Random], Mutation | None]
MUTATORS: dict[str, Mutator] = {
    "header byte": header_byte,
    "header field": header_field,
    "index field": _field("model.safetensors.index.json", "index field"),
    "config field": _field("config.json", "config field"),
    "hf_quant_config field": _field("hf_quant_config.json", "hf_quant_config field"),
    "manifest field": _field("publish.json", "manifest field"),
    "document byte": document_byte,
    "block or global scale": _in_tensor("block or global scale", _is_scale),
    "payload": _in_tensor("payload", _is_payload),
    "plain weight": _in_tensor("plain weight", _is_plain),
    "side file": side_file,
    "shard": whole_file,
}


def mutations(folder: Path, kind: str, count: int, seed: int) -> Iterator[Mutation]:
    """`count` edits of one class, each of the untouched folder; edits that change nothing are drawn again."""
    rng = random.Random(f"{kind}{seed}")
    found = tries = 0
    while found < count and tries < 20 * count:
        tries += 1
        mutation = MUTATORS[kind](folder, rng)
        if mutation is not None:
            found += 1
            yield mutation
