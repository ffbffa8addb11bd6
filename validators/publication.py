"""LC: licence, card metadata and gate. What the Hub and the upstream licence ask of a publication."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.terms import terms_in
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import CARD, MANIFEST, Listing, Pair, Repository, Upstream

FIELD_TYPES = ("text", "checkbox", "date_picker", "country", "select")
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


@rule(
    "LC01",
    "changed-licence",
    severity=ERROR,
    scope=Scope("licence file in the source", lambda pair: bool(terms_in(pair.source.files.sizes))),
)
def changed_licence(pair: Pair) -> Iterator[Found]:
    """A licence, notice or use-policy file of the source is missing or changed.

    Why: upstream licences ask that their text travels with the weights, verbatim.
    Fix: copy the file from the source as bytes.
    Seen: exporters that save a model again write no LICENSE at all.
    """
    for name in terms_in(pair.source.files.sizes):
        if name not in pair.checkpoint.files.sizes:
            yield Found(f"{name} of the source is missing; copy it.", file=name)
        elif not pair.same(name):
            mine, theirs = pair.checkpoint.files.sizes[name], pair.source.files.sizes[name]
            message = f"{name} ({mine:,} bytes) is not the source's ({theirs:,} bytes) byte for byte; copy it again."
            yield Found(message, file=name)


@rule("LC02", "wrong-licence-metadata", severity=ERROR)
def wrong_licence_metadata(upstream: Upstream) -> Iterator[Found]:
    """The card's licence fields are not the source's, in the form the Hub accepts.

    Why: the Hub shows these fields, not the file; a licence it does not know must be `other` with a name and a link.
    Fix: write the source's identifier, or license: other with license_name and license_link.
    Seen: Kimi K2's Modified MIT, which the Hub's list does not hold.
    """
    if upstream.card.flaw:
        yield Found(f"{upstream.card.flaw.rstrip('.')}; write the card's metadata.", file=CARD)
        return
    mine, theirs = upstream.card.metadata, upstream.source_card.metadata
    known = set(jsonio.data("licences/hub.json")["identifiers"])
    declared, wanted = _identifiers(mine), _identifiers(theirs)
    if wanted and not ("other" in wanted or wanted - known):
        if declared != wanted:
            yield Found(f"license is {_said(declared)}, the source's is {_said(wanted)}; correct it.", file=CARD)
        return
    if wanted and declared != {"other"}:
        yield Found(
            f"license is {_said(declared)}; the source's {_said(wanted)} is published as license: other.", file=CARD
        )
    elif not declared or declared - known:
        yield Found(f"license is {_said(declared)}, which the Hub does not know; name one of its list.", file=CARD)
    if "other" in declared:
        yield from _other(upstream, theirs.get("license_name"))


def _identifiers(metadata: Mapping[str, Any]) -> set[str]:
    value = metadata.get("license")
    values = value if isinstance(value, list) else [value]
    return {item.strip().lower() for item in values if isinstance(item, str) and item.strip()}


def _said(identifiers: set[str]) -> str:
    return ", ".join(sorted(identifiers)) or "missing"


def _other(upstream: Upstream, wanted: Any) -> Iterator[Found]:
    """A licence outside the Hub's list needs a name and a place to read it."""
    name, link = upstream.card.metadata.get("license_name"), upstream.card.metadata.get("license_link")
    if not isinstance(name, str) or not name:
        yield Found("license is other and license_name is missing; write the licence's name.", file=CARD)
    elif isinstance(wanted, str) and _plain(name) != _plain(wanted):
        yield Found(f"license_name is {name!r}, the source's is {wanted!r}; correct it.", file=CARD)
    if not isinstance(link, str) or not link:
        yield Found("license is other and license_link is missing; write LICENSE.", file=CARD)
    elif "://" not in link and link not in upstream.checkpoint.files.sizes:
        yield Found(f"license_link names {link!r}, which is not in the repository; copy the file.", file=CARD)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.+]+", "-", name.lower()).strip("-")


@rule("LC03", "wrong-base-model", severity=ERROR)
def wrong_base_model(repository: Repository) -> Iterator[Found]:
    """The card does not name the source as base_model, with the relation quantized.

    Why: the Hub lists a quantization under its model through these fields, and a reader finds the original by them.
    Fix: write base_model: org/name of the source and base_model_relation: quantized.
    Seen: cards copied from upstream with their own base_model; a local path, which the Hub refuses.
    """
    if repository.card.flaw:
        yield Found(f"{repository.card.flaw.rstrip('.')}; write the card's metadata.", file=CARD)
        return
    value = repository.card.metadata.get("base_model")
    models = value if isinstance(value, list) else [value]
    if len(models) != 1 or not isinstance(models[0], str) or not _HUB_ID.fullmatch(models[0]):
        yield Found(f"base_model is {str(value)[:100]!r}; write the one org/name it was made from.", file=CARD)
    elif repository.base_model is not None and models[0].lower() != repository.base_model.lower():
        yield Found(f"base_model is {models[0]}, the source is {repository.base_model}; correct it.", file=CARD)
    relation = repository.card.metadata.get("base_model_relation")
    if relation != "quantized":
        yield Found(f"base_model_relation is {str(relation)[:40]!r}; write quantized.", file=CARD)


