"""SD: files that belong in no publication, secrets, traces of the machine that built it, files nobody can read."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from typing import Any

from publisher import jsonio, secrets
from publisher.checkpoint.header import LFS_POINTER
from publisher.findings import ERROR, INFO, WARNING, Found
from publisher.rules import ENGINES, rule
from publisher.subjects import SideFiles

MAX_STRINGS = 100_000  # strings of one document that are looked at
MAX_DOCUMENT = 256 << 10  # bytes of a document whose strings are looked at
_NEEDED = re.compile(r"(tokenizer|generation_config|processor|special_tokens|added_tokens|vocab|chat_template)")
_EMPTY = re.compile(r"(\.model|\.tiktoken|merges\.txt|\.jinja)$")
_PATH = re.compile(
    r"(?:/(?:home|root|mnt|data|workspace|scratch|tmp|users|Users|opt|lustre|fsx|gpfs|raid|nfs|content|kaggle|var|srv"
    r"|dev/shm|Volumes)/|file:/|[A-Za-z]:\\)\S*"
)


@rule("SD05", "stray-file", severity=WARNING)
def stray_file(side: SideFiles) -> Iterator[Found]:
    """A cache, log, backup, notebook or a file that holds secrets lies among the files.

    Why: it is published with the rest; what a download cache or `.env` tells cannot be taken back.
    Fix: remove it, and change what secrets it held.
    Seen: NVIDIA-NeMo/Megatron-Bridge PR 3924; auto-round leaves `.cache` in its exports.
    """
    for name in side.names:
        row = _stray(name)
        if row is not None and (row.get("secret") or not side.in_source(name)):
            secret = row.get("secret", False)
            next_step = "remove it and replace what it tells" if secret else "remove it"
            yield Found(f"{name} is {row['what']}; {next_step}.", file=name, severity=ERROR if secret else WARNING)


def _stray(name: str) -> dict[str, Any] | None:
    parts = name.lower().split("/")
    table = jsonio.data("sidefiles/stray.json")
    for row in table["parts"]:
        if any(fnmatch.fnmatchcase(part, row["pattern"]) for part in parts[:-1]):
            return dict(row)
    return next((dict(row) for row in table["names"] if fnmatch.fnmatchcase(parts[-1], row["pattern"])), None)


@rule("SD09", "leaked-secret", severity=ERROR)
def leaked_secret(side: SideFiles) -> Iterator[Found]:
    """A file, its name or a shard's metadata holds an access token, a private key or a password.

    Why: whoever reads the repository, its history included, can use it.
    Fix: revoke the secret, then remove it from the file.
    Seen: TruffleHog on the Hub finds such tokens after they were published.
    """
    known = secrets.environment()
    for name in side.every_name:
        if not name.endswith(".safetensors"):
            for leak in secrets.find(side.pieces(name), known):
                yield _leak(name, leak, leak.place)
            size, searched = side.checkpoint.files.sizes.get(name, 0), side.searched(name)
            if searched < size:
                message = f"{name} has {size:,} bytes, of which {searched:,} were searched for secrets; look yourself."
                yield Found(message, file=name, severity=WARNING if searched else INFO)
    for path in side.checkpoint.files.sizes:
        for leak in secrets.find([path.encode("utf-8", "replace")], known):
            yield _leak(None, leak, "the name of a file")
    for shard in side.checkpoint.shards.values():
        if shard.metadata:
            text = json.dumps(shard.metadata).encode("ascii")
            for leak in secrets.find([text], known):
                yield _leak(shard.shard, leak, "its __metadata__")


def _leak(name: str | None, leak: secrets.Leak, place: str) -> Found:
    """The finding; the secret itself stays out of every report."""
    kind, held = leak.kind, "holds" if leak.certain else "holds what looks like"
    next_step = "revoke it, then remove it" if leak.certain else "remove it if it is one"
    severity = ERROR if leak.certain else WARNING
    if name is None:
        return Found(f"A file's name {held} a {kind}; {next_step}.", severity=severity)
    return Found(f"{name} {held} a {kind} in {place}; {next_step}.", file=name, severity=severity)


@rule("SD10", "build-host-path", severity=WARNING)
def build_host_path(side: SideFiles) -> Iterator[Found]:
    """A document names a path of the machine it was written on.

    Why: the path leads nowhere for readers, some libraries try it, and it tells how that machine is laid out.
    Fix: remove the key, or write the repository's name.
    Seen: `_name_or_path` in configurations saved by transformers.
    """
    for name in side.names:
        if side.checkpoint.files.sizes[name] > MAX_DOCUMENT:
            continue
        if "/" in name or not name.endswith(".json"):
            yield from _homes(side, name)
            continue
        known = set(_strings(side.original(name), ""))
        for key, value in _strings(side.document(name), ""):
            last = key.rpartition(".")[2]
            local = last == "_name_or_path" and value.startswith(("/", "./", "../", "~"))
            if (local or _PATH.fullmatch(value)) and (key, value) not in known:
                message = f"{key[:200]} in {name} is a path of {len(value):,} characters on the machine that wrote it."
                yield Found(f"{message} Remove it.", file=name)


def _homes(side: SideFiles, name: str) -> Iterator[Found]:
    """Somebody's home folder in a text that is no configuration; the source's own texts are published already."""
    text = side.text(name) or ""
    known = {who for _, who in secrets.homes(side.source_text(name) or "")} if side.in_source(name) else set()
    for line, who in secrets.homes(text):
        if who not in known:
            yield Found(
                f"{name} names the home folder of {who} in line {line:,}. Write a path for everybody.", file=name
            )


def _strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string of a document with the keys that lead to it."""
    todo: list[tuple[str, Any]] = [(key, value)]
    for _ in range(MAX_STRINGS):
        if not todo:
            return
        at, item = todo.pop()
        if isinstance(item, str):
            yield at, item
        elif isinstance(item, dict):
            todo.extend((f"{at}.{k}"[-400:].lstrip("."), v) for k, v in item.items())
        elif isinstance(item, list):
            todo.extend((at, v) for v in item)


