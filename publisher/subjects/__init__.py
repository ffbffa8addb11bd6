"""What a rule may look at, cheapest first; the type of a rule's first parameter is the evidence it asks for.

`stream` makes the subjects of the kinds asked for. Headers, modules, the source and the card cost next to nothing;
scales are read once, in file order, and handed to every rule that wants them.
"""

from publisher.subjects.claimed import Claimed
from publisher.subjects.comparison import Compared, Comparison
from publisher.subjects.evidence import CARD, LEVELS, Evidence, Meter
from publisher.subjects.modules import BLOCK, CACHE_SCALARS, PLAIN, SCALARS, SCALE_SUFFIXES, Headers, Modules, Shard
from publisher.subjects.payload import Packed, Payload, Payloads, Plain, Tally
from publisher.subjects.pruned import SPARSE_SUFFIX, Pruned, Stated, pruned_in, stated_pruning
from publisher.subjects.publication import MANIFEST, Card, Listing, Pair, Repository, Upstream, read_card
from publisher.subjects.reading import Run
from publisher.subjects.scalars import FusedGroup, Scalars, Smoothing, Smoothings
from publisher.subjects.scales import BlockScales, ScaleRange, ScaleRanges
from publisher.subjects.serving import Serving
from publisher.subjects.sidefiles import SideFiles
from publisher.subjects.sparse import sparse_layers
from publisher.subjects.stream import KINDS, Kind, Subject, lacking, planned_reads, stream
from publisher.subjects.terms import Terms
from publisher.subjects.untouched import Untouched

__all__ = [
    "BLOCK",
    "CACHE_SCALARS",
    "CARD",
    "KINDS",
    "LEVELS",
    "MANIFEST",
    "PLAIN",
    "SCALARS",
    "SCALE_SUFFIXES",
    "SPARSE_SUFFIX",
    "BlockScales",
    "Card",
    "Claimed",
    "Compared",
    "Comparison",
    "Evidence",
    "FusedGroup",
    "Headers",
    "Kind",
    "Listing",
    "Meter",
    "Modules",
    "Packed",
    "Pair",
    "Payload",
    "Payloads",
    "Plain",
    "Pruned",
    "Repository",
    "Run",
    "Scalars",
    "ScaleRange",
    "ScaleRanges",
    "Serving",
    "Shard",
    "SideFiles",
    "Smoothing",
    "Smoothings",
    "Stated",
    "Subject",
    "Tally",
    "Terms",
    "Untouched",
    "Upstream",
    "lacking",
    "planned_reads",
    "pruned_in",
    "read_card",
    "sparse_layers",
    "stated_pruning",
    "stream",
]  # fmt: skip
