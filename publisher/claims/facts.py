"""What a checkpoint's files say of the things that cards speak of: counts, sizes, formats, modules, producer.

Each fact is computed when a claim asks for it, from headers and JSON files that are already open; a fact that the
files do not tell is None, and a claim about it is not judged.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publisher.checkpoint.census import PACKED, QUANTIZED, logical_elements, stored_as
from publisher.checkpoint.modules import Module, layer_of
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.errors import PublisherError
from publisher.matching import exact_or_regex_excluded, modelopt_excluded

CONFIG = "config.json"
HEADERS = "shard headers"
_INPUTS = ("input_scale", "input_scale_2", "input_global_scale")
_EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts")
_SCALES = {"F8_E4M3": "E4M3", "U8": "E8M0", "F8_E8M0": "E8M0"}


@dataclass(frozen=True)
class Facts:
    """The facts of one checkpoint; `base_model` is the source's Hub name where it is known."""

    checkpoint: Checkpoint
    metadata: Mapping[str, Any]
    base_model: str | None = None

    @property
    def quant(self) -> QuantConfig | None:
        """The declaration engines obey."""
        return self.checkpoint.quant

    @functools.cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json, the language model's own keys first."""
        whole = self.checkpoint.config
        nested = whole.get("text_config")
        return {**whole, **nested} if isinstance(nested, Mapping) else whole

    def number(self, *keys: str) -> int | None:
        """The first of these keys of the configuration that holds a positive integer."""
        for key in keys:
            value = self.config.get(key)
            if type(value) is int and 0 < value < 10**15:
                return value
        return None

    @property
    def format(self) -> str | None:
        """nvfp4, mxfp4, ... as declared."""
        return self.quant.format if self.quant is not None else None

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Bytes that may be meant by the size of a checkpoint: its tensors, its shards, all files."""
        shards = sum(header.file_size for header in self.checkpoint.shards.values())
        return (self.checkpoint.tensor_bytes, shards, sum(self.checkpoint.files.sizes.values()))

    @functools.cached_property
    def parameters(self) -> int:
        """Logical parameters: a packed byte is two, scales are none."""
        quantized = {name: module.quantized for name, module in self.checkpoint.modules.items()}
        return sum(logical_elements(ref, quantized) for ref in self.checkpoint.tensors.values())

    @functools.cached_property
    def _stored(self) -> tuple[tuple[Module, bool], ...]:
        """Every module with a matrix, and whether it is stored quantized."""
        return tuple(_matrices(self.checkpoint.modules.values()))

    @functools.cached_property
    def roles(self) -> Mapping[str, tuple[int, int]]:
        """(modules stored quantized, modules kept) of every role."""
        found: dict[str, list[int]] = {}
        for module, quantized in self._stored:
            found.setdefault(module.role, [0, 0])[not quantized] += 1
        return {role: (counts[0], counts[1]) for role, counts in found.items()}

    @functools.cached_property
    def quantized(self) -> tuple[Module, ...]:
        """Modules stored quantized."""
        return tuple(module for module, quantized in self._stored if quantized)

    def kept(self, role: str) -> list[str]:
        """Names of the modules of a role that are stored unquantized."""
        return [module.name for module, quantized in self._stored if not quantized and module.role == role]

    @functools.cached_property
    def experts(self) -> int | None:
        """Routed experts of a layer."""
        return self.number(*_EXPERTS)

    @functools.cached_property
    def moe_layers(self) -> int | None:
        """Layers with routed experts, by the names of their tensors; None where none has any."""
        layers = {layer_of(module.name) for module, _ in self._stored if module.role == "expert"}
        return len(layers - {None}) or None

    @functools.cached_property
    def group_sizes(self) -> frozenset[int]:
        """Weights that share a block scale: by the shapes of each class of quantized modules, and as declared."""
        kinds = {module.kind: module for module in self.quantized}
        found = {length for module in kinds.values() if (length := _block(module)) is not None}
        declared = self.quant.group_sizes if self.quant is not None else ()
        return frozenset({*found, *declared})

    @functools.cached_property
    def scale_codes(self) -> frozenset[str]:
        """How block scales are stored: E4M3, E8M0."""
        kinds = {module.kind: module for module in self.quantized}
        dtypes = (module.tensors["weight_scale"].dtype for module in kinds.values() if "weight_scale" in module.tensors)
        return frozenset(_SCALES[dtype] for dtype in dtypes if dtype in _SCALES)

    @functools.cached_property
    def input_scales(self) -> int:
        """Quantized modules with a stored scale of their input."""
        return sum(any(name in module.tensors for name in _INPUTS) for module in self.quantized)

    @functools.cached_property
    def cache_scales(self) -> int:
        """Stored scales of the key-value cache."""
        return sum(ref.name.rpartition(".")[2] in ("k_scale", "v_scale") for ref in self.checkpoint.tensors.values())

    @functools.cached_property
    def producer(self) -> tuple[str, str, str] | None:
        """Tool, its version, and the file that names them."""
        declared = [(d.raw, d.origin.partition(":")[0]) for d in self.checkpoint.declarations]
        for raw, file in declared:
            found = raw.get("producer")
            if isinstance(found, Mapping):
                name, version = found.get("name"), found.get("version")
                if isinstance(name, str) and isinstance(version, str) and version:
                    return name, version, file
            version = raw.get("version")
            if raw.get("quant_method") == "quark" and isinstance(version, str) and version:
                return "quark", version, file
        return None

    @property
    def custom_code(self) -> bool:
        """Whether loading runs code of the repository."""
        return bool(self.checkpoint.config.get("auto_map"))

    def unlisted(self, role: str) -> int | None:
        """How many kept modules of a role the exclude list does not name; None where the list cannot be read."""
        quant = self.quant
        if quant is None:
            return None
        names = self.kept(role)
        reading = modelopt_excluded if quant.dialect == "modelopt" else exact_or_regex_excluded
        try:
            return len(names) - len(frozenset(reading(quant.ignore, names)))
        except PublisherError:
            return None


def _matrices(modules: Any) -> Iterator[tuple[Module, bool]]:
    for module in modules:
        weight = module.weight
        shape = (weight or max(module.tensors.values(), key=lambda ref: ref.size)).shape
        if len(shape) >= 2:
            yield module, stored_as(module) in QUANTIZED


def _block(module: Module) -> int | None:
    weight, scale = module.weight, module.tensors.get("weight_scale")
    if weight is None or scale is None or not weight.shape or not scale.shape or not scale.shape[-1]:
        return None
    length, rest = divmod(weight.shape[-1] * PACKED.get(weight.dtype, 1), scale.shape[-1])
    return length if not rest and len(scale.shape) > 1 else None
