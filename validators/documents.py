"""CF: the JSON documents as files: strict JSON, of a size that is read, and none of an earlier quantization."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.open import DOCUMENTS, INDEX, Checkpoint
from publisher.errors import PublisherError
from publisher.findings import ERROR, INFO, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import Headers

CONFIG = "config.json"
MANY = 2_000  # entries of an exclude list
NEAR, FAR = 64 << 20, 1 << 20  # bytes of a document that are read here, on this machine and from the Hub
READ_BY_ALL = frozenset({CONFIG, INDEX, "hf_quant_config.json", "tokenizer_config.json", "generation_config.json"})
# Names under which GPTQ, AWQ, AutoRound and modelopt leave a declaration beside config.json.
DECLARED = Scope("quantization declaration", lambda headers: bool(headers.checkpoint.declarations))
STALE = ("quantize_config.json", "quant_config.json", "quantization_config.json")


def _documents(checkpoint: Checkpoint) -> list[str]:
    """JSON files at the root that are read: all that are small enough."""
    found = []
    for name, size in checkpoint.files.sizes.items():
        if name.endswith(".json") and "/" not in name:
            limit = NEAR if checkpoint.files.local(name) is not None else FAR
            if name in DOCUMENTS or size <= limit:
                found.append(name)
    return found


@rule(
    "CF29",
    "loose-json",
    severity=ERROR,
    scope=Scope("JSON file", lambda headers: bool(_documents(headers.checkpoint))),
)
def loose_json(headers: Headers) -> Iterator[Found]:
    """A JSON file is not strict JSON: NaN or Infinity, a key twice, a byte-order mark, not UTF-8, not JSON at all.

    Why: Python takes the first two silently and keeps the last of two keys, while readers in Rust and JavaScript and
    the Hub's page refuse; nobody reads the others.
    Fix: write the file again with a JSON library, or copy it from the source.
    Seen: JSON's RFC 8259; Python's `json` accepts NaN and repeated keys by default.
    """
    checkpoint = headers.checkpoint
    for name in _documents(checkpoint):
        flaw = checkpoint.document_flaws.get(name) if name in DOCUMENTS else _flaw(checkpoint, name)
        if flaw is not None:
            refuses = ENGINES if name in READ_BY_ALL and not _python_reads(checkpoint, name) else ()
            yield Found(f"{flaw.rstrip('.')}; write it again as strict JSON.", file=name, refuses=refuses)


def _flaw(checkpoint: Checkpoint, name: str) -> str | None:
    try:
        jsonio.loads_json(checkpoint.files.read(name), name)
    except PublisherError as error:
        return error.message
    return None


def _python_reads(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the engines' own reader, Python's, takes the document for an object."""
    if checkpoint.files.sizes[name] > NEAR:
        return False
    try:
        return isinstance(json.loads(checkpoint.files.read(name).decode("utf-8")), dict)
    except (ValueError, RecursionError, PublisherError):
        return False


@rule("CF36", "enumerated-excludes", severity=INFO, scope=DECLARED)
def enumerated_excludes(headers: Headers) -> Iterator[Found]:
    """The exclude list names thousands of modules one by one.

    Why: engines compare every module with every entry, and config.json grows towards the 10 MB the Hub's page reads.
    Fix: write patterns in place of layers times experts times projections.
    Seen: vllm-project/vllm issue 54547 (1,550 entries).
    """
    quant = headers.checkpoint.quant
    if quant is not None and len(quant.ignore) > MANY:
        message = f"{quant.origin} excludes {len(quant.ignore):,} names; collapse them into patterns."
        yield Found(message, file=quant.origin.partition(":")[0])


@rule("CF35", "stale-declaration-file", severity=WARNING, scope=DECLARED)
def stale_declaration_file(headers: Headers) -> Iterator[Found]:
    """A declaration file of another tool or of the source stands beside config.json and says something else.

    Why: tools that look for these names take the checkpoint for what it was before, and quantize or decode it again.
    Fix: remove the file.
    Seen: AutoRound writes quantization_config.json; vllm-project/llm-compressor PR 2909 (sources quantized already).
    """
    checkpoint = headers.checkpoint
    for name in STALE:
        if 0 < checkpoint.files.sizes.get(name, 0) <= NEAR and _says_other(checkpoint, name):
            yield Found(f"{name} is not the declaration of {CONFIG}; remove it.", file=name)


def _says_other(checkpoint: Checkpoint, name: str) -> bool:
    try:
        stated: Any = jsonio.loads_json(checkpoint.files.read(name), name)
    except PublisherError:  # CF29 names the flaw
        return False
    return isinstance(stated, Mapping) and not any(stated == quant.raw for quant in checkpoint.declarations)
