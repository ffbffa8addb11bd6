"""What a checkpoint holds, counted: dtypes, roles, classes of modules by layer, the largest tensors, shards.

Everything comes from headers in one pass, so a repository of 500,000 tensors is counted without a tensor byte. How a
module is stored (`stored_as`) is judged by its tensors alone, whatever a configuration claims. Parameters are logical:
a packed byte counts as the two weights it holds, an int4 word as eight, and scales are not counted, unlike the Hub's
own number.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from publisher.checkpoint.experts import STACKS
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module, class_of, layer_of
from publisher.checkpoint.open import Checkpoint

# Tensors that describe other tensors: scales, zero points, shapes. They hold no parameters.
SCALES = frozenset(
    {
        "weight_scale", "weight_scale_2", "weight_scale_inv", "weight_global_scale", "weight_zero_point",
        "weight_shape", "input_scale", "input_scale_2", "input_global_scale", "output_scale", "prob_output_scale",
        "k_scale", "v_scale", "q_scale", "k_bias", "v_bias", "pre_quant_scale", "qzeros", "scales", "g_idx",
    }
)  # fmt: skip
PACKED = {"U8": 2, "I32": 8}  # weights in one stored element
FOUR_BIT = frozenset({"nvfp4", "mxfp4", "int4"})
QUANTIZED = FOUR_BIT | {"mxfp8", "fp8"}
LARGEST = 10
MAX_LAYER = 100_000  # a higher number in a name is no layer

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How much there is of something: tensors or modules, bytes stored, logical parameters."""

    count: int = 0
    bytes: int = 0
    parameters: int = 0

    def plus(self, count: int, size: int, parameters: int) -> Tally:
        """The tally with this much more."""
        return Tally(count=self.count + count, bytes=self.bytes + size, parameters=self.parameters + parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCensus:
    """Modules that differ only in layer and expert number.

    Args:
        pattern: their name with numbers replaced by `*`.
        role: the first one's role.
        tally: modules, bytes of all their tensors, logical parameters.
        forms: how many are stored as nvfp4, mxfp4, int4, fp8, bf16, ...
        cells: layer (None outside layers) to the same count within it.
        shape: stored shape of the largest tensor of the first one.
    """

    pattern: str
    role: str
    tally: Tally
    forms: Mapping[str, int]
    cells: Mapping[int | None, Mapping[str, int]]
    shape: tuple[int, ...]

    @property
    def matrix(self) -> bool:
        """Whether the modules hold a matrix, which alone can be quantized."""
        return len(self.shape) >= 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """A checkpoint counted.

    Args:
        total: all tensors.
        dtypes: by dtype, the most bytes first.
        forms: modules by how they are stored, the most bytes first.
        roles: modules by (role, form), the most bytes first.
        classes: in order of first appearance by name.
        largest: the largest tensors, largest first.
        shards: file sizes by name.
        header_bytes: bytes of all headers.
    """

    total: Tally
    dtypes: Mapping[str, Tally]
    forms: Mapping[str, Tally]
    roles: Mapping[tuple[str, str], Tally]
    classes: tuple[ClassCensus, ...]
    largest: tuple[TensorRef, ...]
    shards: Mapping[str, int]
    header_bytes: int

    @property
    def quantized_parameters(self) -> int:
        """Logical parameters of modules stored in eight bits or less with scales."""
        return sum(tally.parameters for form, tally in self.forms.items() if form in QUANTIZED)

    @property
    def bits_per_parameter(self) -> float | None:
        """Stored bits, scales included, per logical parameter; None where there is none."""
        return self.total.bytes * 8 / self.total.parameters if self.total.parameters else None

    def to_json(self) -> dict[str, Any]:
        """The numbers as one JSON object; of each class only the layers, not every cell."""
        return {
            "tensors": self.total.count,
            "bytes": self.total.bytes,
            "parameters": self.total.parameters,
            "quantized_parameters": self.quantized_parameters,
            "bits_per_parameter": None if self.bits_per_parameter is None else round(self.bits_per_parameter, 4),
            "shards": {"count": len(self.shards), "bytes": sum(self.shards.values()), "headers": self.header_bytes},
            "dtypes": [{"dtype": name, "tensors": t.count, "bytes": t.bytes} for name, t in self.dtypes.items()],
            "forms": [{"form": name, **_modules(tally)} for name, tally in self.forms.items()],
            "roles": [{"role": role, "form": form, **_modules(t)} for (role, form), t in self.roles.items()],
            "classes": [_class_json(item) for item in self.classes],
            "largest": [
                {"name": ref.name, "dtype": ref.dtype, "shape": list(ref.shape), "bytes": ref.size, "file": ref.shard}
                for ref in self.largest
            ],
        }


def _modules(tally: Tally) -> dict[str, int]:
    return {"modules": tally.count, "bytes": tally.bytes, "parameters": tally.parameters}


def _class_json(item: ClassCensus) -> dict[str, Any]:
    layers = sorted(layer for layer in item.cells if layer is not None)
    return {
        "pattern": item.pattern,
        "role": item.role,
        **_modules(item.tally),
        "forms": dict(item.forms),
        "layers": spans(layers),
        "shape": list(item.shape),
    }


def stored_as(module: Module) -> str:
    """How a module's weight is stored, by its tensors: nvfp4, mxfp4, int4, mxfp8, fp8, or its dtype in lower case.

    A packed weight without a scale is `u8` or `i32`: nobody can say what it is.
    """
    weight, scale = module.weight, module.tensors.get("weight_scale")
    if weight is None:
        return _without_weight(module)
    if weight.dtype in ("U8", "I8", "F4"):
        return _four_bit(module, scale, weight.dtype.lower())
    if weight.dtype.startswith("F8"):
        return "mxfp8" if scale is not None and scale.dtype in ("U8", "F8_E8M0") else "fp8"
    if weight.dtype == "I32" and scale is not None:
        return "int4"
    return weight.dtype.lower()


def _four_bit(module: Module, scale: TensorRef | None, otherwise: str) -> str:
    if "weight_scale_2" in module.tensors or "weight_global_scale" in module.tensors:
        return "nvfp4"
    if scale is None:
        return otherwise
    return {"F8_E4M3": "nvfp4", "U8": "mxfp4", "F8_E8M0": "mxfp4"}.get(scale.dtype, otherwise)


def _without_weight(module: Module) -> str:
    """Modules whose tensors have names of their own: fused experts, gpt-oss blocks, AWQ and GPTQ words."""
    if "qweight" in module.tensors:
        return "int4"
    suffix, ref = max(module.tensors.items(), key=lambda item: item[1].size)
    if suffix.endswith("_blocks") and ref.dtype == "U8":
        return "mxfp4"
    if suffix in STACKS and ref.dtype == "U8" and f"{suffix}_weight_scale_2" in module.tensors:
        return "nvfp4"
    return ref.dtype.lower()


def logical_elements(ref: TensorRef, modules: Mapping[str, bool]) -> int:
    """Weights a tensor holds; 0 for scales and what else describes another tensor.

    Args:
        ref: the tensor.
        modules: module name to whether it is stored quantized.
    """
    module, _, suffix = ref.name.rpartition(".")
    return _weights(suffix, ref, modules.get(module, False))


def _stack(suffix: str) -> str:
    """The projection that a tensor of fused experts is named after, with its underscore; empty for others."""
    return next((f"{projection}_" for projection in STACKS if suffix.startswith(f"{projection}_")), "")


def _weights(suffix: str, ref: TensorRef, quantized: bool) -> int:
    if suffix in SCALES or suffix.endswith("_scales") or suffix.removeprefix(_stack(suffix)) in SCALES:
        return 0
    if suffix in STACKS and ref.dtype == "U8":  # modelopt packs fused experts so
        return ref.elements * 2
    if suffix.endswith("_blocks") and ref.dtype == "U8":  # gpt-oss keeps fused experts so
        return ref.elements * 2
    if suffix == "qweight":
        return ref.elements * PACKED.get(ref.dtype, 1)
    if quantized and suffix in ("weight", "weight_packed"):
        return ref.elements * PACKED.get(ref.dtype, 1)
    return ref.elements


@dataclass(slots=True)
class _Class:
    """A class while it is counted."""

    role: str
    shape: tuple[int, ...]
    cells: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    count: int = 0
    bytes: int = 0
    parameters: int = 0


def take(checkpoint: Checkpoint) -> Census:
    """Count a checkpoint by its headers; linear in the number of tensors."""
    forms: dict[str, Tally] = {}
    roles: dict[tuple[str, str], Tally] = {}
    classes: dict[str, _Class] = {}
    parameters = 0
    for module in checkpoint.modules.values():
        form = stored_as(module)
        size = sum(ref.size for ref in module.tensors.values())
        weights = sum(_weights(suffix, ref, module.quantized) for suffix, ref in module.tensors.items())
        parameters += weights
        forms[form] = forms.get(form, Tally()).plus(1, size, weights)
        place = (module.role, form)
        roles[place] = roles.get(place, Tally()).plus(1, size, weights)
        _count(classes, module, form, size, weights)
    headers = checkpoint.shards.values()
    return Census(
        total=Tally(count=len(checkpoint.tensors), bytes=checkpoint.tensor_bytes, parameters=parameters),
        dtypes=_dtypes(checkpoint.tensors.values()),
        forms=_by_bytes(forms),
        roles=_by_bytes(roles),
        classes=tuple(_finished(pattern, item) for pattern, item in classes.items()),
        largest=tuple(heapq.nlargest(LARGEST, checkpoint.tensors.values(), key=lambda ref: ref.size)),
        shards={header.shard: header.file_size for header in headers},
        header_bytes=sum(header.data_start for header in headers),
    )


def _count(classes: dict[str, _Class], module: Module, form: str, size: int, weights: int) -> None:
    pattern = class_of(module.name)
    found = classes.get(pattern)
    if found is None:
        largest = max(module.tensors.values(), key=lambda ref: ref.size)
        found = classes[pattern] = _Class(module.role, (module.weight or largest).shape)
    layer = layer_of(module.name)
    found.cells[layer if layer is not None and layer <= MAX_LAYER else None, form] += 1
    found.count += 1
    found.bytes += size
    found.parameters += weights


def _finished(pattern: str, item: _Class) -> ClassCensus:
    forms: Counter[str] = Counter()
    cells: dict[int | None, dict[str, int]] = {}
    for (layer, form), count in item.cells.items():
        forms[form] += count
        cells.setdefault(layer, {})[form] = count
    return ClassCensus(
        pattern=pattern,
        role=item.role,
        tally=Tally(count=item.count, bytes=item.bytes, parameters=item.parameters),
        forms=dict(forms.most_common()),
        cells=cells,
        shape=item.shape,
    )


def _dtypes(tensors: Iterable[TensorRef]) -> dict[str, Tally]:
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for ref in tensors:
        counts[ref.dtype] += 1
        sizes[ref.dtype] += ref.size
    return {name: Tally(count=counts[name], bytes=size) for name, size in sizes.most_common()}


def _by_bytes(found: Mapping[_Key, Tally]) -> dict[_Key, Tally]:
    return dict(sorted(found.items(), key=lambda item: -item[1].bytes))


def spans(numbers: Iterable[int]) -> str:
    """Sorted numbers as people write them: `0–3, 5, 7–60`."""
    parts: list[str] = []
    start = previous = -2
    for number in numbers:
        if number == previous + 1:
            parts[-1] = f"{start}–{number}"
        else:
            start = number
            parts.append(str(number))
        previous = number
    return ", ".join(parts)
