"""CN: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

from tests.builders.edits import (
    FIRST,
    POINTER,
    SECOND,
    UP,
    Edit,
    config,
    file,
    header,
    index,
    later,
    put,
    renumber,
    reshape,
    same_name,
    shard,
    stray,
    swap,
    twice,
    typed,
)
from tests.builders.tiny import Tensor, Tiny, framed
from tests.rules.cases import Case


def sparse(name: str, size: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return change


def padded(length: int) -> Callable[[bytes], bytes]:
    """The same shard under a header of that many bytes."""

    def change(raw: bytes) -> bytes:
        old = struct.unpack("<Q", raw[:8])[0]
        return framed(raw[8 : 8 + old].ljust(length), raw[8 + old :])

    return change


def naive(tiny: Tiny) -> None:
    """Count elements as they are stored, as `save_pretrained` does of packed models."""
    count = sum(math.prod(tensor.shape) for tensor in tiny.tensors.values())
    tiny.edit_index = lambda index: index["metadata"].update(total_parameters=count)


CASES = [
    Case(
        "CN01",
        "claims-too-long",
        shard(lambda raw: struct.pack("<Q", 1 << 40) + raw[8:]),
        "CN01 CN08 CN11w NM01 NM12",
        place=FIRST,
    ),
    Case("CN02", "no-json", shard(lambda raw: raw[:8] + b"[" + raw[9:]), "CN02 CN08 CN11w NM01 NM12", place=FIRST),
    Case(
        "CN02",
        "entry-without-offsets",
        header(lambda head: head["lm_head.weight"].pop("data_offsets")),
        "CN02 CN08 CN11w NM12",
    ),
    Case("CN03", "named-twice", shard(twice), "CN03", place=FIRST),
    Case("CN04", "hole-and-overlap", header(swap), "CN04", place=FIRST),
    Case("CN04", "trailing-bytes", shard(lambda raw: raw + b"\0"), "CN04", place=FIRST),
    Case("CN05", "shape-too-long", reshape("model.norm.weight", (65,)), "CN05", place="model.norm.weight"),
    Case("CN06", "no-metadata", lambda tiny: setattr(tiny, "metadata", None), "CN06w"),
    Case("CN06", "not-text", lambda tiny: setattr(tiny, "metadata", {"format": 1}), "CN06w"),
    Case("CN06", "other-framework", lambda tiny: setattr(tiny, "metadata", {"format": "tf"}), "CN06w"),
    Case("CN07", "e8m0-dtype", typed(f"{UP}.weight_scale", "F8_E8M0"), "CN07 NM05", base="llama-mxfp4", place=UP),
    Case("CN07", "double", put("model.norm.weight", Tensor("F64", (64,), bytes(512))), "CN07", place="model.norm"),
    Case(
        "CN08", "ghost", index(lambda i: i["weight_map"].update({"ghost.weight": FIRST})), "CN08", place="ghost.weight"
    ),
    Case("CN08", "unlisted", index(lambda i: i["weight_map"].pop("lm_head.weight")), "CN08", place="lm_head.weight"),
    Case(
        "CN09",
        "missing-shard",
        later(lambda folder: (folder / SECOND).unlink()),
        "CN09 CN11w CN12w CN16w NM01 NM12",
        place=SECOND,
    ),
    Case("CN09", "stray-shard", later(stray), "CN09 CN12w", place="old.safetensors"),
    Case("CN09", "no-index", lambda tiny: setattr(tiny, "index", False), "CN09"),
    Case("CN10", "twice", later(same_name), "CN10 CN11w", place=SECOND),
    Case("CN11", "file-sizes", index(lambda i: i["metadata"].update(total_size=1)), "CN11w"),
    Case("CN11", "absent", index(lambda i: i.pop("metadata")), "CN11w"),
    Case("CN12", "own-names", later(renumber), "CN12w", place="part2.safetensors"),
    Case("CN13", "pointer", shard(lambda raw: POINTER), "CN08 CN11w CN13 NM01 NM12", place=FIRST),
    Case("CN13", "empty", shard(lambda raw: b""), "CN08 CN11w CN13 NM01 NM12", place=FIRST),
    Case("CN13", "cut", shard(lambda raw: raw[:-1]), "CN04 CN13", place=FIRST),
]
CASES += [
    Case("CN14", "refused", later(sparse("notes.dat", 500 * 10**9)), "CN14 SD09w", place="notes.dat"),
    Case("CN14", "large", later(sparse("notes.dat", 201 * 10**9)), "CN14w SD09w", place="notes.dat"),
    Case("CN15", "torch", file("pytorch_model.bin", b"PK"), "CN15w", place="pytorch_model.bin"),
    Case("CN15", "trainer", file("optimizer.pt", b"PK"), "CN15w", place="optimizer.pt", base="kimi-mxfp4"),
    Case("CN16", "vocabulary", config(vocab_size=48), "CF25 CN16w"),
    Case("CN16", "one-layer-more", config(num_hidden_layers=4), "CF25 CN16w NM09", base="mixture-nvfp4"),
    Case("CN17", "header", shard(padded(25_000_008)), "CN17w", place=FIRST),
    Case("CN18", "outside", index(lambda i: i["weight_map"].update(x="../secret.safetensors")), "CN18", place="index"),
    Case("CN18", "no-name", index(lambda i: i["weight_map"].update(x=7)), "CN18", place="index"),
    Case("CN19", "link", later(lambda at: (at / "notes.md").symlink_to("/etc/hostname")), "CN19", place="notes.md"),
    Case("CN19", "folder", later(lambda at: (at / "docs").symlink_to(at.parent)), "CN19", place="docs"),
    Case("CN19", "name", later(lambda at: (at / "a\x1b[2J.md").write_text("x")), "CN19", place="2J.md"),
    Case("CN20", "mistral", later(lambda at: stray(at, "consolidated.safetensors")), "CN09 CN12w CN20", place="cons"),
    Case("CN21", "hundreds", index(lambda i: i["metadata"].update(total_parameters=333)), "CN21w", place="index"),
    Case("CN21", "packed", naive, "CN21i", place="index"),
    Case("CN22", "markup", put("model.<img src=x>.weight", Tensor("BF16", (2, 2), bytes(8))), "CN22 NM12", place="img"),
    Case("CN22", "path", put("../../etc/passwd", Tensor("BF16", (2, 2), bytes(8))), "CN22 NM12", place="passwd"),
    Case("CN22", "controls", put("model.\x1b[2J.weight", Tensor("BF16", (2, 2), bytes(8))), "CN22 NM12", place="2J"),
    Case("CN22", "long", put(f"model.{'x' * 600}.weight", Tensor("BF16", (2, 2), bytes(8))), "CN22 NM12", place="xxx"),
    Case("CN23", "mode", later(lambda at: (at / FIRST).chmod(0o600)), "CN23i", place=FIRST),
]

LEGITIMATE: list[tuple[str, str, Edit]] = []
