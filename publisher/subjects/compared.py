"""Packed weights beside their source: how far apart, made by which arithmetic, and, where far apart, why.

Error and cosine are taken over every weight, or over a sample where one is asked for; the arithmetic is judged on a
sample of blocks always, because it is tried in several modes. A sample is whole rows in a few runs spread over the
matrix, the same ones every time. Rows are read in pieces, so memory stays bounded whatever the matrix.

A source may be BF16, F16, F32, INT4 or FP8, alone or fused (see `checkpoint.weights`). What cannot be compared is kept
with its reason. Formulas: relative RMSE `|q - w| / |w|`, cosine `q.w / (|q| |w|)`, both over all weights looked at.
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
from publisher.formats import makers
from publisher.formats.blocks import Float32Array
from publisher.formats.int4 import Intermediate, Order
from publisher.formats.makers import Sample, Verdict
from publisher.subjects.evidence import Evidence, Meter
from publisher.subjects.modules import is_packed
from publisher.subjects.packed import PackedWeight, open_packed
from publisher.subjects.pruned import NONZERO, pruned_modules
from publisher.subjects.sampled import Sums, pieces_of, plain_error, rows_looked, runs_of
from publisher.subjects.twins import RELATED, Twins, cosine
from publisher.subjects.untouched import Untouched, read_untouched

SAMPLE = 4096  # blocks of a module whose arithmetic is judged
FAR = 0.3  # relative RMSE beyond which a reason is looked for; no rounding to four bits reaches it


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One packed weight beside its source.

    Args:
        module: the module.
        format: nvfp4 or mxfp4.
        stored: how the source stores it: BF16, int4, fp8 ...
        weights: of the whole matrix.
        looked: weights that error and cosine are taken over.
        norm: the source's sum of squares over these.
        own: the stored weights' sum of squares.
        product: sum of products of both.
        error: sum of squared differences.
        amax: the source's largest magnitude over these.
        finite: whether the stored weights are; with a NaN scale they are not.
        sound: whether the source's are.
        global_scale: the stored scalar, as it stands; None for MX.
        direction: which way it goes.
        verdict: the arithmetic found in the sample.
        intermediate: what a quantized source was rounded to before it was quantized again.
        plain_error: squared error of the sample's blocks under plain `max` scales, over their own; None where the
            scales are those, or the format has none.
        cause: why the two are far apart, where that was found: swapped, other, order, scaled.
        twin: the module whose source fits instead (cause `other`).
        pruned: whether it is declared pruned; then only pairs that were kept are compared.
    """

    module: Module
    format: str
    stored: str
    weights: int
    looked: int
    norm: float
    own: float
    product: float
    error: float
    amax: float
    finite: bool
    sound: bool
    global_scale: float | None
    direction: str | None
    verdict: Verdict
    intermediate: Intermediate = "BF16"
    plain_error: float | None = None
    cause: str | None = None
    twin: str | None = None
    pruned: bool = False

    @property
    def name(self) -> str:
        """The module's name."""
        return self.module.name

    @property
    def rel_rmse(self) -> float:
        """Error over norm; infinite where the source is all zero and the result is not."""
        if self.norm <= 0:
            return 0.0 if self.error <= 0 else math.inf
        return math.sqrt(self.error / self.norm)

    @property
    def cosine(self) -> float:
        """1 where both are zero, 0 where one is."""
        if self.norm <= 0 or self.own <= 0:
            return 1.0 if self.norm == self.own else 0.0
        return self.product / math.sqrt(self.norm) / math.sqrt(self.own)

    @property
    def dead(self) -> bool:
        """Whether the source, as far as looked at, is all zero."""
        return self.sound and self.amax == 0

    @property
    def whole(self) -> bool:
        """Whether every weight was looked at."""
        return self.looked == self.weights

    @property
    def comparable(self) -> bool:
        """Whether the error means anything."""
        return self.finite and self.sound and not self.dead and math.isfinite(self.error)

    def measured(self) -> dict[str, float]:
        """The numbers a report keeps."""
        found = {"share": self.looked / self.weights, "blocks": float(self.verdict.blocks)}
        if self.comparable:
            found |= {"rel_rmse": self.rel_rmse, "cosine": self.cosine}
        if self.verdict.blocks:
            found["mismatch"] = self.verdict.wrong / self.verdict.blocks
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All of the comparison, once it is done.

    Args:
        checkpoint: the result.
        source: what it was made from.
        modules: every packed weight compared.
    """

    checkpoint: Checkpoint
    source: Checkpoint
    modules: tuple[Compared, ...]


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
        self.meter.total += sum(self._planned(packed, original) for packed, original in pairs)
        twins = Twins([packed.module.name for packed, _ in pairs], self.source, self._read)
        for packed, original in pairs:
            compared = self._compare(packed, original, twins)
            self.modules.append(compared)
            yield compared

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
                total.add(self._beside(packed, original, begin, end))
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
        parts = []
        for begin, end in runs_of(packed.module.name, packed.rows, wanted):
            parts.append(self._beside(packed, original, begin, end))
        sample = replace(
            parts[0],
            weights=np.concatenate([part.weights for part in parts]),
            payload=np.concatenate([part.payload for part in parts]),
            scales=np.concatenate([part.scales for part in parts]),
        )
        sums = Sums()
        sums.add(sample)
        return sample, sums

    def _judged(self, packed: PackedWeight, original: StoredWeight, sample: Sample) -> tuple[Verdict, Intermediate]:
        """The verdict; a quantized source is tried without rounding to BF16 where rounding does not explain it."""
        verdict = makers.judge(sample)
        if verdict.wrong == 0 or original.form not in ("int4", "fp8"):
            return verdict, "BF16"
        weights = self._again(packed, original, sample, intermediate="F32")
        other = makers.judge(replace(sample, weights=weights))
        return (other, "F32") if other.wrong < verdict.wrong else (verdict, "BF16")

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
        runs = runs_of(packed.module.name, packed.rows, sample.weights.shape[0])
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
        begin, end = next(iter(runs_of(packed.module.name, packed.rows, sample.weights.shape[0])))
        twin = twins.find(packed.module.name, sample.values()[: end - begin], (begin, end), packed.rows)
        return ("other", twin) if twin is not None else (None, None)


def _fits(weights: Float32Array, values: Float32Array) -> bool:
    return cosine(weights, values) >= RELATED
