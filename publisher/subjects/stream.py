"""The subjects of the kinds asked for, cheapest first, and what is lacking for the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from publisher.subjects.evidence import CARD, LEVELS, Evidence, Meter
from publisher.subjects.modules import Headers, Modules, Shard
from publisher.subjects.publication import Listing, Pair, Repository, Upstream, read_publication
from publisher.subjects.scalars import FusedGroup, Scalars, Smoothings
from publisher.subjects.scales import SCALE_KINDS, BlockScales, ScaleRanges, read_scales

Subject: TypeAlias = (
    Headers
    | Shard
    | Modules
    | BlockScales
    | ScaleRanges
    | Scalars
    | FusedGroup
    | Smoothings
    | Listing
    | Pair
    | Repository
    | Upstream
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of evidence.

    Args:
        noun: for counts and for `nothing to judge`.
        cost: what looking at it reads, as tables print it.
        level: the cheapest level that reads it.
        source: whether it needs the source.
        card: whether it needs the model card.
    """

    noun: str
    cost: str
    level: str = "headers"
    source: bool = False
    card: bool = False


KINDS: Mapping[type, Kind] = {
    Headers: Kind(noun="checkpoints", cost="headers"),
    Shard: Kind(noun="shards", cost="headers"),
    Modules: Kind(noun="module tables", cost="headers"),
    BlockScales: Kind(noun="block scale tensors", cost="scales", level="scales"),
    Scalars: Kind(noun="kinds of scalars", cost="scales", level="scales"),
    ScaleRanges: Kind(noun="formats of block scales", cost="scales", level="scales"),
    FusedGroup: Kind(noun="fused groups", cost="scales", level="scales"),
    Smoothings: Kind(noun="pre_quant_scale tensors", cost="scales", level="scales"),
    Listing: Kind(noun="manifests", cost="side files"),
    Pair: Kind(noun="sources", cost="source", source=True),
    Repository: Kind(noun="cards", cost="card", card=True),
    Upstream: Kind(noun="upstream cards", cost="card and source", source=True, card=True),
}


def lacking(kind: type, evidence: Evidence, level: str) -> str | None:
    """What must be given before a rule on this kind of evidence can run; None when nothing is missing."""
    needs = KINDS[kind]
    if LEVELS.index(level) < LEVELS.index(needs.level):
        return f"needs --level {needs.level}"
    if needs.source and evidence.source is None:
        return "needs the source: --source"
    if needs.card and not evidence.has_card:
        return f"needs the model card: {CARD}"
    return None


def stream(evidence: Evidence, kinds: Collection[type], meter: Meter, level: str = "scales") -> Iterator[Subject]:
    """The subjects of the kinds asked for, cheapest first; scales in file order.

    At level `full` the manifest's subject may read whole shards.

    Raises:
        CheckpointError: a file cannot be read at all.
    """
    checkpoint = evidence.checkpoint
    if Headers in kinds:
        yield Headers(checkpoint)
    if Shard in kinds:
        yield from (Shard(checkpoint, header) for header in checkpoint.shards.values())
    if Modules in kinds:
        yield Modules(checkpoint, evidence.source)
    if Listing in kinds:
        listing = Listing(checkpoint=checkpoint, meter=meter, shards=level == "full")
        meter.total += sum(map(listing.hashed, checkpoint.files.sizes)) if listing.has_manifest else 0
        yield listing
    yield from read_publication(evidence, kinds, meter)
    if SCALE_KINDS & set(kinds):
        yield from read_scales(checkpoint, kinds, meter)
