"""Everything a card prints, computed from files: headers, configuration, recipe, records, licence, card.toml.

`card_context` is a function of what lies on disk; the same files give the same context and so the same card. A fact
nobody recorded is left out, never printed blank and never guessed. Refused: a source whose Hub id nobody names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publisher import __version__, jsonio, licence
from publisher.card import architecture, benchmarks, formats, headers, limitations, metadata, record, serving
from publisher.card.person import part
from publisher.card.person import read_person as read_person
from publisher.card.upstream import HUB_ID, Upstream, read_upstream
from publisher.card.value import Row, Value, count, large, shape, size
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.source import Source
from publisher.errors import PublisherError
from publisher.plan.model import Plan, TargetSpec

MAX_ROWS = 80  # of a table; what is beyond is counted
MAX_EXCLUDE = 200


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a heading; `more` counts the rows that are not printed."""

    head: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    more: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduce:
    """How to make it again: commands, and the recipe without this machine's paths."""

    commands: tuple[str, ...]
    recipe: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardContext:
    """What the templates print; every text is a stranger's until the renderer has escaped it.

    Args:
        metadata: the front matter, in order.
        format: nvfp4, mxfp4 or another name; it chooses the template.
        title: heading of the card.
        summary: for the first sentence: `engines` that load it, `activations` as the declaration has them.
        upstream: the model under it.
        affiliation: who made it and who did not.
        answers: the first questions of users, answered.
        glance: the table of the whole.
        coverage: one row per class of modules.
        exclude: the exclude list as written.
        keys: what one quantized linear layer is stored as; None where nothing is quantized.
        example: that layer's name.
        recipe: who quantized, how, on what.
        validation: what the rules found; None where they did not run.
        evaluation: weight-only perplexity; None where it was not measured.
        benchmarks: scores beside those of baselines; None where card.toml names no results.
        commands: per engine.
        refusals: engines that do not load it, and why.
        hardware: per family of GPUs.
        table_sources: where the tables of engines and hardware come from.
        limitations: what not to expect.
        licence: upstream's terms.
        person: card.toml.
        gated: auto, manual or off.
        reproduce: commands.
        citation: BibTeX blocks.
        tool: this program and its version.
    """

    metadata: Mapping[str, Any]
    format: str
    title: str
    summary: Mapping[str, str]
    upstream: Upstream
    affiliation: str
    answers: tuple[Row, ...]
    glance: tuple[Row, ...]
    coverage: Table
    exclude: tuple[str, ...]
    exclude_more: int
    exclude_origin: str
    keys: Table | None
    example: str
    recipe: tuple[Row, ...]
    validation: record.Validation | None
    evaluation: record.Perplexity | None
    benchmarks: benchmarks.Benchmarks | None
    commands: tuple[serving.Command, ...]
    refusals: tuple[tuple[str, str], ...]
    hardware: tuple[serving.Hardware, ...]
    table_sources: tuple[str, str]
    limitations: tuple[Value, ...]
    licence: licence.Licence
    person: Mapping[str, Any]
    gated: str
    reproduce: Reproduce
    citation: tuple[str, ...]
    tool: str


