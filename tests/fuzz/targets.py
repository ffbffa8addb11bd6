"""What is fuzzed: every reader of a stranger's bytes. A target ends with a verdict or a `PublisherError`, never else.

`python tests/fuzz/run.py TARGET CORPUS_FOLDER -max_total_time=60` drives one with atheris; what it finds is kept in
`corpus/<target>/` and replayed by `test_corpus.py`.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable

from publisher.checkpoint.header import read_header
from publisher.checkpoint.open import open_checkpoint
from publisher.errors import PublisherError
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.memory import Memory
from tests.builders.tiny import Tensor, llama, nvfp4, shard_bytes

_GOOD = nvfp4(llama())
_SHARD = shard_bytes(dict(list(_GOOD.tensors.items())[:6]), {"format": "pt"})
_CONFIG = json.dumps(_GOOD.config).encode()
_HF = json.dumps(_GOOD.hf_quant_config).encode()
_NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def header(data: bytes) -> None:
    """A whole shard file."""
    shard = read_header(Memory({"model.safetensors": data}), "model.safetensors")
    assert all(0 <= ref.begin <= ref.end for ref in shard.tensors)
    _judged({"model.safetensors": data, "config.json": _CONFIG})


def header_json(data: bytes) -> None:
    """The JSON of a header, framed as it claims itself; gets past the length at once."""
    header(struct.pack("<Q", len(data)) + data + bytes(64))


def index(data: bytes) -> None:
    """model.safetensors.index.json."""
    _judged({"model.safetensors.index.json": data, **dict.fromkeys(_NAMES, _SHARD), "config.json": _CONFIG})


def config(data: bytes) -> None:
    """config.json."""
    _judged({"config.json": data, "model.safetensors": _SHARD})


def hf_quant_config(data: bytes) -> None:
    """hf_quant_config.json."""
    _judged({"config.json": _CONFIG, "hf_quant_config.json": data, "model.safetensors": _SHARD})


def quantization_config(data: bytes) -> None:
    """The declaration inside an otherwise good config.json."""
    text = _CONFIG[:-1] + b', "quantization_config": ' + data + b"}"
    _judged({"config.json": text.replace(b'"quantization_config"', b'"was"', 1), "model.safetensors": _SHARD})


def card(data: bytes) -> None:
    """README.md."""
    _judged({"config.json": _CONFIG, "hf_quant_config.json": _HF, "model.safetensors": _SHARD, "README.md": data})


def sidefile(data: bytes) -> None:
    """Tokenizer and generation settings, and custom code."""
    names = ("tokenizer_config.json", "generation_config.json", "tokenizer.json", "modeling_x.py", "publish.json")
    _judged({"config.json": _CONFIG, "model.safetensors": _SHARD, **dict.fromkeys(names, data)})


def scales(data: bytes) -> None:
    """The bytes of block scales, payload and scalars."""
    tensors = dict(list(_GOOD.tensors.items())[:12])
    at = 0
    for name, old in tensors.items():
        piece = data[at : at + len(old.data)]
        tensors[name] = Tensor(old.dtype, old.shape, piece + old.data[len(piece) :])
        at += len(piece)
    _judged({"config.json": _CONFIG, "hf_quant_config.json": _HF, "model.safetensors": shard_bytes(tensors)})


def _judged(contents: dict[str, bytes]) -> None:
    with contextlib.suppress(PublisherError):
        report = run(Evidence(checkpoint=open_checkpoint(Memory(contents))), level="full")
        broken = [finding.message for finding in report.findings if "could not finish" in finding.message]
        assert not broken, broken
        json.dumps(report.to_json(), ensure_ascii=False, allow_nan=False).encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": header,
    "header_json": header_json,
    "index": index,
    "config": config,
    "hf_quant_config": hf_quant_config,
    "quantization_config": quantization_config,
    "card": card,
    "sidefile": sidefile,
    "scales": scales,
}