@rule("LC06", "bad-gate", severity=ERROR)
def bad_gate(repository: Repository) -> Iterator[Found]:
    """The gate's form is malformed, the gate is not the one asked for, or a form stands before no gate (warning).

    Why: metadata alone gates nothing, and a malformed form is dropped by the Hub.
    Fix: use the field types text, checkbox, date_picker, country and select; set the gate and read it back.
    Seen: huggingface.co/docs/hub/models-gated.
    """
    for key, value in repository.card.metadata.items():
        if key == "extra_gated_fields":
            yield from _fields(value)
        elif key == "extra_gated_eu_disallowed":
            if not isinstance(value, bool):
                yield Found(f"{key} is {str(value)[:60]!r}; write true or false.", file=CARD)
        elif key.startswith("extra_gated_") and not (isinstance(value, str) and value.strip()):
            yield Found(f"{key} is {str(value)[:60]!r}; write a text.", file=CARD)
    settings = repository.settings
    if settings is not None and repository.gate is not None:
        gated = settings.get("gated") or False
        wanted = False if repository.gate == "off" else repository.gate
        if gated != wanted:
            yield Found(f"The repository's gate reads back as {gated}, {wanted} was asked for; set it again.")
    elif settings is not None and not settings.get("gated"):
        forms = [key for key in repository.card.metadata if key.startswith("extra_gated_")]
        if forms:
            message = f"The card has a gate's form ({len(forms)} keys) and the repository has no gate; set one."
            yield Found(message, file=CARD, severity=WARNING)


def _fields(fields: Any) -> Iterator[Found]:
    if not isinstance(fields, Mapping):
        yield Found(
            f"extra_gated_fields is a {type(fields).__name__}; write one line per field: label: type.", file=CARD
        )
        return
    for label, spec in fields.items():
        kind = spec.get("type") if isinstance(spec, Mapping) else spec
        if kind not in FIELD_TYPES:
            known = ", ".join(FIELD_TYPES)
            yield Found(f"The gate's field {str(label)[:60]!r} has type {str(kind)[:40]!r}; use {known}.", file=CARD)
        elif kind == "select" and not _options(spec):
            yield Found(f"The gate's field {str(label)[:60]!r} is a select without options; list them.", file=CARD)


def _options(spec: Any) -> bool:
    options = spec.get("options") if isinstance(spec, Mapping) else None
    return (
        isinstance(options, list)
        and bool(options)
        and all(isinstance(o, str) or (isinstance(o, Mapping) and {"label", "value"} <= o.keys()) for o in options)
    )


@rule("LC14", "differs-from-manifest", severity=ERROR, scope=Scope(MANIFEST, lambda listing: listing.has_manifest))
def differs_from_manifest(listing: Listing) -> Iterator[Found]:
    """A file is not the one that publish.json lists, is missing, or is not listed at all.

    Why: the manifest is what the publisher proved; anything else was edited, lost or added afterwards.
    Fix: restore the file, or publish again; shards are hashed at level full and compared by size below it.
    Seen: uploads that lose a licence or keep a stale shard, which the Hub's client does not notice.
    """
    try:
        document = jsonio.loads_json(listing.manifest(), MANIFEST)
    except jsonio.DocumentError as error:
        yield Found(f"{error.message} Build the manifest again.", file=MANIFEST)
        return
    problems = jsonio.problems(document, "manifest")
    if problems:
        yield Found(f"{MANIFEST} is no manifest ({problems[0]}); build it again.", file=MANIFEST)
        return
    sizes = listing.checkpoint.files.sizes
    listed = {entry["name"]: entry for entry in document["resources"]}
    for name, entry in listed.items():
        if name not in sizes:
            yield Found(f"{name} is listed in {MANIFEST} and is not there; restore it.", file=name)
        elif sizes[name] != entry["size"]:
            yield Found(f"{name} has {sizes[name]:,} bytes, {MANIFEST} lists {entry['size']:,}; restore it.", file=name)
        elif listing.hashed(name) and listing.sha256(name) != entry["digest"]:
            yield Found(f"{name} was changed: its sha256 is not the one {MANIFEST} lists; restore it.", file=name)
    for name in sorted(set(sizes) - set(listed) - {MANIFEST, ".gitattributes"}):
        yield Found(f"{name} is not listed in {MANIFEST}; remove it or publish again.", file=name)
