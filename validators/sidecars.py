"""SD: the files beside the weights. Which there must be, as the source has them, and which there must not be."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.open import INDEX
from publisher.checkpoint.sidefiles import travels
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import CARD, MANIFEST, Headers, Pair, SideFiles

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
        yield Found(f"There is no {FILE} beside the modelopt declaration; write it.", file=FILE, engines=())
    if present and not modelopt:
        yield Found(f"{FILE} stands beside a {_method(headers)} declaration; remove it.", file=FILE)


def _method(headers: Headers) -> str | None:
    for quant in headers.checkpoint.declarations:
        if quant.origin.startswith("config.json"):
            return quant.dialect
    return None


@rule("SD04", "second-quant-file", severity=ERROR, engines=("tensorrt-llm",))
def second_quant_file(side: SideFiles) -> Iterator[Found]:
    """`quant_cfg.json` declares another algorithm than config.json, or there is a `dtypes.json`.

    Why: TensorRT-LLM lays both over the declaration.
    Fix: remove the file.
    Seen: TensorRT-LLM `_torch/model_config.py`.
    """
    quant = side.checkpoint.quant
    overlay = side.mapping("quant_cfg.json")
    if "quant_cfg.json" in side.checkpoint.files.sizes:
        algo = overlay.get("quant_algo")
        if quant is None or not isinstance(algo, str) or algo.upper() != str(quant.algo).upper():
            told = str(quant.algo)[:40] if quant is not None else "nothing"
            message = f"quant_cfg.json says {str(algo)[:40]}, the declaration {told}; remove it."
            yield Found(message, file="quant_cfg.json")
    if "dtypes.json" in side.checkpoint.files.sizes:
        message = "dtypes.json is laid over the declaration by TensorRT-LLM and nothing proves it right; remove it."
        yield Found(message, file="dtypes.json", severity=WARNING)


@rule("SD06", "stale-shard-set", severity=WARNING)
def stale_shard_set(headers: Headers) -> Iterator[Found]:
    """Shards lie in a folder of their own, or a second index lies beside the first.

    Why: an earlier upload's files stay when a new one has other names; they double the repository, and tools that
    search it load them.
    Fix: remove them; push with delete patterns.
    Seen: huggingface_hub `upload_folder` deletes nothing unless it is told to; unslothai/unsloth-zoo PR 808.
    """
    sizes = headers.checkpoint.files.sizes
    for name, size in sizes.items():
        if name.endswith(".safetensors") and "/" in name:
            yield Found(f"{name} ({size:,} bytes) lies outside the checkpoint's own shards; remove it.", file=name)
        elif name.endswith(".safetensors.index.json") and name != INDEX and not name.startswith("consolidated"):
            yield Found(f"{name} is a second index; remove it and the shards it names.", file=name)


@rule("SD08", "disagreeing-provenance", severity=WARNING)
def disagreeing_provenance(side: SideFiles) -> Iterator[Found]:
    """The file that records how the checkpoint was made names another format, tool or version than config.json.

    Why: nobody can make it again, and one of the two files is of another checkpoint.
    Fix: write both in one run.
    Seen: NVIDIA/Model-Optimizer PRs 2287 and 2437 (recipes written months later).
    """
    quant = side.checkpoint.quant
    if quant is None:
        return
    scheme = _SCHEME.search(side.text("recipe.yaml") or "")
    form = next((f for f in ("nvfp4", "mxfp4") if scheme and f in scheme.group(1).lower()), None)
    if form is not None and quant.format in ("nvfp4", "mxfp4") and form != quant.format and scheme is not None:
        message = (
            f"recipe.yaml made {scheme.group(1)[:40]}, config.json declares {quant.format}; one is of another run."
        )
        yield Found(f"{message} Write both again.", file="recipe.yaml")
    engine = side.mapping(MANIFEST).get("engine")
    engine = engine if isinstance(engine, Mapping) else {}
    made, version = _producer(quant.raw)
    if made is None or engine.get("name") != made or not version or not isinstance(engine.get("version"), str):
        return
    if engine["version"].partition("+")[0] != version.partition("+")[0]:
        message = f"{MANIFEST} says {made} {engine['version'][:40]}, config.json {version[:40]}; one is of another run."
        yield Found(f"{message} Publish again.", file=MANIFEST)


_SCHEME = re.compile(r"^[ \t]*scheme:[ \t]*[\"']?([A-Za-z0-9_]{1,40})", re.MULTILINE)


def _producer(raw: Mapping[str, Any]) -> tuple[str | None, str]:
    """The tool a declaration names, as manifests call engines, and its version."""
    producer = raw.get("producer")
    if isinstance(producer, Mapping):
        return str(producer.get("name")), str(producer.get("version") or "")
    if raw.get("quant_method") == "quark":
        return "quark", str(raw.get("version") or "")
    return None, ""


@rule("SD15", "lost-file", severity=WARNING)
def lost_file(pair: Pair) -> Iterator[Found]:
    """A file of the source that is no weight is missing, and no other rule asks for it.

    Why: pictures, examples and configurations that the upstream's texts refer to are part of what it published.
    Fix: copy the file from the source.
    Seen: exporters copy the top folder only (modelopt `hf_checkpoint_utils.py`).
    """
    table = jsonio.data("licences/files.json")
    known = set(side_files(pair))
    for name in travels(pair.source.files):
        base = name.rpartition("/")[2].lower()
        terms = any(fnmatch.fnmatchcase(base, pattern) for pattern in table["names"])
        if not (terms or name in known or name in pair.checkpoint.files.sizes or _stale(name)):
            yield Found(f"{name} of the source is missing; copy it.", file=name)


def _stale(name: str) -> bool:
    """Files of a source that describe its own quantization or publication, which the result has its own of."""
    return name in (MANIFEST, "quant_cfg.json", "dtypes.json", "quantization_config.json", "recipe.yaml")


@rule("SD16", "upstream-card", severity=WARNING)
def upstream_card(side: SideFiles) -> Iterator[Found]:
    """The model card is the source's own, word for word.

    Why: a reader takes the quantization for the original: its numbers, its commands and its contact.
    Fix: write a card of its own that names and links the source.
    Seen: llm-compressor's model_free_ptq and modelopt copy README.md.
    """
    mine, theirs = side.text(CARD), side.source_text(CARD)
    if mine is not None and theirs is not None and _body(mine) and _body(mine) == _body(theirs):
        yield Found(f"{CARD} is the source's card; write one for this checkpoint.", file=CARD)


def _body(card: str) -> str:
    """A card without its metadata and its spaces."""
    return " ".join(re.sub(r"\A---\s.*?^---\s*$", "", card, count=1, flags=re.DOTALL | re.MULTILINE).split())
