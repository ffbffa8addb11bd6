"""Weights stored in FP8 or INT4 beside their source: layers of a mixed checkpoint that are not FP4.

Only the error is known of them; the arithmetic of FP8 leaves nothing to try. A layer whose tensor has the source's own
dtype is compared byte for byte elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import StoredWeight, UnreadableWeight
from publisher.checkpoint.weights import locate
from publisher.formats.makers import Verdict
from publisher.subjects.comparison import Compared
from publisher.subjects.evidence import Meter
from publisher.subjects.modules import is_packed
from publisher.subjects.sampled import RUNS, Sums, chunks, runs_of

BLOCK = 16  # weights that a sample's block stands for
STORED = {"F8_E4M3": "fp8", "I32": "int4"}


def recoded(checkpoint: Checkpoint, source: Checkpoint) -> list[Module]:
    """Modules whose weight is FP8 or INT4 here and stored otherwise in the source, in file order."""
    found = []
    for module in checkpoint.modules.values():
        weight = module.weight
        if weight is None or weight.dtype not in STORED or is_packed(module) or len(module.tensors) < 2:
            continue
        other = source.tensors.get(weight.name)
        if other is None or other.dtype != weight.dtype:
            found.append(module)
    return sorted(found, key=lambda module: (module.ref.shard, module.ref.begin))


def pair_of(checkpoint: Checkpoint, source: Checkpoint, module: Module) -> tuple[StoredWeight, StoredWeight]:
    """A module's weight here and in the source.

    Raises:
        UnreadableWeight: one of them is not known here, or their shapes differ.
    """
    mine = locate(checkpoint, module.name)
    theirs = locate(source, module.name, (mine.rows, mine.columns))
    if (mine.rows, mine.columns) != (theirs.rows, theirs.columns):
        raise UnreadableWeight(f"it is {[mine.rows, mine.columns]}, the source has {[theirs.rows, theirs.columns]}")
    return mine, theirs


def compare(module: Module, pair: tuple[StoredWeight, StoredWeight], sample: int | None, meter: Meter) -> Compared:
    """Error and cosine over all of a weight, or over a sample of so many blocks.

    Raises:
        CheckpointError: a shard is shorter than its header says.
    """
    mine, theirs = pair
    sums = Sums()
    for begin, end in _pieces(module.name, theirs, sample):
        weights = theirs.decode(begin, end, read=lambda *at: meter.read(theirs.checkpoint.files, *at))
        values = mine.decode(begin, end, read=lambda *at: meter.read(mine.checkpoint.files, *at), intermediate="F32")
        sums.add(weights, values.copy())
    return Compared(
        module=module,
        format=mine.form,
        stored=theirs.form,
        weights=mine.rows * mine.columns,
        looked=sums.count,
        norm=sums.norm,
        own=sums.own,
        product=sums.product,
        error=sums.error,
        amax=sums.amax,
        finite=math.isfinite(sums.own),
        sound=math.isfinite(sums.norm),
        global_scale=None,
        direction=None,
        verdict=Verdict(),
    )


def _pieces(name: str, weight: StoredWeight, sample: int | None) -> Iterator[tuple[int, int]]:
    wanted = weight.rows if sample is None else max(1, -(-sample * BLOCK // weight.columns))
    if weight.turned:
        yield 0, weight.rows
        return
    for begin, end in runs_of(name, weight.rows, min(max(wanted, 1), weight.rows), RUNS):
        yield from chunks(begin, end, weight.columns)
