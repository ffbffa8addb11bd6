"""Everything a card prints, computed from files: headers, configuration, recipe, records, licence, card.toml.

`card_context` is a function of what lies on disk; the same files give the same context and so the same card. A fact
nobody recorded is left out, never printed blank and never guessed. Refused: a source whose Hub id nobody names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publisher import __version__, licence
from publisher.card import (
    architecture,
    benchmarks,
    calibration,
    environment,
    formats,
    glance,
    headers,
    identity,
    images,
    limitations,
    memory,
    metadata,
    record,
    serving,
    sparsity,
)
from publisher.card.answers import answers
from publisher.card.coverage import Exclude, coverage_table, exclude_list, keys_table
from publisher.card.person import part
from publisher.card.person import read_person as read_person
from publisher.card.reproduce import Reproduce, citation, reproduce
from publisher.card.sections import Section, sections
from publisher.card.upstream import HUB_ID, Upstream, read_upstream
from publisher.card.value import Row, Table, Value
from publisher.checkpoint.census import Census, take
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.source import Source
from publisher.errors import PublisherError
from publisher.plan.model import Plan, TargetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CardContext:
    """What the templates print; every text is a stranger's until the renderer has escaped it.

    Args:
        metadata: the front matter, in order.
        format: nvfp4, mxfp4 or another name; the first sentence depends on it.
        title: heading of the card.
        summary: for the first sentence: `engines` that load it, `activations` as the declaration has them.
        sections: in the order that is printed.
        rows: groups of labelled facts that sections name.
        upstream: the model under it.
        affiliation: who made it and who did not.
        pictures: images that belong to the card.
        coverage: one row per class of modules.
        exclude: the exclude list; None where there is none.
        keys: what one quantized linear layer is stored as; None where nothing is quantized.
        example: that layer's name.
        validation: what the rules found; None where they did not run.
        evaluation: weight-only perplexity; None where it was not measured.
        benchmarks: scores beside those of baselines; None where card.toml names no results.
        commands: per engine.
        refusals: engines that do not load it, and why.
        unread: versions of engines of which nobody knows whether they load it, and why.
        memory: weights per GPU, an estimate.
        hardware: per family of GPUs.
        table_sources: where the tables of engines and hardware come from.
        family: the model's family and where its parsers come from; empty where none is known.
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
    sections: tuple[Section, ...]
    rows: Mapping[str, tuple[Row, ...]]
    upstream: Upstream
    affiliation: str
    pictures: tuple[images.Picture, ...]
    coverage: Table
    exclude: Exclude | None
    keys: Table | None
    example: str
    validation: record.Validation | None
    evaluation: record.Perplexity | None
    benchmarks: benchmarks.Benchmarks | None
    commands: tuple[serving.Command, ...]
    refusals: tuple[tuple[str, str], ...]
    unread: tuple[tuple[str, str], ...]
    memory: Table | None
    hardware: tuple[serving.Hardware, ...]
    table_sources: tuple[str, str]
    family: str
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
    order: str | None = None,
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
        order: of the sections; card.toml's, or our own, when None.

    Raises:
        PublisherError: nothing says which Hub model the source is.
        CheckpointError: a file of terms cannot be read.
    """
    person, made = person or {}, quantize or {}
    upstream = read_upstream(source, original, person)
    commit = source.commit if source.repo == upstream.repo.text else None
    terms = licence.read(source.files, repo=upstream.repo.text, commit=commit)
    repo = _repo(target)
    title = repo.rpartition("/")[2] if repo else f"{_last(upstream)}-{formats.format_name(checkpoint)}"
    found = serving.commands(checkpoint, repo or f"./{title}", person, base_model=upstream.repo.text)
    refused = serving.refusals(checkpoint, report)
    measured = record.perplexity(evaluation)
    scored = benchmarks.benchmarks(
        part(person, "evaluation"),
        title=title,
        task=upstream.task or metadata.TASK,
        format_name=formats.format_name(checkpoint),
    )
    checked = record.validation(report, made)
    chips = serving.hardware(checkpoint)
    covered = headers.coverage(checkpoint)
    keys = headers.stored_keys(checkpoint)
    census = take(checkpoint)
    gate = target.gate if target is not None else "off"
    quant = checkpoint.quant
    splits = memory.splits(checkpoint)
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
            sparse=sparsity.pattern_of(checkpoint, plan) is not None,
        ),
        format=(quant.format if quant is not None else None) or "other",
        title=title,
        summary=_summary(checkpoint, found, sparsity.pattern_of(checkpoint, plan)),
        sections=sections(person, order),
        rows={
            "answers": answers(checkpoint, found, chips[0] if chips else None, (measured, scored), checked),
            "architecture": architecture.architecture_rows(checkpoint.config),
            "parameters": glance.parameter_rows(checkpoint, census),
            "formats": formats.format_rows(checkpoint),
            "sparsity": sparsity.sparsity_rows(checkpoint, plan),
            "storage": glance.storage_rows(checkpoint, upstream),
            "licence": (Row("Licence", Value(terms.title, "upstream card and licence file")),),
            "source": _source_rows(upstream),
            "method": record.method_rows(checkpoint, plan, made),
            "calibration": calibration.calibration_rows(plan, made),
            "environment": environment.environment_rows(made),
            "energy": environment.energy_rows(made, person),
            "software": identity.software_rows(found, chips[1] if chips else (), refused),
            "version": identity.version_rows(title, person),
            "released": identity.one_row(person, "released", "Release date"),
            "geography": identity.one_row(person, "geography", "Deployment geography"),
            "links": identity.link_rows(person),
            "input": identity.input_rows(checkpoint),
            "output": identity.output_rows(),
            "cache": (row,) if (row := memory.cache_row(checkpoint)) is not None else (),
        },
        upstream=upstream,
        affiliation=identity.affiliation(upstream, person),
        pictures=_pictures(census, made, report),
        coverage=coverage_table(covered, checkpoint),
        exclude=exclude_list(checkpoint),
        keys=keys_table(keys[1]) if keys else None,
        example=keys[0] if keys else "",
        validation=checked,
        evaluation=measured,
        benchmarks=scored,
        commands=found,
        refusals=refused,
        unread=serving.unread(report),
        memory=memory.memory_table(checkpoint, splits),
        hardware=chips[1] if chips else (),
        table_sources=serving.sources(checkpoint),
        family=serving.family_source(checkpoint, upstream.repo.text) if found else "",
        limitations=limitations.limitations(checkpoint, plan, measured, found, covered, scored=scored is not None),
        licence=terms,
        person=person,
        gated=gate,
        reproduce=reproduce(plan, upstream, repo, target),
        citation=citation(upstream, person, repo),
        tool=f"fp4-publisher {__version__}",
    )


def _repo(target: TargetSpec | None) -> str | None:
    if target is None or not target.repo:
        return None
    if not HUB_ID.fullmatch(target.repo):
        raise PublisherError(f"{target.repo[:200]!r} is no repository name.", hint="Write it as org/name.")
    return target.repo


def _last(upstream: Upstream) -> str:
    return upstream.repo.text.rpartition("/")[2]


def _summary(checkpoint: Checkpoint, commands: tuple[serving.Command, ...], sparse: str | None) -> dict[str, str]:
    quant = checkpoint.quant
    names = list(dict.fromkeys(command.engine for command in commands))
    joined = " and ".join(piece for piece in (", ".join(names[:-1]), names[-1]) if piece) if names else ""
    verb = "read" if len(names) > 1 else "reads"
    return {
        "engines": f"{joined} {verb}" if joined else "",
        "activations": (quant.activations if quant is not None else None) or "",
        "sparsity": sparse or "",
    }


def _source_rows(upstream: Upstream) -> tuple[Row, ...]:
    link = f"https://huggingface.co/{upstream.repo.text}"
    found = [Row("Source", Value(upstream.repo.text, upstream.repo.origin, link=link))]
    if upstream.commit:
        found.append(Row("Source commit", Value(upstream.commit, "source", code=True)))
    if upstream.read_from:
        more = "" if upstream.commit else " (no commit to record)"
        found.append(Row("Read from", Value(f"{upstream.read_from}{more}", "source")))
    found.append(Row("Source weights", Value(upstream.dtype, "source shard headers")))
    return tuple(found)


def _pictures(census: Census, made: Mapping[str, Any], report: Mapping[str, Any] | None) -> tuple[images.Picture, ...]:
    """The engine's own errors, of every module; else those the rules measured against the source."""
    errors = record.module_errors(made) or record.measured_errors(report)
    return images.pictures(census, errors)
