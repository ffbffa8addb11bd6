"""SD: the files beside the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator

from publisher.findings import ERROR, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import Headers, Pair

FILE = "hf_quant_config.json"
# Tokenizer, template, generation and processor files, and the code a config may name.
_SIDE = re.compile(
    r"(^|/)(tokenizer[^/]*\.(json|model)|[^/]*\.tiktoken|tiktoken\.model|vocab\.(json|txt)|merges\.txt"
    r"|special_tokens_map\.json|added_tokens\.json|chat_template[^/]*\.(jinja|json)|[^/]+\.jinja"
    r"|generation_config\.json|[^/]*processor_config\.json|preprocessor_config\.json|spiece\.model|[^/]+\.py)$"
)


def side_files(pair: Pair) -> list[str]:
    """The source's files that a publication must carry over unchanged."""
    return [name for name in pair.source.files.sizes if _SIDE.search(name) and not _is_gguf(pair, name)]


def _is_gguf(pair: Pair, name: str) -> bool:
    """Whether a tokenizer file is a whole model: transformers saves the GGUF it read as tokenizer.model."""
    return name.endswith(".model") and pair.meter.read(pair.source.files, name, 0, 4) == b"GGUF"


@rule(
    "SD01",
    "changed-side-file",
    severity=ERROR,
    engines=ENGINES,
    scope=Scope("side file in the source", lambda pair: bool(side_files(pair))),
)
def changed_side_file(pair: Pair) -> Iterator[Found]:
    """A tokenizer, template, processor, generation or code file is missing or not the source's, byte for byte.

    Why: libraries rewrite these files when they save a model; a changed pre-tokenizer or template ruins answers
    without an error.
    Fix: copy the file from the source.
    Seen: transformers 5.17 saved a ByteLevel tokenizer as Metaspace; NVIDIA/Model-Optimizer PR 2060.
    """
    for name in side_files(pair):
        if name not in pair.checkpoint.files.sizes:
            yield Found(f"{name} of the source is missing; copy it.", file=name)
        elif not pair.same(name):
            mine, theirs = pair.checkpoint.files.sizes[name], pair.source.files.sizes[name]
            message = f"{name} ({mine:,} bytes) is not the source's ({theirs:,} bytes); copy it from the source."
            yield Found(message, file=name)


@rule(
    "SD03",
    "misplaced-quant-file",
    severity=ERROR,
    engines=("tensorrt-llm",),
    scope=Scope("quantization declaration in config.json", lambda headers: _method(headers) is not None),
)
def misplaced_quant_file(headers: Headers) -> Iterator[Found]:
    """hf_quant_config.json is missing beside a modelopt declaration, or present beside another one.

    Why: TensorRT-LLM obeys this file before anything else.
    Fix: write it for modelopt checkpoints, and only for them.
    Seen: TensorRT-LLM `_torch/model_config.py`.
    """
    modelopt, present = _method(headers) == "modelopt", FILE in headers.checkpoint.files.sizes
    if modelopt and not present:
        yield Found(f"There is no {FILE} beside the modelopt declaration; write it.", file=FILE)
    if present and not modelopt:
        yield Found(f"{FILE} stands beside a {_method(headers)} declaration; remove it.", file=FILE)


def _method(headers: Headers) -> str | None:
    for quant in headers.checkpoint.declarations:
        if quant.origin.startswith("config.json"):
            return quant.dialect
    return None
