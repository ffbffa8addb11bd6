"""One module, one decision: which pattern or which rule of the house decides, and in what order.

`keep` wins over `quantize`. Heads, embeddings, norms, vision towers, projectors and prediction layers are kept unless a
pattern names them (`lm_head`, not `*`); routers are kept always, because no serving engine loads a quantized router.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from publisher.checkpoint.modules import layer_of, role_of
from publisher.matching import Globs
from publisher.plan.matrix import Matrix
from publisher.plan.model import KEEP, QUANTIZE, Decision, Recipe

NO_PATTERN = "no quantize pattern matches"
ROUTER = "no serving engine loads a quantized router"
# Roles that a sweeping pattern does not mean.
PROTECTED = {
    "router": ROUTER,
    "head": "output head; name it to quantize it",
    "embedding": "token embedding; name it to quantize it",
    "norm": "norm",
    "vision": "vision tower; name it to quantize it",
    "projector": "projector; name it to quantize it",
    "mtp": "prediction layer; name it to quantize it",
}


class Policy:
    """A recipe's patterns, compiled.

    Args:
        recipe: its `quantize` and `keep` globs are used.
        predicting: the source's prediction layers, as `prediction_layers` finds them.
    """

    def __init__(self, recipe: Recipe, predicting: Iterable[str] = ()) -> None:
        self.quantize, self.keep = Globs(recipe.quantize), Globs(recipe.keep)
        self.also = tuple((one.format, Globs(one.quantize)) for one in recipe.also)
        by_role: dict[str, list[str]] = defaultdict(list)
        numbers = {layer_of(layer) for layer in predicting}
        for pattern in (*recipe.quantize, *(pattern for one in recipe.also for pattern in one.quantize)):
            by_role[role_of(pattern.replace("*", "").replace("?", ""))].append(pattern)
            if numbers and layer_of(pattern) in numbers:
                by_role["mtp"].append(pattern)
        self._named = {role: Globs(by_role[role]) for role in PROTECTED}

    def decide(self, matrix: Matrix) -> Decision:
        """What happens to one module, and why."""
        name, role = matrix.name, matrix.module.role
        keep = self._first(self.keep, matrix)
        if keep is not None:
            return Decision(name, KEEP, keep)
        form, pattern = self._asked(matrix)
        if pattern is None:
            return Decision(name, KEEP, reason=NO_PATTERN)
        if role in PROTECTED:
            pattern = None if role == "router" else self.names(matrix)
            if pattern is None:
                return Decision(name, KEEP, reason=PROTECTED[role])
        if matrix.stacked:
            return Decision(name, KEEP, reason="experts stacked in one tensor")
        if len(matrix.weight.shape) != 2 and not matrix.experts:
            return Decision(name, KEEP, reason=f"weight has {len(matrix.weight.shape)} dimensions, not 2")
        return Decision(name, QUANTIZE, pattern, format=form)

    def _asked(self, matrix: Matrix) -> tuple[str | None, str | None]:
        """The format, None for the recipe's own, and the pattern that asks for it; other formats win."""
        for form, globs in self.also:
            pattern = self._first(globs, matrix)
            if pattern is not None:
                return form, pattern
        return None, self._first(self.quantize, matrix)

    @staticmethod
    def _first(globs: Globs, matrix: Matrix) -> str | None:
        """The pattern that matches its name, or, of an expert out of a stack, the stack's."""
        return next((found for name in matrix.names if (found := globs.first_match(name)) is not None), None)

    def names(self, matrix: Matrix) -> str | None:
        """The pattern that names a protected module's role and matches it."""
        named = self._named.get(matrix.module.role)
        return named.first_match(matrix.name) if named else None

    def wants(self, matrix: Matrix) -> str | None:
        """The quantize pattern that asks for stacked experts, by the module's or a tensor's name."""
        return None if self._first(self.keep, matrix) else self._first(self.quantize, matrix)
