"""Edits of tiny checkpoints: what a tool, a copy or a hand may do to a good one, before or after it is written."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.builders.tiny import Tensor, Tiny, f32, framed, mixture, reheader

MANIFEST_FRAME = """{"version": 1, "root_digest": "%s", "waivers": {}, "versions": {}, "report": {"digest": null},
 "source": {"commit": null, "repo": null}, "recipe": {"digest": null, "name": null},
 "engine": {"name": null, "version": null}, "serialization": {"allow_symlinks": false, "hash_type": "sha256",
 "ignore_paths": [".cache", ".git", ".gitattributes", "publish.json"], "method": "files"}}""" % ("0" * 64)
Edit = Callable[[Tiny], object]
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
UP = "model.layers.0.mlp.up_proj"
DOWN = "model.layers.1.mlp.down_proj"
Q = "model.layers.0.self_attn.q_proj"
EXPERT = "model.layers.1.mlp.experts.2"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1000\n"


def later(change: Callable[[Path], None]) -> Edit:
    """An edit of the written folder."""
    return lambda tiny: tiny.after.append(change)


def shard(change: Callable[[bytes], bytes], name: str = FIRST) -> Edit:
    return later(lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())))


def header(change: Callable[[dict[str, Any]], Any], name: str = FIRST) -> Edit:
    return later(lambda folder: reheader(folder / name, lambda head: change(head)))


def config(**keys: Any) -> Edit:
    return lambda tiny: tiny.config.update(keys)


def quant(change: Callable[[dict[str, Any]], Any]) -> Edit:
    return lambda tiny: change(tiny.config["quantization_config"])


def body(change: Callable[[dict[str, Any]], Any]) -> Edit:
    return lambda tiny: change(tiny.hf_quant_config["quantization"])


def index(change: Callable[[dict[str, Any]], Any]) -> Edit:
    return lambda tiny: setattr(tiny, "edit_index", change)


def put(name: str, tensor: Tensor) -> Edit:
    return lambda tiny: tiny.tensors.__setitem__(name, tensor)


def drop(*names: str) -> Edit:
    return lambda tiny: [tiny.tensors.pop(name) for name in names]


def file(name: str, data: bytes | None) -> Edit:
    return lambda tiny: tiny.files.pop(name) if data is None else tiny.files.__setitem__(name, data)


def poke(name: str, at: int, value: int) -> Edit:
    return lambda tiny: tiny.poke(name, at, value)


def card(old: str, new: str) -> Edit:
    def edit(tiny: Tiny) -> None:
        text = tiny.files["README.md"].decode()
        assert old in text
        tiny.files["README.md"] = text.replace(old, new).encode()

    return edit


def typed(name: str, dtype: str, width: int = 1) -> Edit:
    """The same elements under another dtype, each padded to `width` bytes."""

    def edit(tiny: Tiny) -> None:
        old = tiny.tensors[name]
        tiny.tensors[name] = Tensor(dtype, old.shape, b"".join(bytes([b]) + bytes(width - 1) for b in old.data))

    return edit


def each(*edits: Edit) -> Edit:
    return lambda tiny: [edit(tiny) for edit in edits]


def quantized(name: str, rows: int, columns: int) -> Edit:
    """Store a plain layer packed, as a tool does that was not told to leave it alone."""
    payload, scale = Tensor("U8", (rows, columns // 2), b"\x2a\x71" * (rows * columns // 4)), rows * columns // 16
    return each(
        put(f"{name}.weight", payload),
        put(f"{name}.weight_scale", Tensor("F8_E4M3", (rows, columns // 16), b"\x7e" * scale)),
        put(f"{name}.weight_scale_2", f32(1e-4)),
        put(f"{name}.input_scale", f32(1e-3)),
    )


def twice(raw: bytes) -> bytes:
    """Name the first tensor of a shard twice."""
    length = struct.unpack("<Q", raw[:8])[0]
    head = raw[8 : 8 + length].rstrip()
    entries = json.loads(head)
    name = next(key for key in entries if key != "__metadata__")
    return framed(head[:-1] + f", {json.dumps(name)}: {json.dumps(entries[name])}}}".encode(), raw[8 + length :])


def swap(head: dict[str, Any]) -> None:
    """Shift one tensor by a byte, so that it leaves a hole and overlaps the next."""
    entry = next(value for key, value in head.items() if key != "__metadata__")
    entry["data_offsets"] = [n + 2 for n in entry["data_offsets"]]


def reshape(name: str, shape: tuple[int, ...]) -> Edit:
    return lambda tiny: setattr(tiny.tensors[name], "shape", shape)


def stray(folder: Path, name: str = "old.safetensors") -> None:
    (folder / name).write_bytes(framed(b'{"__metadata__": {"format": "pt"}}', b""))


def no_export(block: dict[str, Any]) -> None:
    del block["export"]


def wrong_input_spec(block: dict[str, Any]) -> None:
    block["global_quant_config"]["input_tensors"]["is_dynamic"] = False


def renumber(folder: Path) -> None:
    (folder / SECOND).rename(folder / "part2.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(path.read_text().replace(SECOND, "part2.safetensors"))


def same_name(folder: Path) -> None:
    """Append a tensor of the second shard to the first."""
    name = next(key for key in _header(folder / SECOND) if key != "__metadata__")
    raw = (folder / FIRST).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    head, size = json.loads(raw[8 : 8 + length]), len(raw) - 8 - length
    entry = dict(_header(folder / SECOND)[name])
    width = entry["data_offsets"][1] - entry["data_offsets"][0]
    head[name] = entry | {"data_offsets": [size, size + width]}
    (folder / FIRST).write_bytes(framed(json.dumps(head).encode(), raw[8 + length :] + bytes(width)))


def _header(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    found: dict[str, Any] = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    return found


def without(layer: int) -> Edit:
    def edit(tiny: Tiny) -> None:
        tiny.tensors = {n: t for n, t in tiny.tensors.items() if f".{layer}.mlp.experts." not in n}

    return edit


def set_global(name: str, value: float) -> Edit:
    return put(f"{name}.weight_scale_2", f32(value))


def zero_block(name: str, scale: int, payload: int, width: int) -> Edit:
    """Block 1 of the first row becomes all zero, with a producer's scale code for that."""

    def edit(tiny: Tiny) -> None:
        tiny.poke(f"{name}.weight_scale", 1, scale)
        for at in range(width, 2 * width):
            tiny.poke(f"{name}.weight", at, payload)

    return edit


