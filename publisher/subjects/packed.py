"""One FP4 module's tensors as a matrix whose rows can be read: payload, block scales and the global scale together.

Of experts that modelopt packs in one tensor, (E, in / 2, out) with scales (E, in / 16, out) and one global scale, each
is such a matrix too; its slab is turned around when the first of its rows is read, and kept until it is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from publisher.checkpoint.experts import MAX_TRANSPOSED
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import MAX_COLUMNS, UnreadableWeight
from publisher.errors import CheckpointError
from publisher.formats.blocks import Float32Array, UInt8Array
from publisher.formats.makers import Sample
from publisher.formats.spec import Direction
from publisher.subjects.evidence import Meter
from publisher.subjects.modules import BLOCK, module_format, stack_of
from publisher.subjects.reading import readable
from publisher.subjects.scalars import FLOATS, scalar_of

GLOBALS: dict[str, Direction] = {"weight_scale_2": "multiply", "weight_global_scale": "divide"}
_SCALES = {"nvfp4": ("F8_E4M3",), "mxfp4": ("U8", "F8_E8M0")}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeight:
    """A packed weight (rows, columns) = (out, in).

    Args:
        checkpoint: where.
        module: whose.
        format: nvfp4 or mxfp4.
        payload: its tensor, two codes a byte.
        scales: its block scales.
        global_scale: the stored scalar as it stands, whatever it is; None for MX.
        direction: which way it goes.
        meter: counts what is read.
        expert: which matrix of a stack.
        slabs: what was read of a stack, turned around.
    """

    checkpoint: Checkpoint
    module: Module
    format: str
    payload: TensorRef
    scales: TensorRef
    global_scale: np.float32 | None
    direction: Direction | None
    meter: Meter
    expert: int | None = None
    slabs: dict[str, UInt8Array] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Output features."""
        return self.payload.shape[0 if self.expert is None else 2]

    @property
    def columns(self) -> int:
        """Input features."""
        return self.payload.shape[1] * 2

    @property
    def size(self) -> int:
        """Bytes of payload and scales."""
        return (self.payload.size + self.scales.size) // (1 if self.expert is None else self.payload.shape[0])

    def codes(self, begin: int, end: int) -> UInt8Array:
        """Payload of some rows, uint8 (end - begin, columns / 2)."""
        return self._rows(self.payload, begin, end)

    def sample(self, begin: int, end: int, weights: Float32Array) -> Sample:
        """Some rows beside their source.

        Raises:
            CheckpointError: the shard is shorter than its header says.
        """
        return Sample(
            format=self.format,
            weights=weights,
            payload=self._rows(self.payload, begin, end),
            scales=self._rows(self.scales, begin, end),
            global_scale=self.global_scale,
            direction=self.direction,
        )

    def forget(self) -> None:
        """Let go of what was read of a stack."""
        self.slabs.clear()

    def _turned(self, ref: TensorRef, expert: int) -> UInt8Array:
        if ref.name not in self.slabs:
            deep, tall = ref.shape[1:]
            first = ref.begin + expert * deep * tall
            raw = self.meter.read(self.checkpoint.files, ref.shard, first, first + deep * tall)
            if len(raw) != deep * tall:
                raise CheckpointError(
                    f"{ref.shard} ends inside the tensor {ref.name}.", hint="Copy or download the shard again."
                )
            self.slabs[ref.name] = np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(deep, tall).T)
        return self.slabs[ref.name]

    def _rows(self, ref: TensorRef, begin: int, end: int) -> UInt8Array:
        if self.expert is not None:
            return self._turned(ref, self.expert)[begin:end]
        width = ref.shape[1]
        first = ref.begin + begin * width
        raw = self.meter.read(self.checkpoint.files, ref.shard, first, first + (end - begin) * width)
        if len(raw) != (end - begin) * width:
            raise CheckpointError(
                f"{ref.shard} ends inside the tensor {ref.name}.", hint="Copy or download the shard again."
            )
        return np.frombuffer(raw, np.uint8).reshape(end - begin, width)


