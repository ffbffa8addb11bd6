"""The tables of formats and layouts, against figures that are known from elsewhere."""

from __future__ import annotations

import pytest

from publisher.formats import FORMATS, LAYOUTS, TensorError, spec


def test_sizes_of_a_published_trillion_parameter_checkpoint() -> None:
    modules, weights = 60 * 384 * 3, 60 * 384 * 3 * 7168 * 2048
    nvfp4 = weights * FORMATS["nvfp4"].bytes_per_weight + modules * 2 * FORMATS["nvfp4"].scalar_bytes
    assert nvfp4 / 1e9 == pytest.approx(570.8, abs=0.05)
    assert weights * FORMATS["mxfp4"].bytes_per_weight / 1e9 == pytest.approx(539.0, abs=0.1)


def test_shapes_of_one_linear() -> None:
    assert FORMATS["nvfp4"].payload_shape(576, 1536) == (576, 768)
    assert FORMATS["nvfp4"].scale_shape(576, 1536) == (576, 96)
    assert FORMATS["mxfp4"].scale_shape(576, 1536) == (576, 48)


@pytest.mark.parametrize(("name", "length"), [("nvfp4", 24), ("mxfp4", 48), ("nvfp4", 0), ("mxfp4", -32)])
def test_a_broken_block_is_refused(name: str, length: int) -> None:
    with pytest.raises(TensorError, match=f"{length} is not divisible by {name}"):
        FORMATS[name].scale_shape(8, length)


@pytest.mark.parametrize(
    ("dialect", "name", "tensors", "direction"),
    [
        ("modelopt", "nvfp4", {"weight": ("U8", (8, 32)), "weight_scale": ("F8_E4M3", (8, 4)),
         "weight_scale_2": ("F32", ()), "input_scale": ("F32", ())}, "multiply"),
        ("quark", "nvfp4", {"weight": ("U8", (8, 32)), "weight_scale": ("F8_E4M3", (8, 4)),
         "weight_scale_2": ("F32", ()), "input_scale_2": ("F32", ())}, "multiply"),
        ("compressed-tensors", "nvfp4", {"weight_packed": ("U8", (8, 32)), "weight_scale": ("F8_E4M3", (8, 4)),
         "weight_global_scale": ("F32", (1,)), "input_global_scale": ("F32", (1,))}, "divide"),
        ("modelopt", "mxfp4", {"weight": ("U8", (8, 32)), "weight_scale": ("U8", (8, 2))}, None),
        ("quark", "mxfp4", {"weight": ("U8", (8, 32)), "weight_scale": ("U8", (8, 2))}, None),
        ("compressed-tensors", "mxfp4", {"weight_packed": ("U8", (8, 32)), "weight_scale": ("U8", (8, 2))}, None),
    ],
)  # fmt: skip
def test_the_tensors_of_each_layout(
    dialect: str, name: str, tensors: dict[str, tuple[str, tuple[int, ...]]], direction: str | None
) -> None:
    layout = LAYOUTS[dialect, name]
    written = {role.suffix: (role.dtype, role.written_shape(layout.spec, 8, 64)) for role in layout.roles}
    assert written == tensors
    assert layout.direction == direction
    assert [role.suffix for role in layout.roles if not role.required] == [s for s in tensors if s.startswith("input")]


def test_every_dialect_has_every_format() -> None:
    assert set(LAYOUTS) == {(d, f) for d in ("modelopt", "quark", "compressed-tensors") for f in FORMATS}


def test_roles_are_found_by_role_and_by_suffix() -> None:
    layout = LAYOUTS["modelopt", "nvfp4"]
    assert layout.find("global_scale") is layout.by_suffix("weight_scale_2")
    assert LAYOUTS["quark", "mxfp4"].find("global_scale") is None
    assert layout.by_suffix("weight_packed") is None


def test_loaders_take_scalars_with_and_without_an_axis_but_no_padded_scales() -> None:
    layout = LAYOUTS["modelopt", "nvfp4"]
    scale, scalar = layout.find("block_scale"), layout.find("global_scale")
    assert scale is not None
    assert scalar is not None
    assert scalar.accepts((), layout.spec, 8, 64)
    assert scalar.accepts((1,), layout.spec, 8, 64)
    assert not scalar.accepts((2,), layout.spec, 8, 64)
    assert scale.accepts((8, 4), layout.spec, 8, 64)
    assert not scale.accepts((128, 4), layout.spec, 8, 64)  # swizzled scales are padded to 128 rows


def test_the_divisor_is_the_product_of_both_maxima() -> None:
    assert spec.NVFP4_DIVISOR == 2688
