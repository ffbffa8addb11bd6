"""What a rule may look at, cheapest first; the type of a rule's first parameter is the evidence it asks for.

`stream` makes the subjects of the kinds asked for. Headers, modules, the source and the card cost next to nothing;
scales are read once, in file order, and handed to every rule that wants them.
"""

from publisher.subjects.evidence import CARD, LEVELS, Evidence, Meter
from publisher.subjects.modules import BLOCK, CACHE_SCALARS, SCALARS, SCALE_SUFFIXES, Headers, Modules, Shard
from publisher.subjects.publication import MANIFEST, Card, Listing, Pair, Repository, Upstream, read_card
from publisher.subjects.reading import Run
from publisher.subjects.scalars import FusedGroup, Scalars, Smoothing, Smoothings
from publisher.subjects.scales import BlockScales, ScaleRange, ScaleRanges, planned_reads
from publisher.subjects.stream import KINDS, Kind, Subject, lacking, stream

__all__ = [
    "BLOCK",
    "CACHE_SCALARS",
    "CARD",
    "KINDS",
    "LEVELS",
    "MANIFEST",
    "SCALARS",
    "SCALE_SUFFIXES",
    "BlockScales",
    "Card",
    "Evidence",
    "FusedGroup",
    "Headers",
    "Kind",
    "Listing",
    "Meter",
    "Modules",
    "Pair",
    "Repository",
    "Run",
    "Scalars",
    "ScaleRange",
    "ScaleRanges",
    "Shard",
    "Smoothing",
    "Smoothings",
    "Subject",
    "Upstream",
    "lacking",
    "planned_reads",
    "read_card",
    "stream",
]  # fmt: skip