def card_context(
    *,
    checkpoint: Checkpoint,
    original: Checkpoint,
    source: Source,
    plan: Plan | None = None,
    report: Mapping[str, Any] | None = None,
    quantize: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    person: Mapping[str, Any] | None = None,
    target: TargetSpec | None = None,
) -> CardContext:
    """Compute a card.

    Args:
        checkpoint: the result.
        original: the source, opened.
        source: where it was read.
        plan: None for a checkpoint made elsewhere.
        report: the rules' report as `Report.to_json` gives it.
        quantize: the engine's record, `<checkpoint>.quantize.json`.
        evaluation: what the evaluation measured, `evaluation.json`.
        person: card.toml, parsed by `read_person`.
        target: repository and gate; None where nothing is published.

    Raises:
        PublisherError: nothing says which Hub model the source is.
        CheckpointError: a file of terms cannot be read.
    """
    person, made = person or {}, quantize or {}
    upstream = read_upstream(source, original, person)
    commit = source.commit if source.repo == upstream.repo.text else None
    terms = licence.read(source.files, repo=upstream.repo.text, commit=commit)
    repo = _repo(target)
    title = (repo or upstream.repo.text).rpartition("/")[2]
    if repo is None:
        title += f"-{formats.format_name(checkpoint)}"
    found = serving.commands(checkpoint, repo or f"./{title}", person)
    measured = record.perplexity(evaluation)
    scored = benchmarks.benchmarks(
        part(person, "evaluation"),
        title=title,
        task=upstream.task or metadata.TASK,
        format_name=formats.format_name(checkpoint),
    )
    checked = record.validation(report, made)
    chips = serving.hardware(checkpoint)
    rows = headers.coverage(checkpoint)
    keys = headers.stored_keys(checkpoint)
    gate = target.gate if target is not None else "off"
    quant = checkpoint.quant
    ignore = quant.ignore if quant is not None else ()
    return CardContext(
        metadata=metadata.front_matter(
            checkpoint=checkpoint,
            upstream=upstream,
            licence=terms,
            person=person,
            gate=gate,
            title=title,
            engines=tuple(command.engine for command in found),
            index=scored.index if scored is not None else (),
        ),
        format=(quant.format if quant is not None else None) or "other",
        title=title,
        summary=_summary(checkpoint, found),
        upstream=upstream,
        affiliation=_affiliation(upstream, person),
        answers=tuple(_answers(checkpoint, found, chips[0] if chips else None, (measured, scored), checked)),
        glance=tuple(_glance(checkpoint, upstream, terms)),
        coverage=_coverage(checkpoint, rows),
        exclude=tuple(ignore[:MAX_EXCLUDE]),
        exclude_more=max(len(ignore) - MAX_EXCLUDE, 0),
        exclude_origin=quant.origin if quant is not None else "",
        keys=_keys(keys[1]) if keys else None,
        example=keys[0] if keys else "",
        recipe=record.recipe_rows(checkpoint, plan, made),
        validation=checked,
        evaluation=measured,
        benchmarks=scored,
        commands=found,
        refusals=serving.refusals(checkpoint),
        hardware=chips[1] if chips else (),
        table_sources=serving.sources(checkpoint),
        limitations=limitations.limitations(checkpoint, plan, measured, found, rows, scored=scored is not None),
        licence=terms,
        person=person,
        gated=gate,
        reproduce=_reproduce(plan, upstream, repo),
        citation=tuple(_citation(upstream, person)),
        tool=f"fp4-publisher {__version__}",
    )


def _repo(target: TargetSpec | None) -> str | None:
    if target is None or not target.repo:
        return None
    if not HUB_ID.fullmatch(target.repo):
        raise PublisherError(f"{target.repo[:200]!r} is no repository name.", hint="Write it as org/name.")
    return target.repo


def _summary(checkpoint: Checkpoint, commands: tuple[serving.Command, ...]) -> dict[str, str]:
    quant = checkpoint.quant
    names = list(dict.fromkeys(command.engine for command in commands))
    joined = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""
    verb = "read" if len(names) > 1 else "reads"
    return {
        "engines": f"{joined} {verb}" if joined else "",
        "activations": (quant.activations if quant is not None else None) or "",
    }


def _affiliation(upstream: Upstream, person: Mapping[str, Any]) -> str:
    who = part(person, "publisher")
    name, owner = who.get("name"), upstream.repo.text.partition("/")[0]
    made = f"Quantized and published by {name}." if name else "A third party's quantization."
    return f"{made} {who.get('affiliation') or f'Neither {owner} nor the makers of the tools made or endorse it.'}"


def _answers(
    checkpoint: Checkpoint,
    commands: tuple[serving.Command, ...],
    chips: str | None,
    measured: tuple[record.Perplexity | None, benchmarks.Benchmarks | None],
    checked: record.Validation | None,
) -> Iterator[Row]:
    engines = "; ".join(
        f"{c.engine} {c.version} ({'verified: ' + c.verified if c.verified else 'untested by the publisher'})"
        for c in commands
    )
    yield Row("Which engine, which version?", Value(engines or "none known to load it", serving.TABLE))
    if checkpoint.quant is not None:
        yield Row("Is the KV cache quantized?", Value(formats.kv_text(checkpoint), checkpoint.quant.origin))
    if chips:
        yield Row("Which GPUs?", Value(chips, serving.HARDWARE))
    perplexity, scored = measured
    told = [scored.summary.text] if scored is not None else []
    if perplexity is not None:
        told.append(f"weight-only perplexity {perplexity.result}, source {perplexity.source} ({perplexity.change})")
    accuracy = "; ".join(told) or "not evaluated"
    error = next((row.value.text for row in checked.rows if row.label == "Weight error"), None) if checked else None
    yield Row(
        "How accurate is it?",
        Value(
            f"{accuracy}; weight error {error}" if error else accuracy,
            scored.summary.origin if scored else record.EVALUATION,
        ),
    )


