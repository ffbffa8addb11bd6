"""Packed weights beside their source: how far apart, made by which arithmetic, and, where far apart, why.

Error and cosine are taken over every weight, or over a sample where one is asked for; the arithmetic is judged on a
sample of blocks always, because it is tried in several modes. A sample is whole rows in a few runs spread over the
matrix, the same ones every time. Rows are read in pieces, so memory stays bounded whatever the matrix.

A source may be BF16, F16, F32, INT4, FP8 or MXFP4, alone or fused (see `checkpoint.weights`). What cannot be compared
is left to the meter with its reason, so that no rule passes it for checked. Layers stored in FP8 or INT4 are compared
too, by their error alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import StoredWeight, UnreadableWeight
from publisher.checkpoint.weights import locate
from publisher.formats import floats, makers
from publisher.formats.blocks import Float32Array
from publisher.formats.int4 import Intermediate, Order
from publisher.formats.makers import Sample, Verdict
from publisher.subjects.comparison import Compared, Comparison
from publisher.subjects.evidence import Evidence, Meter
from publisher.subjects.modules import is_packed, stack_of
from publisher.subjects.packed import PackedWeight, open_packed, open_stacks
from publisher.subjects.pruned import NONZERO, pruned_modules
from publisher.subjects.reading import is_local
from publisher.subjects.recoded import compare, pair_of, recoded
from publisher.subjects.sampled import RUNS, Sums, pieces_of, plain_error, rows_looked, runs_of
from publisher.subjects.twins import RELATED, Twins, cosine
from publisher.subjects.untouched import Untouched, read_untouched

SAMPLE = 4096  # blocks of a module whose arithmetic is judged
STACKED = ("_proj_blocks", "_proj", "_proj_weight", "_proj_packed")  # packed experts, all in one tensor
FAR = 0.3  # relative RMSE beyond which a reason is looked for; no rounding to four bits reaches it


COMPARED_KINDS: frozenset[type] = frozenset({Untouched, Compared, Comparison})


def read_comparison(
    evidence: Evidence, kinds: Collection[type], meter: Meter
) -> Iterator[Untouched | Compared | Comparison]:
    """Unquantized tensors, packed weights and the whole, in this order.

    Raises:
        CheckpointError: a shard cannot be read, or is shorter than its header says.
    """
    checkpoint, source = evidence.checkpoint, evidence.source
    if source is None:
        return
    if Untouched in kinds:
        yield from read_untouched(checkpoint, source, meter)
    if not {Compared, Comparison} & set(kinds):
        return
    reading = _Reading(evidence=evidence, source=source, meter=meter)
    for compared in reading.all():
        meter.measure(compared.name, compared.measured())
        if Compared in kinds:
            yield compared
    if Comparison in kinds:
        yield Comparison(checkpoint=checkpoint, source=source, modules=tuple(reading.modules))


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One pass over the packed weights, in file order."""

    evidence: Evidence
    source: Checkpoint
    meter: Meter
    modules: list[Compared] = field(default_factory=list)
    pruned: frozenset[str] = frozenset()

    def all(self) -> Iterator[Compared]:
        """Each packed weight that can be compared."""
        checkpoint = self.evidence.checkpoint
        modules = [m for m in checkpoint.modules.values() if is_packed(m) and m.weight is not None]
        modules.sort(key=lambda m: (m.ref.shard, m.ref.begin))
        self.pruned = frozenset(module.name for module in pruned_modules(self.evidence, self.meter))
        pairs = [pair for module in modules if (pair := self._pair(module)) is not None]
        pairs += self._stacked()
        self.meter.total += sum(self._planned(packed, original) for packed, original in pairs)
        twins = Twins([packed.module.name for packed, _ in pairs], self.source, self._read)
        for packed, original in pairs:
            compared = self._compare(packed, original, twins)
            packed.forget()
            self.modules.append(compared)
            yield compared
        yield from self._recoded()

    def _recoded(self) -> Iterator[Compared]:
        """Layers in FP8 or INT4, and the reason for what cannot be told of experts packed in one tensor."""
        checkpoint = self.evidence.checkpoint
        for module in recoded(checkpoint, self.source):
            try:
                pair = pair_of(checkpoint, self.source, module)
            except UnreadableWeight as error:
                self._leave(error.message)
                continue
            compared = compare(module, pair, self.evidence.sample, self.meter)
            self.modules.append(compared)
            yield compared
        for name, ref in checkpoint.tensors.items():
            parent, _, suffix = name.rpartition(".")
            if ref.dtype == "U8" and name.endswith(STACKED) and suffix not in stack_of(checkpoint.modules[parent]):
                self._leave("experts packed in one tensor are not compared")

    def _stacked(self) -> Iterator[tuple[PackedWeight, StoredWeight]]:
        """Experts that are packed in one tensor."""
        try:
            for packed in open_stacks(self.evidence.checkpoint, self.meter):
                original = locate(self.source, packed.module.name, (packed.rows, packed.columns))
                if (original.rows, original.columns) != (packed.rows, packed.columns):
                    mine, theirs = [packed.rows, packed.columns], [original.rows, original.columns]
                    raise UnreadableWeight(f"it unpacks to {mine}, the source has {theirs}")
                yield packed, original
        except UnreadableWeight as error:
            self._leave(error.message)

    def _pair(self, module: Module) -> tuple[PackedWeight, StoredWeight] | None:
        try:
            packed = open_packed(self.evidence.checkpoint, module, self.meter)
            original = locate(self.source, module.name, (packed.rows, packed.columns))
            mine, theirs = [packed.rows, packed.columns], [original.rows, original.columns]
            if mine != theirs:
                raise UnreadableWeight(f"it unpacks to {mine}, the source has {theirs}")
        except UnreadableWeight as error:
            self._leave(error.message)
            return None
        return packed, original

    def _leave(self, reason: str) -> None:
        for kind in (Compared, Comparison):
            self.meter.leave(kind, reason)

    def _read(self, path: str, begin: int, end: int) -> bytes:
        return self.meter.read(self.source.files, path, begin, end)

    def _planned(self, packed: PackedWeight, original: StoredWeight) -> int:
        return (
            (packed.size + original.size) * min(rows_looked(packed, self.evidence.sample), packed.rows) // packed.rows
        )

    def _compare(self, packed: PackedWeight, original: StoredWeight, twins: Twins) -> Compared:
        sample, total = self._sample(packed, original)
        if self.evidence.sample is None and sample.weights.shape[0] < packed.rows:
            total = Sums()
            for begin, end in pieces_of(packed, original):
                part = self._beside(packed, original, begin, end)
                total.add(part.weights, part.values())
        self.meter.step(self._planned(packed, original))
        verdict, intermediate = self._judged(packed, original, sample)
        first = Compared(
            module=packed.module,
            format=packed.format,
            stored=original.form,
            weights=packed.rows * packed.columns,
            looked=total.count,
            norm=total.norm,
            own=total.own,
            product=total.product,
            error=total.error,
            amax=total.amax,
            finite=math.isfinite(total.own),
            sound=math.isfinite(total.norm),
            global_scale=None if packed.global_scale is None else float(packed.global_scale),
            direction=packed.direction,
            verdict=verdict,
            intermediate=intermediate,
            plain_error=plain_error(sample, verdict),
            pruned=packed.module.name in self.pruned,
        )
        if not first.comparable or first.rel_rmse <= FAR or first.own == 0:
            return first
        cause, twin = self._cause(first, packed, original, sample, twins)
        return replace(first, cause=cause, twin=twin)

    def _beside(self, packed: PackedWeight, original: StoredWeight, begin: int, end: int) -> Sample:
        """Some rows of both; of a pruned weight, what was pruned counts as zero in the source."""
        sample = packed.sample(begin, end, original.decode(begin, end, read=self._read))
        if packed.module.name not in self.pruned:
            return sample
        kept = np.repeat((sample.payload & NONZERO) != 0, 2, axis=1)
        return replace(sample, weights=np.where(kept, sample.weights, np.float32(0)))

    def _sample(self, packed: PackedWeight, original: StoredWeight) -> tuple[Sample, Sums]:
        """The sampled rows put together, and their sums."""
        wanted = rows_looked(packed, SAMPLE if self.evidence.sample is None else self.evidence.sample)
        runs = runs_of(packed.module.name, packed.rows, wanted, self._count(packed, original))
        parts = [self._beside(packed, original, begin, end) for begin, end in runs]
        sample = replace(
            parts[0],
            weights=np.concatenate([part.weights for part in parts]),
            payload=np.concatenate([part.payload for part in parts]),
            scales=np.concatenate([part.scales for part in parts]),
        )
        sums = Sums()
        sums.add(sample.weights, sample.values())
        return sample, sums

    def _count(self, packed: PackedWeight, original: StoredWeight) -> int:
        """Runs of a sample: one where a run is a request, or takes reading the whole matrix."""
        local = is_local(packed.checkpoint.files, packed.payload.shard) and is_local(
            self.source.files, original.ref.shard
        )
        return RUNS if local and not original.turned else 1

    def _judged(self, packed: PackedWeight, original: StoredWeight, sample: Sample) -> tuple[Verdict, Intermediate]:
        """The verdict, and whether the source was rounded to BF16 on the way, whichever explains more.

        A quantized source is rounded unless that explains less, one in F32 or F16 the other way round.
        """
        verdict, packs = makers.judge(sample), original.form in ("int4", "fp8", "mxfp4")
        first: Intermediate = "BF16" if packs or original.form == "BF16" else "F32"
        if verdict.wrong == 0 or original.form == "BF16":
            return verdict, first
        if packs:
            weights = self._again(packed, original, sample, intermediate="F32")
        else:
            weights = floats.round_to_bf16(sample.weights)
        other = makers.judge(replace(sample, weights=weights))
        return (other, "F32" if packs else "BF16") if other.wrong < verdict.wrong else (verdict, first)

    def _again(
        self,
        packed: PackedWeight,
        original: StoredWeight,
        sample: Sample,
        *,
        intermediate: Intermediate = "BF16",
        backwards: bool = False,
    ) -> Float32Array:
        """The sampled rows of the source, decoded in another way."""
        runs = runs_of(packed.module.name, packed.rows, sample.weights.shape[0], self._count(packed, original))
        order: Order = "high" if backwards else "low"
        return np.concatenate(
            [original.decode(b, e, read=self._read, intermediate=intermediate, order=order) for b, e in runs]
        )

    def _cause(
        self, compared: Compared, packed: PackedWeight, original: StoredWeight, sample: Sample, twins: Twins
    ) -> tuple[str | None, str | None]:
        swapped = (sample.payload << np.uint8(4)) | (sample.payload >> np.uint8(4))
        if _fits(sample.weights, sample.values(swapped)):
            return "swapped", None
        if original.form == "int4" and _fits(self._again(packed, original, sample, backwards=True), sample.values()):
            return "order", None
        if compared.cosine >= RELATED:
            return "scaled", None
        count = self._count(packed, original)
        begin, end = runs_of(packed.module.name, packed.rows, sample.weights.shape[0], count)[0]
        twin = twins.find(packed.module.name, sample.values()[: end - begin], (begin, end), packed.rows)
        return ("other", twin) if twin is not None else (None, None)


def _fits(weights: Float32Array, values: Float32Array) -> bool:
    return cosine(weights, values) >= RELATED
