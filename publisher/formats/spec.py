"""The formats and how each checkpoint layout stores them, as tables.

`FORMATS` says what a format is: element, block length, block scale, second level. `LAYOUTS` says what a dialect calls
the tensors of one quantized linear, with their dtypes, shapes and the direction of the global scale. The direction is
the dangerous fact: modelopt and Quark store `amax / 2688`, to be multiplied by, compressed-tensors `2688 / amax`, to be
divided by, and no loader notices a mix-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from publisher.formats import e2m1, e4m3
from publisher.formats.blocks import TensorError

Dialect = Literal["modelopt", "quark", "compressed-tensors"]
Direction = Literal["multiply", "divide"]
Role = Literal["payload", "block_scale", "global_scale", "input_scale"]
ShapeRule = Literal["packed", "blocks", "scalar", "single"]
"""`packed`: (out, in / 2). `blocks`: (out, in / block). `scalar`: (). `single`: (1,)."""

NVFP4_DIVISOR = e2m1.MAX * e4m3.MAX
"""2688: the largest element times the largest block scale, which the tensor's largest weight is mapped to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatSpec:
    """One numeric format.

    Attributes:
        name: as recipes spell it.
        element: name of the element type; `element_values` are its magnitudes by code.
        element_bits: stored bits per weight, scales aside.
        block: weights that share a block scale, along the input axis.
        scale: name of the block scale's type; `scale_dtype` is its safetensors dtype, `scale_bits` its size.
        second_level: dtype of the per-tensor scale, or None.
    """

    name: str
    element: str
    element_values: tuple[float, ...]
    element_bits: int
    block: int
    scale: str
    scale_dtype: str
    scale_bits: int
    second_level: str | None

    @property
    def bytes_per_weight(self) -> float:
        """Payload and block scales; the scalars of a module come on top (`scalar_bytes`)."""
        return (self.element_bits + self.scale_bits / self.block) / 8

    @property
    def scalar_bytes(self) -> int:
        """Bytes of the second-level weight scale of one module."""
        return 4 if self.second_level else 0

    def payload_shape(self, out_features: int, in_features: int) -> tuple[int, int]:
        """Shape of the packed codes, in bytes."""
        self.require_whole_blocks(in_features)
        return out_features, in_features * self.element_bits // 8

    def scale_shape(self, out_features: int, in_features: int) -> tuple[int, int]:
        """Shape of the block scales."""
        self.require_whole_blocks(in_features)
        return out_features, in_features // self.block

    def require_whole_blocks(self, in_features: int) -> None:
        """Refuse an input length that is not a whole number of blocks.

        Raises:
            TensorError: naming both lengths.
        """
        if in_features <= 0 or in_features % self.block:
            raise TensorError(
                f"The input length {in_features} is not divisible by {self.name}'s block length {self.block}.",
                hint="Exclude this module, or choose a format with a shorter block.",
            )


FORMATS: dict[str, FormatSpec] = {
    spec.name: spec
    for spec in (
        FormatSpec(
            name="nvfp4",
            element="E2M1",
            element_values=e2m1.MAGNITUDES,
            element_bits=4,
            block=16,
            scale="E4M3",
            scale_dtype="F8_E4M3",
            scale_bits=8,
            second_level="F32",
        ),
        FormatSpec(
            name="mxfp4",
            element="E2M1",
            element_values=e2m1.MAGNITUDES,
            element_bits=4,
            block=32,
            scale="E8M0",
            scale_dtype="U8",  # loaders hold MX scales as uint8 and would convert an F8_E8M0 tensor by value
            scale_bits=8,
            second_level=None,
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRole:
    """One tensor of a quantized linear.

    Attributes:
        role: what it is.
        suffix: what follows the module's name and a dot.
        dtype: safetensors dtype.
        shape: rule for the shape it is written with.
        required: False for the activation scale, which weight-only and dynamic checkpoints lack.
    """

    role: Role
    suffix: str
    dtype: str
    shape: ShapeRule
    required: bool = True

    def written_shape(self, spec: FormatSpec, out_features: int, in_features: int) -> tuple[int, ...]:
        """The shape a writer gives this tensor."""
        if self.shape == "packed":
            return spec.payload_shape(out_features, in_features)
        if self.shape == "blocks":
            return spec.scale_shape(out_features, in_features)
        return () if self.shape == "scalar" else (1,)

    def accepts(self, shape: tuple[int, ...], spec: FormatSpec, out_features: int, in_features: int) -> bool:
        """Whether a loader takes this shape: exact for matrices, () or (1,) for scalars."""
        if self.shape in ("scalar", "single"):
            return shape in ((), (1,))
        return shape == self.written_shape(spec, out_features, in_features)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one dialect stores one format.

    Attributes:
        dialect: `quant_method` of the checkpoint.
        format: key of `FORMATS`.
        roles: the tensors of one quantized linear.
        direction: what a reader does with the global scale; None where there is none.
    """

    dialect: Dialect
    format: str
    roles: tuple[TensorRole, ...]
    direction: Direction | None = None

    @property
    def spec(self) -> FormatSpec:
        """The format stored."""
        return FORMATS[self.format]

    def find(self, role: Role) -> TensorRole | None:
        """The tensor with this role, if the layout has one."""
        return next((tensor for tensor in self.roles if tensor.role == role), None)

    def by_suffix(self, suffix: str) -> TensorRole | None:
        """The tensor with this suffix, if the layout has one."""
        return next((tensor for tensor in self.roles if tensor.suffix == suffix), None)


def _payload(suffix: str) -> TensorRole:
    return TensorRole(role="payload", suffix=suffix, dtype="U8", shape="packed")


def _block_scale(dtype: str) -> TensorRole:
    return TensorRole(role="block_scale", suffix="weight_scale", dtype=dtype, shape="blocks")


def _scalars(weight: str, activation: str, shape: ShapeRule) -> tuple[TensorRole, TensorRole]:
    return (
        TensorRole(role="global_scale", suffix=weight, dtype="F32", shape=shape),
        TensorRole(role="input_scale", suffix=activation, dtype="F32", shape=shape, required=False),
    )


LAYOUTS: dict[tuple[str, str], Layout] = {
    (layout.dialect, layout.format): layout
    for layout in (
        Layout(
            dialect="modelopt",
            format="nvfp4",
            roles=(
                _payload("weight"),
                _block_scale("F8_E4M3"),
                *_scalars("weight_scale_2", "input_scale", "scalar"),
            ),
            direction="multiply",
        ),
        Layout(
            dialect="quark",
            format="nvfp4",
            roles=(
                _payload("weight"),
                _block_scale("F8_E4M3"),
                *_scalars("weight_scale_2", "input_scale_2", "scalar"),
            ),
            direction="multiply",
        ),
        Layout(
            dialect="compressed-tensors",
            format="nvfp4",
            roles=(
                _payload("weight_packed"),
                _block_scale("F8_E4M3"),
                *_scalars("weight_global_scale", "input_global_scale", "single"),
            ),
            direction="divide",
        ),
        Layout(dialect="modelopt", format="mxfp4", roles=(_payload("weight"), _block_scale("U8"))),
        Layout(dialect="quark", format="mxfp4", roles=(_payload("weight"), _block_scale("U8"))),
        Layout(
            dialect="compressed-tensors",
            format="mxfp4",
            roles=(_payload("weight_packed"), _block_scale("U8")),
        ),
    )
}
"""By (dialect, format). modelopt's MXFP4 can be read, but no serving engine takes it under that `quant_method`."""
