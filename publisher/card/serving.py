"""Which engines load a checkpoint, with which command, and on which GPUs: read from tables, never run here.

A command is put together from the engine's own words, the size its weights must be split into (an estimate), the
parsers of the model's family and what a person adds. Every command says `untested by the publisher` unless card.toml
says who tried it, when and on what; the tables carry their own sources and dates, which the card prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.card import memory
from publisher.card.metadata import custom_code
from publisher.card.person import entries, part
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.parallel import experts_of, text_config
from publisher.verdict import LABELS

TABLE, HARDWARE, FAMILIES = "engines/serving.json", "card/hardware.json", "engines/families.json"
_KEYS = {label: key for key, label in LABELS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How one engine serves the checkpoint.

    Args:
        engine: its name.
        version: from which version on, or which version was read.
        lines: the command, one argument group a line.
        verified: the person's words for where it was tried; None says untested.
        note: what else to know, None where nothing.
        tried: the command a person really ran, where they say so.
    """

    engine: str
    version: str
    lines: tuple[str, ...]
    verified: str | None
    note: str | None
    tried: str | None = None

    @property
    def text(self) -> str:
        """The command as it is typed."""
        return " \\\n    ".join(self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What one family of GPUs does with a format: `support` is native, fallback, emulated or not known."""

    gpus: str
    support: str
    note: str


def commands(
    checkpoint: Checkpoint, model: str, person: Mapping[str, Any], *, base_model: str = ""
) -> tuple[Command, ...]:
    """One command per engine that loads this layout of this format with these activations."""
    quant, table = checkpoint.quant, jsonio.data(TABLE)
    if quant is None:
        return ()
    sizes, family = memory.splits(checkpoint), _family(checkpoint, base_model)
    found = []
    for row in table["engines"]:
        if (row["layout"], row["format"]) != (quant.dialect, quant.format):
            continue
        if quant.activations is not None and quant.activations not in row["activations"]:
            continue
        if checkpoint.config.get("model_type") in row.get("not_models", ()):
            continue
        engine = row["engine"]
        size = memory.smallest(checkpoint, _KEYS.get(engine, engine), sizes)
        tried = _tried(person, engine)
        found.append(
            Command(
                engine=engine,
                version=row["version"],
                lines=tuple(_lines(row, checkpoint, model, size, family.get(engine, {}), person)),
                verified=_verified(person, engine, tried),
                note=" ".join(_notes(row, checkpoint)) or None,
                tried=next((str(entry["command"]) for entry in tried if entry.get("command")), None),
            )
        )
    return tuple(found)


def refusals(checkpoint: Checkpoint, report: Mapping[str, Any] | None = None) -> tuple[tuple[str, str], ...]:
    """Engines known not to load this layout of this format, each with why; those of the rules' verdicts too."""
    quant = checkpoint.quant
    if quant is None:
        return ()
    found = {
        row["engine"]: str(row["why"])
        for row in jsonio.data(TABLE)["refuses"]
        if (row["layout"], row["format"]) == (quant.dialect, quant.format)
        and checkpoint.config.get("model_type") in row.get("models", [checkpoint.config.get("model_type")])
    }
    for verdict in _verdicts(report, "refuses"):
        name = f"{LABELS.get(verdict['engine'], verdict['engine'])} {verdict['version']}"
        because = ", ".join(str(code) for code in verdict.get("because", ()) if isinstance(code, str))
        reason = str(verdict.get("reason") or "") or (f"refused by {because}" if because else "")
        if reason and name.rpartition(" ")[0] not in found:
            found[name] = reason
    return tuple(found.items())


def unread(report: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """Versions of engines of which nobody knows what they make of the checkpoint, those with one reason together."""
    found: dict[str, list[str]] = {}
    for verdict in _verdicts(report, "unknown"):
        name = f"{LABELS.get(verdict['engine'], verdict['engine'])} {verdict['version']}"
        found.setdefault(str(verdict.get("reason") or "nobody looked"), []).append(name)
    return tuple((", ".join(names), reason) for reason, names in found.items())


def hardware(checkpoint: Checkpoint) -> tuple[str, tuple[Hardware, ...]] | None:
    """One sentence and the rows for this format; None for a format the table does not know."""
    quant = checkpoint.quant
    entry = jsonio.data(HARDWARE)["formats"].get(quant.format if quant is not None else None)
    if quant is None or entry is None:
        return None
    kind = "weight_only" if quant.activations == "none" else "full"
    return entry[kind]["short"], tuple(Hardware(**row) for row in entry[kind]["rows"])


def sources(checkpoint: Checkpoint) -> tuple[str, str]:
    """Where the tables' facts come from: engines, hardware of this format."""
    table, chips = jsonio.data(TABLE), jsonio.data(HARDWARE)
    quant = checkpoint.quant
    entry = chips["formats"].get(quant.format if quant is not None else None) or chips
    return f"{table['source']} ({table['date']})", f"{entry['source']} ({chips['date']})"


def family_source(checkpoint: Checkpoint, base_model: str) -> str:
    """Where the parsers of the model's family come from; empty where no family is known."""
    family, table = _family(checkpoint, base_model), jsonio.data(FAMILIES)
    return f"{family['name']}: {table['source']} ({table['date']})" if family else ""


# --- the command ---------------------------------------------------------------------------------------------------


def _lines(
    row: Mapping[str, Any],
    checkpoint: Checkpoint,
    model: str,
    size: int | None,
    family: Mapping[str, Any],
    person: Mapping[str, Any],
) -> Iterator[str]:
    quant, options = checkpoint.quant, jsonio.data(TABLE)["options"].get(row["engine"], {})
    own = tuple(str(flag) for flag in part(part(person, "serving"), "flags").get(row["engine"], ()))
    environment = f"{family['env']} " if "env" in family else ""
    yield environment + row["command"].format(model=model)
    wanted = []
    if size is not None and size > 1 and "split" in options:
        wanted.append(options["split"].format(size=size))
    if quant is not None and (quant.kv_cache or "").startswith("fp8") and "kv_fp8" in row:
        wanted.append(row["kv_fp8"])
    if custom_code(checkpoint.config):
        wanted.append(row["trust"])
    wanted += [options[kind].format(parser=family[kind]) for kind in ("tools", "reasoning") if kind in family]
    wanted += family.get("more", ())
    named = {re.split(r"[ =]", flag, maxsplit=1)[0] for flag in own}
    yield from (flag for flag in wanted if not named & set(flag.split()))
    yield from own


def _notes(row: Mapping[str, Any], checkpoint: Checkpoint) -> Iterator[str]:
    if "note" in row:
        yield row["note"]
    if experts_of(checkpoint):
        for more in jsonio.data(TABLE)["experts"]:
            if (more["engine"], more["format"]) == (row["engine"], row["format"]):
                yield more["note"]


def _family(checkpoint: Checkpoint, base_model: str) -> Mapping[str, Any]:
    """The first family whose kind of model and name fit; empty where none is known."""
    kinds = {checkpoint.config.get("model_type"), text_config(checkpoint).get("model_type")}
    found: Mapping[str, Any] = next(
        (
            row
            for row in jsonio.data(FAMILIES)["families"]
            if any(kind in kinds for kind in row["model_types"]) and re.search(row.get("repo", ""), base_model)
        ),
        {},
    )
    return found


# --- what a person tried -------------------------------------------------------------------------------------------


def _tried(person: Mapping[str, Any], engine: str) -> list[Mapping[str, Any]]:
    return [x for x in entries(person, "verified") if isinstance(x, Mapping) and x.get("engine") == engine]


def _verified(person: Mapping[str, Any], engine: str, tried: list[Mapping[str, Any]]) -> str | None:
    told = [_told(entry) for entry in tried]
    told += _named(engine, tuple(str(line) for line in part(person, "serving").get("verified", ())))
    return "; ".join(told) or None


def _told(entry: Mapping[str, Any]) -> str:
    """Engine, version and hardware, then by whom and when: what makes a claim one that can be asked about."""
    words = f"{entry['engine']} {entry['version']}" if entry.get("version") else str(entry["engine"])
    words += f" on {entry['hardware']}"
    words += f", {entry['container']}" if entry.get("container") else ""
    words += f", by {entry['by']}" if entry.get("by") else ""
    words += f", {entry['date']}" if entry.get("date") else ""
    return words + (f" ({entry['note']})" if entry.get("note") else "")


def _named(engine: str, verified: tuple[str, ...]) -> list[str]:
    """The person's lines that name an engine as a word of its own."""
    pattern = re.compile(rf"(?<![\w-]){re.escape(engine)}(?![\w-])", re.IGNORECASE)
    return [line for line in verified if pattern.search(line)]


def _verdicts(report: Mapping[str, Any] | None, kind: str) -> Iterator[Mapping[str, Any]]:
    verdicts = (report or {}).get("engines")
    for verdict in verdicts if isinstance(verdicts, list) else ():
        named = isinstance(verdict, Mapping) and all(isinstance(verdict.get(key), str) for key in ("engine", "version"))
        if named and verdict.get("verdict") == kind:
            yield verdict