def open_packed(checkpoint: Checkpoint, module: Module, meter: Meter) -> PackedWeight:
    """Put a module's tensors together.

    Raises:
        UnreadableWeight: they do not belong together; the message is a reason without the module's name.
    """
    form, payload, scales = module_format(checkpoint, module), module.weight, module.tensors.get("weight_scale")
    if form not in BLOCK or payload is None or scales is None:
        raise UnreadableWeight("its FP4 tensors are not complete")
    if payload.dtype != "U8" or len(payload.shape) != 2 or 0 in payload.shape or scales.dtype not in _SCALES[form]:
        raise UnreadableWeight(f"payload {payload.dtype[:20]} with scales {scales.dtype[:20]} is no {form} matrix")
    rows, width = payload.shape
    if scales.shape != (rows, width * 2 // BLOCK[form]) or width * 2 % BLOCK[form]:
        raise UnreadableWeight(f"scales of shape {list(scales.shape)[:3]} do not fit a payload of {rows} x {width}")
    if width * 2 > MAX_COLUMNS:
        raise UnreadableWeight(f"rows of {width * 2:,} weights are not read")
    if "pre_quant_scale" in module.tensors:
        raise UnreadableWeight("its weights were smoothed (pre_quant_scale) and no longer match the source's")
    if not (readable(checkpoint, payload) and readable(checkpoint, scales)):
        raise UnreadableWeight("its bytes are not those the header describes")
    scale, direction = _global(checkpoint, module, form, meter)
    return PackedWeight(
        checkpoint=checkpoint,
        module=module,
        format=form,
        payload=payload,
        scales=scales,
        global_scale=scale,
        direction=direction,
        meter=meter,
    )


def open_stacks(checkpoint: Checkpoint, meter: Meter) -> Iterator[PackedWeight]:
    """Every expert that is packed with the others of its layer, as modelopt stores them, in file order.

    Raises:
        UnreadableWeight: the tensors of a stack do not belong together; the message is a reason without its name.
    """
    stacks = [module for module in checkpoint.modules.values() if stack_of(module)]
    for module in sorted(stacks, key=lambda m: (m.ref.shard, m.ref.begin)):
        for projection in stack_of(module):
            yield from _stack(checkpoint, module, projection, meter)


def _stack(checkpoint: Checkpoint, module: Module, projection: str, meter: Meter) -> Iterator[PackedWeight]:
    payload, scales = (module.tensors[f"{projection}{suffix}"] for suffix in ("", "_weight_scale"))
    count, half, rows = payload.shape
    block = BLOCK["nvfp4"]
    if 0 in payload.shape or scales.shape != (count, half * 2 // block, rows) or half * 2 % block:
        raise UnreadableWeight(f"scales of shape {list(scales.shape)[:4]} do not fit a stack of {list(payload.shape)}")
    if half * rows > MAX_TRANSPOSED or not (readable(checkpoint, payload) and readable(checkpoint, scales)):
        raise UnreadableWeight("its bytes are not those the header describes, or too many to turn around")
    named = {"weight": payload, "weight_scale": scales}
    ref = module.tensors.get(f"{projection}_weight_scale_2")
    if ref is not None:
        named["weight_scale_2"] = ref
    scale, direction = _global(checkpoint, Module(module.name, module.role, named, module.kind), "nvfp4", meter)
    for expert in range(count):
        name = f"{module.name}.{expert}.{projection}"
        yield PackedWeight(
            checkpoint=checkpoint,
            module=Module(name, module.role, named, f"{module.kind}.*.{projection}"),
            format="nvfp4",
            payload=payload,
            scales=scales,
            global_scale=scale,
            direction=direction,
            meter=meter,
            expert=expert,
        )


def _global(
    checkpoint: Checkpoint, module: Module, form: str, meter: Meter
) -> tuple[np.float32 | None, Direction | None]:
    if form != "nvfp4":
        return None, None
    for suffix, direction in GLOBALS.items():
        ref = module.tensors.get(suffix)
        if ref is not None:
            if ref.dtype not in FLOATS or ref.elements != 1 or not readable(checkpoint, ref):
                raise UnreadableWeight(f"its {suffix} is no single number")
            raw = np.frombuffer(meter.read(checkpoint.files, ref.shard, ref.begin, ref.end), np.uint8)
            if len(raw) != ref.size:
                raise CheckpointError(f"{ref.shard} ends inside {ref.name}.", hint="Copy or download the shard again.")
            return scalar_of(ref.dtype, raw), direction
    raise UnreadableWeight("it has no global scale")