def _glance(checkpoint: Checkpoint, upstream: Upstream, terms: licence.Licence) -> Iterator[Row]:
    yield from architecture.architecture_rows(checkpoint.config)
    total, packed = headers.logical_parameters(checkpoint)
    if total:
        share = f", {packed / total:.1%} of them quantized" if packed else ""
        yield Row("Parameters", Value(f"{large(total)} ({count(total)}){share}", "shard headers"))
    yield from formats.format_rows(checkpoint)
    stored = checkpoint.tensor_bytes
    files = {name: header.file_size for name, header in checkpoint.shards.items()}
    if files:
        most = max(files.values())
        several = f" in {count(len(files))} shards, the largest {size(most)}" if len(files) > 1 else " in one shard"
        yield Row("Storage", Value(f"{size(stored)}{several}", "shard headers"))
    if stored and total and upstream.size:
        text = f"{stored / upstream.size:.1%} of the source's {size(upstream.size)}"
        bits = f"{8 * stored / total:.2f} bits per parameter"
        yield Row("Compared with the source", Value(f"{text}; {bits}", "shard headers of both"))
    yield Row("Source weights", Value(upstream.dtype, "source shard headers"))
    yield Row("Licence", Value(terms.title, "upstream card and licence file"))


def _coverage(checkpoint: Checkpoint, rows: tuple[headers.CoverageRow, ...]) -> Table:
    cells: list[tuple[Value, ...]] = []
    for row in rows[:MAX_ROWS]:
        cells.append(
            (
                Value("quantized" if row.quantized else "kept", "shard headers"),
                Value(row.pattern, "shard headers", code=True),
                Value(count(row.modules), "shard headers"),
                Value(row.layers or "–", "shard headers"),
                Value(f"FP4 in {row.dtype}" if row.quantized and row.dtype == "U8" else row.dtype, "shard headers"),
                Value(shape(row.shape) if row.shape else "differs", "shard headers"),
                Value(_listed(row), "exclude list and shard headers"),
            )
        )
    rest = headers.other_tensors(checkpoint)
    if rest:
        kinds = ", ".join(sorted({ref.dtype for ref in rest}))
        name, listed = "all other tensors (norms and the like)", "no weight matrix"
        told = ("kept", name, count(len(rest)), "–", kinds, "differs", listed)
        cells.append(tuple(Value(text, "shard headers") for text in told))
    head = ("Stored", "Modules", "Count", "Layers", "Dtype", "Shape (out × in)", "Exclude list")
    return Table(head, tuple(cells), max(len(rows) - MAX_ROWS, 0))


def _listed(row: headers.CoverageRow) -> str:
    if row.quantized:
        return "–"
    if row.listed is None:
        return "cannot be read"
    if row.listed == row.modules:
        return "named"
    if not row.listed:
        return "not a linear layer" if row.role in headers.NOT_LINEAR else "not named"
    return f"{count(row.listed)} of {count(row.modules)} named"


def _keys(keys: tuple[headers.StoredKey, ...]) -> Table:
    meanings = jsonio.data("card/keys.json")["meanings"]
    rows = tuple(
        (
            Value(key.suffix, "shard headers", code=True),
            Value(key.dtype, "shard headers", code=True),
            Value(shape(key.shape), "shard headers"),
            Value(meanings.get(key.suffix, "as in the source"), "card/keys.json"),
        )
        for key in keys
    )
    return Table(("Tensor", "Dtype", "Shape", "What it holds"), rows)


def _reproduce(plan: Plan | None, upstream: Upstream, repo: str | None) -> Reproduce:
    verify = (f"publisher verify hf://{repo}",) if repo else ()
    if plan is None:
        made = f"publisher push --checkpoint ./checkpoint --source hf://{upstream.repo.text}"
        return Reproduce(commands=(made + (f" --repo {repo}" if repo else ""), *verify), recipe=None)
    return Reproduce(commands=("publisher push recipe.yaml", *verify), recipe=_recipe(plan, upstream))


def _recipe(plan: Plan, upstream: Upstream) -> str:
    """The recipe as it was run; paths lose their folders, a Hub source is named with its commit."""
    body = plan.recipe.to_json()
    body["source"] = f"hf://{upstream.repo.text}@{upstream.commit}" if upstream.commit else "./source"
    for key in ("calibration", "evaluation"):
        if isinstance(body.get(key), dict) and "data" in body[key]:
            body[key] = {**body[key], "data": "./" + str(body[key]["data"]).rpartition("/")[2]}
    if "card" in body:
        body["card"] = "./" + str(body["card"]).rpartition("/")[2]
    remark = "# The source was a local folder: put it, and the files named here, beside this recipe.\n"
    return ("" if upstream.commit else remark) + jsonio.dump_yaml(body)


def _citation(upstream: Upstream, person: Mapping[str, Any]) -> Iterator[str]:
    if upstream.bibtex:
        yield upstream.bibtex
    own = part(person, "citation").get("bibtex")
    if own:
        yield str(own)
