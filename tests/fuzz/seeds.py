"""Write the first corpus: good inputs and the classic bad ones, a file each under `corpus/<target>/`."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tests.builders.edits import POINTER
from tests.builders.tiny import CARD, framed, kimi, llama, mxfp4, nvfp4, shard_bytes

HERE = Path(__file__).parent / "corpus"
DEEP = b"[" * 3000 + b"]" * 3000
TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def _header(entries: object) -> bytes:
    return json.dumps(entries).encode()


def corpus() -> dict[str, list[bytes]]:
    good = nvfp4(llama())
    quark = mxfp4(kimi())
    few = {name: good.tensors[name] for name in list(good.tensors)[:4]}
    shard = shard_bytes(few, {"format": "pt"})
    headers = [
        _header({"a": TENSOR}),
        _header({"a": TENSOR | {"shape": [2**63, 2**63]}}),
        _header({"a": TENSOR | {"data_offsets": [-4, 0]}}),
        _header({"a": TENSOR | {"data_offsets": [4, 0]}}),
        _header({"a": TENSOR, "b": TENSOR}),
        _header({"../../etc/passwd": TENSOR, "<script>": TENSOR, "\x1b[2J": TENSOR}),
        _header({"a": TENSOR | {"dtype": 7}}),
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, NaN]}}',
        b'{"a": 1, "a": 2}',
        b'{"__metadata__": ' + DEEP + b"}",
        DEEP,
        b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}',
        b"\xff\xfe{}",
    ]
    block, file = good.config["quantization_config"], good.hf_quant_config
    found = {
        "header": [shard, struct.pack("<Q", 2**63), struct.pack("<Q", 2**64 - 1) + b"{}", POINTER, b"", shard[:40]],
        "header_json": headers,
        "index": [
            b'{"metadata": {"total_size": 1}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}',
            b'{"weight_map": {"a": "../../x.safetensors", "b": 7, "c": null}}',
            b'{"weight_map": []}',
            b'{"metadata": {"total_size": NaN}}',
            b'{"metadata": {"total_size": 1e400}, "weight_map": {}}',
            DEEP,
        ],
        "config": [_header(good.config), _header(quark.config), b"{}", b"[]", b'{"a": NaN}', DEEP, b"\xef\xbb\xbf{}"],
        "hf_quant_config": [_header(file), b'{"quantization": null}', b'{"quantization": {"exclude_modules": "x"}}'],
        "quantization_config": [_header(block), _header(quark.config["quantization_config"]), b"null", b"7"],
        "card": [CARD.encode(), b"---\nlicense: *a\n---\n", b"---\n" + b"- " * 2000 + b"\n---\n", b"\xff\xfe"],
        "sidefile": [b'{"eos_token_id": [1, "x"]}', b"import .x\n", b"from .modeling_y import *\n", DEEP],
        "scales": [bytes(64), b"\xff" * 4096, b"\x7f" * 4096, b"\x88" * 8192],
    }
    assert framed(b"{}", b"")[:8] == struct.pack("<Q", 8)
    return found


def main() -> None:
    for target, inputs in corpus().items():
        folder = HERE / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / f"seed-{number:02}").write_bytes(data)


if __name__ == "__main__":
    main()