@rule("SD17", "empty-side-file", severity=ERROR, engines=ENGINES)
def empty_side_file(side: SideFiles) -> Iterator[Found]:
    """A tokenizer, template, generation or processor file is empty, or a Git LFS pointer.

    Why: libraries stop on it, or go on without it.
    Fix: run `git lfs pull`, or copy the file from the source.
    Seen: huggingface/transformers issue 27923 (pointers in place of files).
    """
    for name in side.names:
        base = name.rpartition("/")[2]
        needed = _NEEDED.search(base) is not None or _EMPTY.search(base) is not None
        if not needed or base in ("config.json", "hf_quant_config.json"):
            continue
        flaw = None
        if side.checkpoint.files.sizes[name] == 0:
            flaw = f"{name} is empty."
        elif side.head(name).startswith(LFS_POINTER):
            flaw = f"{name} is a Git LFS pointer, not the file."
        if flaw is not None:
            yield Found(f"{flaw} Copy it from the source.", file=name)


@rule("SD18", "model-as-tokenizer", severity=ERROR, engines=ENGINES)
def model_as_tokenizer(side: SideFiles) -> Iterator[Found]:
    """A file named as a tokenizer is a whole GGUF model.

    Why: it adds the source's weights to the repository, and no tokenizer library reads it.
    Fix: remove it; the tokenizer is in tokenizer.json.
    Seen: transformers saves the GGUF file it read a tokenizer from as tokenizer.model.
    """
    for name in side.names:
        if name.endswith(".model") and side.head(name).startswith(b"GGUF"):
            size = side.checkpoint.files.sizes[name]
            yield Found(f"{name} ({size:,} bytes) is a GGUF model, not a tokenizer; remove it.", file=name)
