"""CF: edits of JSON documents as files, with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.builders.edits import Edit, file, later, quant
from tests.rules.cases import Case


def text(name: str, change: Callable[[bytes], bytes]) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return later(edit)


MARK = b"\xef\xbb\xbf"  # UTF-8's byte-order mark
NAMES = [f"model.layers.{n}.mlp.gate" for n in range(3000)]
BLOCK = {"quant_method": "gptq", "bits": 4, "group_size": 128}

CASES = [
    Case("CF29", "nan", file("preprocessor_config.json", b'{"a": NaN}'), "CF29", place="preprocessor_config"),
    Case("CF29", "twice", file("generation_config.json", b'{"eos_token_id": 2, "eos_token_id": 3}'), "CF29 SD01"),
    Case(
        "CF29",
        "mark",
        text("hf_quant_config.json", lambda b: MARK + b),
        "CF04 CF29",
        place="hf_quant_config",
    ),
    Case("CF29", "latin-1", file("special_tokens_map.json", b'{"eos_token": "\xe9"}'), "CF29", place="special_tokens"),
    Case("CF29", "index", text("model.safetensors.index.json", lambda b: b[:-1]), "CF29 CN09", place="index.json"),
    Case("CF29", "infinity", text("config.json", lambda b: b[:-1] + b', "x": -Infinity}'), "CF01 CF02 CF04 CF25 CF29"),
    Case("CF35", "of-the-source", file("quantize_config.json", json.dumps(BLOCK).encode()), "CF35w"),
    Case("CF36", "many-names", quant(lambda q: q["exclude"].extend(NAMES)), "CF36i", base="llama-mxfp4"),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    (
        "declaration-copied",
        "llama-ct-mxfp4",
        lambda tiny: file("quantization_config.json", json.dumps(tiny.config["quantization_config"]).encode())(tiny),
    ),
]
