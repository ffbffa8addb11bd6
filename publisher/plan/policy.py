"""One module, one decision: which pattern or which rule of the house decides, and in what order.

`keep` wins over `quantize`. Heads, embeddings, norms, vision towers, projectors and prediction layers are kept unless a
pattern names them (`lm_head`, not `*`); routers are kept always, because no serving engine loads a quantized router.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from publisher.checkpoint.encoded import SUPERSEDED, decoded_ref, decoded_size, is_encoded
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module, layer_of, role_of
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import StoredWeight, UnreadableWeight
from publisher.checkpoint.weights import locate
from publisher.matching import Globs
from publisher.plan.model import KEEP, QUANTIZE, Decision, Recipe
from publisher.plan.obstacles import NAME, fused_expert_tensors

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
_LAYER = re.compile(r"(?:.*?\.)?(?:layers|blocks|h)\.\d+(?=\.)")
_IN_A_LAYER = frozenset({"attention", "mlp", "expert", "shared_expert", "other"})


@dataclass(frozen=True, slots=True)
class Matrix:
    """A module with a weight to decide on.

    Args:
        module: the module.
        weight: its weight; the matrix it stands for where it is encoded, its largest tensor where experts are stacked.
        stacked: whether all experts lie in one tensor.
        encoded: how the weight is stored where that is INT4 or FP8.
    """

    module: Module
    weight: TensorRef
    stacked: bool = False
    encoded: StoredWeight | None = None

    @property
    def name(self) -> str:
        """The module's name."""
        return self.module.name

    @property
    def size(self) -> int:
        """Bytes of all the module's tensors."""
        return sum(ref.size for ref in self.module.tensors.values())

    @property
    def kept_size(self) -> int:
        """Bytes of what the result holds of the module when it is kept: an encoded weight is kept in BF16."""
        return self.beside + self.weight_size

    @property
    def weight_size(self) -> int:
        """Bytes of the weight when it is kept."""
        return decoded_size(self.encoded) if self.encoded else self.weight.size

    @property
    def beside(self) -> int:
        """Bytes of what is carried whatever happens to the weight: biases and the like."""
        if self.encoded is None:
            return self.size - self.weight.size
        return sum(ref.size for suffix, ref in self.module.tensors.items() if suffix not in SUPERSEDED)


def matrices_of(checkpoint: Checkpoint) -> Iterator[Matrix]:
    """Every module with a weight of two or more dimensions, in name order; names no list can spell are left out."""
    predicting = prediction_layers(checkpoint.modules.values())
    for module in checkpoint.modules.values():
        if not NAME.fullmatch(module.name):
            continue
        weight, stacked = module.weight, fused_expert_tensors(module)
        if module.role in _IN_A_LAYER and _layer(module.name) in predicting:
            module = replace(module, role="mtp")
        encoded = _encoded(checkpoint, module)
        if encoded is not None:
            yield Matrix(module, decoded_ref(encoded), encoded=encoded)
        elif weight is not None and len(weight.shape) >= 2:
            yield Matrix(module, weight)
        elif stacked:
            yield Matrix(module, max((module.tensors[s] for s in stacked), key=lambda ref: ref.size), stacked=True)


def _encoded(checkpoint: Checkpoint, module: Module) -> StoredWeight | None:
    """How an INT4 or FP8 weight is stored; one that cannot be decoded is an obstacle of the source."""
    if not is_encoded(module):
        return None
    try:
        return locate(checkpoint, module.name, headers_only=True)
    except UnreadableWeight:
        return None


def prediction_layers(modules: Iterable[Module]) -> frozenset[str]:
    """Numbered layers that hold a prediction layer's own parts, such as `model.layers.61`."""
    layers = {_layer(module.name) for module in modules if module.role == "mtp"}
    return frozenset(layer for layer in layers if layer and role_of(layer) != "mtp")


def _layer(name: str) -> str:
    """`model.layers.61` of `model.layers.61.mlp.experts.0.up_proj`; empty outside of numbered layers."""
    match = _LAYER.match(name)
    return match.group() if match else ""


class Policy:
    """A recipe's patterns, compiled.

    Args:
        recipe: its `quantize` and `keep` globs are used.
        predicting: the source's prediction layers, as `prediction_layers` finds them.
    """

    def __init__(self, recipe: Recipe, predicting: Iterable[str] = ()) -> None:
        self.quantize, self.keep = Globs(recipe.quantize), Globs(recipe.keep)
        by_role: dict[str, list[str]] = defaultdict(list)
        numbers = {layer_of(layer) for layer in predicting}
        for pattern in recipe.quantize:
            by_role[role_of(pattern.replace("*", "").replace("?", ""))].append(pattern)
            if numbers and layer_of(pattern) in numbers:
                by_role["mtp"].append(pattern)
        self._named = {role: Globs(by_role[role]) for role in PROTECTED}

    def decide(self, matrix: Matrix) -> Decision:
        """What happens to one module, and why."""
        name, role = matrix.name, matrix.module.role
        keep = self.keep.first_match(name)
        if keep is not None:
            return Decision(name, KEEP, keep)
        pattern = self.quantize.first_match(name)
        if pattern is None:
            return Decision(name, KEEP, reason=NO_PATTERN)
        if role in PROTECTED:
            pattern = None if role == "router" else self.names(matrix)
            if pattern is None:
                return Decision(name, KEEP, reason=PROTECTED[role])
        if matrix.stacked:
            return Decision(name, KEEP, reason="experts stacked in one tensor")
        if len(matrix.weight.shape) != 2:
            return Decision(name, KEEP, reason=f"weight has {len(matrix.weight.shape)} dimensions, not 2")
        return Decision(name, QUANTIZE, pattern)

    def names(self, matrix: Matrix) -> str | None:
        """The pattern that names a protected module's role and matches it."""
        named = self._named.get(matrix.module.role)
        return named.first_match(matrix.name) if named else None

    def wants(self, matrix: Matrix) -> str | None:
        """The quantize pattern that asks for stacked experts, by the module's or a tensor's name."""
        names = [matrix.name, *(f"{matrix.name}.{suffix}" for suffix in fused_expert_tensors(matrix.module))]
        if any(self.keep.first_match(name) for name in names):
            return None
        return next((p for name in names if (p := self.quantize.first_match(name))), None)
