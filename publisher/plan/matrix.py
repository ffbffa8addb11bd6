"""The weight matrices of a source: what a plan decides on, one by one.

Every module with a weight of two or more dimensions, whatever it is stored as; experts that lie in one tensor count as
one until a recipe asks for them (`plan.experts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from publisher.checkpoint.encoded import SUPERSEDED, decoded_ref, decoded_size, is_encoded
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module, role_of
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import StoredWeight, UnreadableWeight
from publisher.checkpoint.weights import locate
from publisher.plan.obstacles import NAME, fused_expert_tensors

_LAYER = re.compile(r"(?:.*?\.)?(?:layers|blocks|h)\.\d+(?=\.)")
_IN_A_LAYER = frozenset({"attention", "mlp", "expert", "shared_expert", "other"})


@dataclass(frozen=True, slots=True)
class Matrix:
    """A module with a weight to decide on.

    Args:
        module: the module.
        weight: its weight; the matrix it stands for where it is encoded, its largest tensor where experts are stacked.
        stacked: whether all experts lie in one tensor and stay there.
        encoded: how the weight is stored where that is INT4, FP8 or MXFP4.
        aliases: names of the stack it is a part of; patterns may mean those.
        fused: its place in a tensor with other experts; of a whole stack that of the first.
        experts: how many matrices it holds where it is a whole stack; 0 otherwise.
    """

    module: Module
    weight: TensorRef
    stacked: bool = False
    encoded: StoredWeight | None = None
    aliases: tuple[str, ...] = ()
    fused: StoredWeight | None = None
    experts: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Its own name, then those of the stack it lies in, or of the tensors it is stacked in."""
        held = fused_expert_tensors(self.module) if self.stacked else ()
        return (self.name, *self.aliases, *(f"{self.name}.{suffix}" for suffix in held))

    @property
    def name(self) -> str:
        """The module's name."""
        return self.module.name

    @property
    def once(self) -> TensorRef:
        """What is held in memory at once: the weight, of a stack one expert's."""
        return replace(self.weight, shape=self.weight.shape[1:]) if self.experts else self.weight

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
        return max(self.experts, 1) * decoded_size(self.encoded) if self.encoded else self.weight.size

    @property
    def beside(self) -> int:
        """Bytes of what is carried whatever happens to the weight: biases and the like."""
        if self.encoded is None:
            return self.size - self.weight.size
        if self.fused is not None:
            return 0
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
            large = max((ref for ref in module.tensors.values() if len(ref.shape) >= 3), key=lambda ref: ref.size)
            yield Matrix(module, large, stacked=True)


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