def kv_cast(tiny: Tiny) -> None:
    tiny.config["quantization_config"]["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    tiny.hf_quant_config["quantization"]["kv_cache_quant_algo"] = "FP8"


def plain_expert(tiny: Tiny) -> None:
    source = mixture()
    for suffix in ("gate_proj", "up_proj", "down_proj"):
        name = f"model.layers.2.mlp.experts.3.{suffix}"
        drop(*(f"{name}.{s}" for s in ("weight_scale", "weight_scale_2", "input_scale")))(tiny)
        tiny.tensors[f"{name}.weight"] = source.tensors[f"{name}.weight"]


def four_over_six(tiny: Tiny) -> None:
    for name, tensor in tiny.tensors.items():
        if name.endswith("weight_scale"):
            tensor.data = np.minimum(np.frombuffer(tensor.data, np.uint8), 0x78).tobytes()


def _manifest(folder: Path) -> None:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in ("publish.json", ".gitattributes"))
    resources = [
        {
            "name": path.relative_to(folder).as_posix(),
            "algorithm": "sha256",
            "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        for path in paths
    ]
    parts = json.loads(MANIFEST_FRAME)
    (folder / "publish.json").write_text(json.dumps({**parts, "resources": resources}))


def listed(*afterwards: Callable[[Path], None]) -> Edit:
    """Write a manifest of the finished folder, then change the folder."""
    return each(later(_manifest), *map(later, afterwards))
