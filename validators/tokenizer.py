"""SD: what stands between a text and the model: code, tokenizer, special tokens, chat template, stop tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.parallel import text_config
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import SideFiles

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"
_MAPPED = (CONFIG, TOKENIZER, "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_REACH = 200  # files of custom code that are followed
# As transformers `dynamic_module_utils.py` finds what a module imports from beside itself.
_FROM = re.compile(r"^[ \t]*from[ \t]+(\.+)([\w.]*)[ \t]+import[ \t]+([\w, \t]+|\()", re.MULTILINE)
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def _mapped(side: SideFiles) -> dict[tuple[str, str], str]:
    """What every auto_map names: (module.Class, document) to the key it stands under."""
    found: dict[tuple[str, str], str] = {}
    for document in _MAPPED:
        value = side.checkpoint.config if document == CONFIG else side.mapping(document)
        mapping = value.get("auto_map")
        if not isinstance(mapping, Mapping):
            continue
        for key, target in mapping.items():
            for one in target if isinstance(target, list | tuple) else [target]:
                if isinstance(one, str):
                    found.setdefault((one, document), str(key))
    return found


@rule(
    "SD02",
    "missing-custom-code",
    severity=ERROR,
    engines=ENGINES,
    refuses=("transformers",),
    scope=Scope("auto_map", lambda s: bool(_mapped(s))),
)
def missing_custom_code(side: SideFiles) -> Iterator[Found]:
    """A module that an auto_map names, or that such a module imports from beside itself, is missing or lacks the class.

    Why: with trust_remote_code the model, its tokenizer or its processor cannot be loaded.
    Fix: copy the file from the source, or remove the stale entry.
    Seen: intel/auto-round issue 725; NVIDIA-NeMo/Megatron-Bridge PR 3924.
    """
    seen: set[str] = set()
    for (target, document), key in _mapped(side).items():
        repo, double, local = target.rpartition("--")
        if double:
            message = f"{key[:60]} in {document} takes code from {repo[:100]}, another repository; copy the file here."
            yield Found(message, file=document, severity=WARNING, engines=())
            continue
        module, _, name = local.rpartition(".")
        file = module.replace(".", "/") + ".py"
        if not _MODULE.fullmatch(module):
            yield Found(f"{key[:60]} in {document} names {target[:100]!r}, no module; correct it.", file=document)
        elif file not in side.checkpoint.files.sizes:
            yield Found(f"{key[:60]} in {document} names {file}, which is missing; copy it.", file=file)
        else:
            text = side.text(file)
            if text is not None and not re.search(rf"\b{re.escape(name)}\b", text):
                yield Found(f"{file} defines no {name[:100]}, which {document} names; copy the source's.", file=file)
            yield from _imports(side, file, seen)


def _imports(side: SideFiles, start: str, seen: set[str]) -> Iterator[Found]:
    """Files that custom code imports from beside itself and that are not there."""
    todo = [start]
    while todo and len(seen) < _REACH:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        for wanted in _wanted(file, side.text(file) or ""):
            package = wanted.removesuffix(".py") + "/__init__.py"
            if wanted in side.checkpoint.files.sizes:
                todo.append(wanted)
            elif package not in side.checkpoint.files.sizes:
                yield Found(f"{file} imports {wanted}, which is missing; copy it.", file=wanted)


def _wanted(file: str, text: str) -> Iterator[str]:
    folder = file.rpartition("/")[0]
    for match in _FROM.finditer(text):
        dots, module, names = match.groups()
        parts = folder.split("/") if folder else []
        if len(dots) - 1 > len(parts):
            continue
        parts = parts[: len(parts) - (len(dots) - 1)]
        if module:
            yield "/".join([*parts, *module.split(".")]) + ".py"
        elif names != "(":
            for name in names.split(","):
                plain = name.split(" as ")[0].strip()
                if plain.isidentifier():
                    yield "/".join([*parts, plain]) + ".py"


# --- tokens --------------------------------------------------------------------------------------------------------


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [n for n in values if type(n) is int]


def _vocabulary(side: SideFiles) -> int | None:
    """Rows of the embedding, or what the configuration says."""
    value = text_config(side.checkpoint).get("vocab_size")
    if type(value) is int and value > 0:
        return value
    for name, module in side.checkpoint.modules.items():
        if module.role == "embedding" and name.endswith("embed_tokens") and module.weight is not None:
            return module.weight.shape[0] if module.weight.shape else None
    return None


@rule(
    "SD07",
    "unknown-token-id",
    severity=WARNING,
    engines=ENGINES,
    scope=Scope(GENERATION, lambda side: GENERATION in side.checkpoint.files.sizes),
)
def unknown_token_id(side: SideFiles) -> Iterator[Found]:
    """generation_config.json names a token that the vocabulary does not have.

    Why: a stop token that cannot be made never stops an answer; a start token that does not exist fails.
    Fix: copy the file from the source.
    Seen: vocabularies that were cut or extended after the file was written.
    """
    size, original = _vocabulary(side), side.original(GENERATION)
    if original is not None and original == side.document(GENERATION):
        return  # what the source says alike is the source's own
    for key, value in side.mapping(GENERATION).items():
        if not key.endswith(("_token_id", "_token_ids")):
            continue
        for token in _ids(value):
            if token < 0 or (size is not None and token >= size):
                message = f"{key} is {token:,} and the vocabulary has {size or 0:,} tokens; copy the source's file."
                yield Found(message, file=GENERATION)


@rule(
    "SD11",
    "internal-tokenizer-class",
    severity=WARNING,
    engines=("vllm", "sglang", "tensorrt-llm", "atom"),
    scope=Scope(TOKENIZER, lambda side: TOKENIZER in side.checkpoint.files.sizes),
)
def internal_tokenizer_class(side: SideFiles) -> Iterator[Found]:
    """tokenizer_config.json names a class of transformers 5's inside, or another class than the source.

    Why: transformers 4, which many servers still bring, has no such class and stops; another class splits texts
    otherwise. Where the source names a class of its own it is an error.
    Fix: copy the file from the source.
    Seen: ModelCloud/GPTQModel PR 2403; huggingface/transformers issue 47553.
    """
    mine = side.mapping(TOKENIZER).get("tokenizer_class")
    original = side.original(TOKENIZER)
    theirs = original.get("tokenizer_class") if isinstance(original, dict) else None
    if isinstance(theirs, str) and mine != theirs:
        message = f"tokenizer_class is {str(mine)[:60]}, the source's is {theirs[:60]}; copy the source's file."
        yield Found(message, file=TOKENIZER, severity=ERROR)
    elif theirs is None and isinstance(mine, str) and mine in jsonio.data("sidefiles/tokenizers.json")["internal"]:
        message = f"tokenizer_class is {mine}, which transformers 4 does not have. Name the class of the model family."
        yield Found(message, file=TOKENIZER)


_EXTRA = ("additional_special_tokens", "extra_special_tokens")


def _special(document: Any) -> set[str]:
    """The special tokens a tokenizer_config.json or special_tokens_map.json names."""
    found: set[str] = set()
    if not isinstance(document, dict):
        return found
    known = jsonio.data("sidefiles/tokenizers.json")["special"]
    values = [document.get(key) for key in known]
    for key in _EXTRA:
        value = document.get(key)
        values += value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    decoder = document.get("added_tokens_decoder")
    entries = decoder.values() if isinstance(decoder, dict) else ()
    values += [entry for entry in entries if isinstance(entry, dict) and entry.get("special") is True]
    for value in values:
        content = value.get("content") if isinstance(value, dict) else value
        found |= {content} if isinstance(content, str) else set()
    return found


@rule(
    "SD12",
    "changed-special-tokens",
    severity=WARNING,
    engines=("transformers", "vllm", "sglang"),
    scope=Scope(TOKENIZER, lambda side: TOKENIZER in side.checkpoint.files.sizes),
)
def changed_special_tokens(side: SideFiles) -> Iterator[Found]:
    """Special tokens of the source are lost, or stand in a form that other versions of transformers do not read.

    Why: a token that is no longer special is split into pieces and printed. transformers 4 wants a mapping under
    extra_special_tokens, 5 writes a list; of the old and the new key together one is dropped.
    Fix: copy the file from the source.
    Seen: huggingface/transformers PR 45566 and issue 47838; ml-explore/mlx-lm issue 661.
    """
    mine, theirs = side.mapping(TOKENIZER), side.original(TOKENIZER)
    lost = sorted(_special(theirs) - _special(mine) - _special(side.document("special_tokens_map.json")))
    if lost:
        shown = ", ".join(repr(token[:40]) for token in lost[:5])
        message = f"{len(lost):,} special tokens of the source are lost, such as {shown}; copy the source's file."
        yield Found(message, file=TOKENIZER, severity=ERROR)
    if isinstance(theirs, dict) and all(theirs.get(key) == mine.get(key) for key in _EXTRA):
        return
    if isinstance(mine.get("extra_special_tokens"), list):
        message = "extra_special_tokens is a list, on which transformers 4 stops. Write additional_special_tokens."
        yield Found(message, file=TOKENIZER)
    if mine.get("extra_special_tokens") and mine.get("additional_special_tokens"):
        message = "extra_special_tokens and additional_special_tokens are both given; one of them is dropped. Keep one."
        yield Found(message, file=TOKENIZER)


def _templates(read: Any, text: Any) -> dict[str, str]:
    """Chat templates by the place they stand in, the one libraries obey first."""
    found: dict[str, str] = {}
    jinja = text("chat_template.jinja")
    if isinstance(jinja, str):
        found["chat_template.jinja"] = jinja.strip()
    for name in ("chat_template.json", TOKENIZER):
        document = read(name)
        value = document.get("chat_template") if isinstance(document, dict) else None
        if isinstance(value, list):
            named = [row for row in value if isinstance(row, dict) and row.get("name") == "default"]
            value = named[0].get("template") if named else None
        if isinstance(value, str):
            found[name] = value.strip()
    return found


@rule("SD13", "conflicting-chat-template", severity=WARNING, engines=ENGINES)
def conflicting_chat_template(side: SideFiles) -> Iterator[Found]:
    """Two places hold different chat templates, or the one that counts is not the source's.

    Why: libraries disagree on which of them they obey, and a model answers badly to a prompt in another form.
    Fix: keep the source's template, in one place.
    Seen: NVIDIA/Model-Optimizer PR 2060; hiyouga/LlamaFactory issue 8399.
    """
    mine = _templates(side.document, side.text)
    theirs = _templates(side.original, side.source_text)
    if len(set(mine.values())) > 1 and mine != theirs:
        message = f"{' and '.join(mine)} hold different chat templates; keep one."
        yield Found(message, file=next(iter(mine)))
    if theirs and next(iter(mine.values()), None) != next(iter(theirs.values())):
        place = next(iter(mine), next(iter(theirs)))
        told = "is not the source's" if mine else "of the source is missing"
        yield Found(f"The chat template {told}; copy {next(iter(theirs))}.", file=place, severity=ERROR)


@rule("SD14", "disagreeing-stop-token", severity=WARNING, engines=ENGINES)
def disagreeing_stop_token(side: SideFiles) -> Iterator[Found]:
    """The tokenizer's end-of-text token is not among the stop tokens that servers use.

    Why: servers stop at the tokens of generation_config.json, or else of config.json; the tokenizer's own, which
    chats end with, is then an ordinary token and the answer goes on.
    Fix: add its number to eos_token_id in generation_config.json, or copy the source's files.
    Seen: JustVugg/colibri issue 1478; QwenLM/Qwen3 issue 1422.
    """
    if side.source is not None and all(side.original(n) == side.document(n) for n in (TOKENIZER, GENERATION)):
        return
    token = side.mapping(TOKENIZER).get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    number = _number_of(side, token) if isinstance(token, str) else None
    stops = _ids(side.mapping(GENERATION).get("eos_token_id"))
    place = GENERATION if stops else CONFIG
    config = side.checkpoint.config
    stops = stops or _ids(config.get("eos_token_id")) or _ids(text_config(side.checkpoint).get("eos_token_id"))
    if number is not None and stops and number not in stops:
        shown = ", ".join(map(str, stops[:8]))
        message = f"The tokenizer ends with token {number:,}, {place} stops at {shown}. Add it to eos_token_id."
        yield Found(message, file=place)


def _number_of(side: SideFiles, token: str) -> int | None:
    """The number of an added token."""
    decoder = side.mapping(TOKENIZER).get("added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(entry, dict) and entry.get("content") == token and key.isdigit() and len(key) < 12:
            return int(key)
    added = side.document("added_tokens.json")
    value = added.get(token) if isinstance(added, dict) else None
    if type(value) is int:
        return value
    rows = side.mapping("tokenizer.json").get("added_tokens")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("content") == token and type(row.get("id")) is int:
            return int(row["id"])
    return None
