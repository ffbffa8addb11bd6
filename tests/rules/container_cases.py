"""CN: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import struct

from tests.builders.edits import (
    FIRST,
    POINTER,
    SECOND,
    UP,
    Edit,
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
from tests.builders.tiny import Tensor
from tests.rules.cases import Case

CASES = [
    Case(
        "CN01",
        "claims-too-long",
        shard(lambda raw: struct.pack("<Q", 1 << 40) + raw[8:]),
        "CN01 CN08 CN11w NM01",
        place=FIRST,
    ),
    Case("CN02", "no-json", shard(lambda raw: raw[:8] + b"[" + raw[9:]), "CN02 CN08 CN11w NM01", place=FIRST),
    Case(
        "CN02",
        "entry-without-offsets",
        header(lambda head: head["lm_head.weight"].pop("data_offsets")),
        "CN02 CN08 CN11w",
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
        "CN09", "missing-shard", later(lambda folder: (folder / SECOND).unlink()), "CN09 CN11w CN12w NM01", place=SECOND
    ),
    Case("CN09", "stray-shard", later(stray), "CN09 CN12w", place="old.safetensors"),
    Case("CN09", "no-index", lambda tiny: setattr(tiny, "index", False), "CN09"),
    Case("CN10", "twice", later(same_name), "CN10 CN11w", place=SECOND),
    Case("CN11", "file-sizes", index(lambda i: i["metadata"].update(total_size=1)), "CN11w"),
    Case("CN11", "absent", index(lambda i: i.pop("metadata")), "CN11w"),
    Case("CN12", "own-names", later(renumber), "CN12w", place="part2.safetensors"),
    Case("CN13", "pointer", shard(lambda raw: POINTER), "CN08 CN11w CN13 NM01", place=FIRST),
    Case("CN13", "empty", shard(lambda raw: b""), "CN08 CN11w CN13 NM01", place=FIRST),
    Case("CN13", "cut", shard(lambda raw: raw[:-1]), "CN04 CN13", place=FIRST),
]

LEGITIMATE: list[tuple[str, str, Edit]] = []
