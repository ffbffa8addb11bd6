"""Who published a checkpoint, when, in which state, and what it takes in and gives out: rows of words and of files.

A person's words come from card.toml; what a model reads is its configuration's to say. The statement on affiliation
has a default, because a checkpoint must never pass for its maker's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from publisher.card import architecture, serving
from publisher.card.person import entries, part
from publisher.card.upstream import Upstream
from publisher.card.value import Row, Value, count
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.parallel import text_config

CARD = "card.toml"


def affiliation(upstream: Upstream, person: Mapping[str, Any]) -> str:
    """Who made it and who did not."""
    who = part(person, "publisher")
    name, owner = who.get("name"), upstream.repo.text.partition("/")[0]
    made = f"Quantized and published by {name}." if name else "A third party's quantization."
    return f"{made} {who.get('affiliation') or f'Neither {owner} nor the makers of the tools made or endorse it.'}"


def version_rows(title: str, person: Mapping[str, Any]) -> tuple[Row, ...]:
    """State, version, publisher, successor."""
    found = [Row("Checkpoint", Value(title, "repository"))]
    for key, label in (("version", "Version"), ("status", "Status")):
        if person.get(key):
            found.append(Row(label, Value(str(person[key]), f"{CARD}: {key}")))
    who = part(person, "publisher").get("name")
    if who:
        found.append(Row("Developers", Value(str(who), f"{CARD}: publisher.name")))
    if person.get("released"):
        found.append(Row("Release date", Value(str(person["released"]), f"{CARD}: released")))
    newer = person.get("new_version")
    if newer:
        link = f"https://huggingface.co/{newer}"
        found.append(Row("Replaced by", Value(str(newer), f"{CARD}: new_version", link=link)))
    return tuple(found)


def link_rows(person: Mapping[str, Any]) -> tuple[Row, ...]:
    """Where else it is available."""
    return tuple(
        Row("Also at", Value(str(entry["text"]), f"{CARD}: links", link=str(entry["url"])))
        for entry in entries(person, "links")
        if isinstance(entry, Mapping)
    )


def one_row(person: Mapping[str, Any], key: str, label: str) -> tuple[Row, ...]:
    """A line of card.toml as a row; none where it is not there."""
    return (Row(label, Value(str(person[key]), f"{CARD}: {key}")),) if person.get(key) else ()


def input_rows(checkpoint: Checkpoint) -> tuple[Row, ...]:
    """What the model reads."""
    images = architecture.has_vision(checkpoint.config)
    kinds, forms = ("Text, images", "Strings, images") if images else ("Text", "Strings")
    return (
        Row("Input types", Value(kinds, "config.json: vision_config")),
        Row("Input formats", Value(forms, "config.json: vision_config")),
        *_length(checkpoint, "Input parameters"),
    )


def output_rows() -> tuple[Row, ...]:
    """What it gives."""
    return (Row("Output types", Value("Text", "config.json")), Row("Output formats", Value("Strings", "config.json")))


def software_rows(
    commands: tuple[serving.Command, ...], chips: tuple[serving.Hardware, ...], refused: tuple[tuple[str, str], ...]
) -> tuple[Row, ...]:
    """Engines and GPUs in one line each."""
    return tuple(_software(commands, chips, refused))


def _software(
    commands: tuple[serving.Command, ...], chips: tuple[serving.Hardware, ...], refused: tuple[tuple[str, str], ...]
) -> Iterator[Row]:
    engines = [f"{command.engine} {command.version}" for command in commands]
    yield Row("Inference engines", Value(", ".join(engines) or "none known to load it", serving.TABLE))
    if refused:
        yield Row("Known not to load it", Value(", ".join(name for name, _ in refused), serving.TABLE))
    for support in ("native", "fallback", "loads", "emulated"):
        told = [chip.gpus for chip in chips if chip.support == support]
        if told:
            yield Row(f"GPUs, {support}", Value("; ".join(told), serving.HARDWARE))
    yield Row("Operating system", Value("Linux", serving.TABLE))


def _length(checkpoint: Checkpoint, label: str) -> Iterator[Row]:
    length = text_config(checkpoint).get("max_position_embeddings")
    if type(length) is int and length > 0:
        text = f"one-dimensional; context of {count(length)} tokens"
        yield Row(label, Value(text, "config.json: max_position_embeddings"))
