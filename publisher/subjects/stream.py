"""The subjects of the kinds asked for, cheapest first, and what is lacking for the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from publisher.checkpoint.open import Checkpoint
from publisher.subjects.claimed import Claimed, read_claimed
from publisher.subjects.compared import COMPARED_KINDS, read_comparison
from publisher.subjects.comparison import Compared, Comparison
from publisher.subjects.evidence import CARD, LEVELS, Evidence, Meter
from publisher.subjects.modules import Headers, Modules, Shard
from publisher.subjects.payload import PAYLOAD_KINDS, Payload, PayloadPass, Payloads, Plain
from publisher.subjects.pruned import Pruned, read_pruned
from publisher.subjects.publication import Listing, Pair, Repository, Upstream, read_publication
from publisher.subjects.reading import Run
from publisher.subjects.scalars import FusedGroup, Scalars, Smoothings
from publisher.subjects.scalepass import SCALE_KINDS, ScalePass
from publisher.subjects.scales import BlockScales, ScaleRanges
from publisher.subjects.serving import Serving, read_serving
from publisher.subjects.sidefiles import SideFiles, read_side_files
from publisher.subjects.terms import Terms
from publisher.subjects.untouched import Untouched

Subject: TypeAlias = (
    Headers
    | Shard
    | Modules
    | BlockScales
    | ScaleRanges
    | Scalars
    | FusedGroup
    | Smoothings
    | Payload
    | Payloads
    | Plain
    | Serving
    | SideFiles
    | Listing
    | Pair
    | Repository
    | Upstream
    | Terms
    | Claimed
    | Pruned
    | Untouched
    | Compared
    | Comparison
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
    Payload: Kind(noun="packed payloads", cost="payload", level="full"),
    Payloads: Kind(noun="formats of packed payloads", cost="payload", level="full"),
    Plain: Kind(noun="plain tensors", cost="payload", level="full"),
    Serving: Kind(noun="checkpoints", cost="headers"),
    SideFiles: Kind(noun="checkpoints", cost="side files"),
    Listing: Kind(noun="manifests", cost="side files"),
    Pair: Kind(noun="sources", cost="source", source=True),
    Repository: Kind(noun="cards", cost="card", card=True),
    Upstream: Kind(noun="upstream cards", cost="card and source", source=True, card=True),
    Claimed: Kind(noun="cards", cost="card", card=True),
    Terms: Kind(noun="cards", cost="card", card=True),
    Pruned: Kind(noun="weights declared pruned 4:8", cost="payload", level="full"),
    Untouched: Kind(noun="unquantized tensors of the source", cost="payload and source", level="full", source=True),
    Compared: Kind(noun="packed weights of the source", cost="payload and source", level="full", source=True),
    Comparison: Kind(noun="comparisons", cost="payload and source", level="full", source=True),
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

    At level `full`, without a sample, the manifest's subject may read whole shards.

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
    if Serving in kinds:
        yield read_serving(checkpoint, evidence.has_card, meter)
    if SideFiles in kinds:
        yield read_side_files(checkpoint, evidence.source, meter, published=evidence.card is not False)
    if Listing in kinds:
        listing = Listing(checkpoint=checkpoint, meter=meter, shards=level == "full" and evidence.sample is None)
        meter.total += sum(map(listing.hashed, checkpoint.files.sizes)) if listing.has_manifest else 0
        yield listing
    yield from read_publication(evidence, kinds, meter)
    if Claimed in kinds:
        yield read_claimed(evidence, meter)
    passes = _passes(checkpoint, kinds, meter, evidence.sample)
    for one in passes:
        yield from one.read()
    if Pruned in kinds:
        yield from read_pruned(evidence, meter)
    if COMPARED_KINDS & set(kinds):
        yield from read_comparison(evidence, kinds, meter)


def planned_reads(checkpoint: Checkpoint, kinds: Collection[type], sample: int | None = None) -> list[Run]:
    """The reads of scales and payloads that evidence of these kinds takes, in order.

    Of a repository each is one range request, and the sum of their `size` is what will be fetched; rules may read a
    little more where they find something.

    Args:
        checkpoint: the checkpoint, opened.
        kinds: keys of `KINDS`; those that read no tensor cost nothing.
        sample: blocks per module that payload rules read; None for all.
    """
    return [run for one in _passes(checkpoint, kinds, Meter(), sample) for run in one.runs()]


def _passes(
    checkpoint: Checkpoint, kinds: Collection[type], meter: Meter, sample: int | None
) -> list[ScalePass | PayloadPass]:
    """The passes over tensors, planned before the first is read, so that the meter knows all there is to do."""
    passes: list[ScalePass | PayloadPass] = []
    if SCALE_KINDS & set(kinds):
        passes.append(ScalePass(checkpoint=checkpoint, kinds=kinds, meter=meter))
    if PAYLOAD_KINDS & set(kinds):
        passes.append(PayloadPass(checkpoint=checkpoint, kinds=kinds, meter=meter, sample=sample))
    return passes
