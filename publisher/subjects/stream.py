"""The subjects of the kinds asked for, cheapest first, and what is lacking for the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

from publisher.subjects.evidence import CARD, LEVELS, Evidence, Meter
from publisher.subjects.modules import Headers, Modules, Shard
from publisher.subjects.publication import Listing, Pair, Repository, Upstream, read_publication
from publisher.subjects.scales import BlockScales, FusedGroup, Scalars, read_scales

Subject: TypeAlias = (
    Headers | Shard | Modules | BlockScales | Scalars | FusedGroup | Listing | Pair | Repository | Upstream
)
SCALE_KINDS: frozenset[type] = frozenset({BlockScales, Scalars, FusedGroup})
# The noun of each kind, for counts and for `nothing to judge`.
NOUNS: Mapping[type, str] = {
    Headers: "checkpoints",
    Shard: "shards",
    Modules: "module tables",
    BlockScales: "block scale tensors",
    Scalars: "kinds of scalars",
    FusedGroup: "fused groups",
    Listing: "manifests",
    Pair: "sources",
    Repository: "cards",
    Upstream: "upstream cards",
}


def lacking(kind: type, evidence: Evidence, level: str) -> str | None:
    """What must be given before a rule on this kind of evidence can run; None when nothing is missing."""
    if kind in SCALE_KINDS and LEVELS.index(level) < LEVELS.index("scales"):
        return "needs --level scales"
    if kind in (Pair, Upstream) and evidence.source is None:
        return "needs the source: --source"
    if kind in (Repository, Upstream) and not evidence.has_card:
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
