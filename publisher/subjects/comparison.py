"""What comparing a weight with its source yields, one by one and all together.

Formulas: relative RMSE `|q - w| / |w|`, cosine `q.w / (|q| |w|)`, both over all weights looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.formats.int4 import Intermediate
from publisher.formats.makers import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One packed weight beside its source.

    Args:
        module: the module.
        format: nvfp4 or mxfp4; fp8 or int4, of which only the error is known.
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
        intermediate: what a source that is not BF16 was rounded to before it was quantized.
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
