"""Configuration that a card quotes, against the files, against its own words, and against what the exporter writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.claims.document import Block, Document, Sentence
from publisher.claims.facts import CONFIG, Facts
from publisher.claims.finding import STATEMENT, Doubt, doubt
from publisher.errors import PublisherError
from publisher.findings import ERROR, WARNING

MAX_BLOCK = 64 << 10  # characters of an excerpt that is parsed
MAX_PLACES = 5  # of one excerpt that are told
_LANGUAGES = ("json", "jsonc", "yaml", "yml", "")
_HOLDS = ("quant_method", "quant_algo", "global_quant_config", "config_groups", "kv_cache_quant_algo")
_WHOLE = {"global_quant_config", "exclude", "export"}  # keys of a Quark block that is quoted as a whole
_DEFAULT = re.compile(
    r"(?P<since>\d{1,3}(?:\.\d{1,3}){1,3})\s?\+[^.]{0,40}?\bchange[sd]? (?:the )?(?P<key>[a-z]\w{2,40}) defaults?"
    r"[^.\w]{1,8}(?:to )?(?P<value>[a-z]\w{1,40})"
)


def judge(document: Document, facts: Facts) -> Iterator[Doubt]:
    """Quoted configuration that is not the file's, that no exporter writes, or that the card's words contradict."""
    found = [(block, config) for block in document.blocks if (config := _config(block)) is not None]
    for block, config in found:
        yield from _against_files(block, config, facts)
        yield from _by_hand(block, config)
    quoted = [(config, f"the card's own excerpt in line {block.line}") for block, config in found]
    for sentence in document.sentences:
        yield from _defaults(sentence, [*quoted, *_declared(facts)])


def _config(block: Block) -> Mapping[str, Any] | None:
    """The quantization config that a block of code holds; None where it holds none or cannot be read."""
    if block.language not in _LANGUAGES or len(block.text) > MAX_BLOCK or not any(key in block.text for key in _HOLDS):
        return None
    try:
        if block.text.lstrip().startswith(("{", '"')):
            text = block.text.strip().rstrip(",")
            value = jsonio.loads_json(text if text.startswith("{") else "{" + text + "}", "the excerpt")
        else:
            value = jsonio.loads_yaml(block.text, "the excerpt")
    except (PublisherError, RecursionError):
        return None
    for key in ("quantization_config", "quantization"):
        inner = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(inner, Mapping):
            value = inner
    return value if isinstance(value, Mapping) and any(key in value for key in _HOLDS) else None


def _declared(facts: Facts) -> list[tuple[Mapping[str, Any], str]]:
    return [(d.body, d.origin) for d in facts.checkpoint.declarations]


def _against_files(block: Block, config: Mapping[str, Any], facts: Facts) -> Iterator[Doubt]:
    """What the excerpt says and every declaration of the files says otherwise."""
    choices = [(list(_different(config, body)), origin) for body, origin in _declared(facts)]
    if not choices:
        return
    places, origin = min(choices, key=lambda choice: len(choice[0]))
    method = config.get("quant_method")
    if method is not None and facts.quant is not None and facts.quant.raw.get("quant_method") not in (None, method):
        fact = f"{CONFIG} has {_short(facts.quant.raw.get('quant_method'))}"
        yield doubt(STATEMENT, block.line, f"quant_method: {_short(method)}", fact, "Quote the file as it is")
        return
    for path, said, stored in places[:MAX_PLACES]:
        fact = f"{origin} has {_short(stored)}" if stored is not _MISSING else f"{origin} has no such key"
        yield doubt(STATEMENT, block.line, f"{path}: {_short(said)}", fact, "Quote the file as it is")


_MISSING = object()


def _different(said: Any, stored: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any, Any]]:
    """Paths of the excerpt whose value the file does not have; what the excerpt leaves out is no difference."""
    if isinstance(said, Mapping) and isinstance(stored, Mapping) and depth < 8:
        for key, value in said.items():
            yield from _different(value, stored.get(key, _MISSING), f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(said, list) and isinstance(stored, list):
        if not all(any(one == other for other in stored) for one in said[:1000]):
            yield path, said, stored
    elif said != stored and not (said is None and stored is _MISSING):
        yield path, said, stored


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _by_hand(block: Block, config: Mapping[str, Any]) -> Iterator[Doubt]:
    """A Quark block quoted as a whole that Quark does not write so."""
    if config.get("quant_method") != "quark":
        return
    exclude = config.get("exclude")
    patterns = (
        [item for item in exclude if isinstance(item, str) and item.startswith("re:")]
        if isinstance(exclude, list)
        else []
    )
    if patterns:
        fact = "Quark's own matcher knows globs and its exporter writes full module names, so these were added by hand"
        step = "Say so, and prove the coverage from the tensors"
        yield doubt(STATEMENT, block.line, f"exclude: {_short(patterns[0])}", fact, step, WARNING)
    if config.keys() >= _WHOLE:
        lacking = jsonio.problems(dict(config), "quark-export")
        if lacking:
            fact = f"vLLM and SGLang stop on such a block: {'; '.join(lacking[:3])[:300]}"
            yield doubt(STATEMENT, block.line, "quant_method: quark", fact, "Quote the whole block", WARNING)


def _defaults(sentence: Sentence, configs: list[tuple[Mapping[str, Any], str]]) -> Iterator[Doubt]:
    """`0.12+ changes pack_method defaults (to reorder)` beside a config of an older version that has that value."""
    match = _DEFAULT.search(sentence.whole)
    if match is None:
        return
    key, value = match.group("key"), match.group("value")
    for config, where in configs:
        version = re.match(r"v?(\d{1,4}(?:\.\d{1,4})*)", str(config.get("version", "")))
        older = version is not None and _number(version.group(1)) < _number(match.group("since"))
        if older and value in _values(config, key):
            fact = f"{where}, of version {str(config.get('version'))[:30]}, already has {key}: {value}"
            yield doubt(
                STATEMENT, sentence.line, sentence.whole, fact, "Remove the warning, or say what really changed", ERROR
            )
            return


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _values(config: Mapping[str, Any], key: str) -> set[str]:
    found = {str(config[key])} if isinstance(config.get(key), str) else set()
    for inner in config.values():
        if isinstance(inner, Mapping) and isinstance(inner.get(key), str):
            found.add(inner[key])
    return found
