"""Weights by rows, whatever they are stored as; the builders' own numbers are what must come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.stored import UnreadableWeight
from publisher.checkpoint.weights import decoded_rows, locate
from tests.builders.sources import fp8, fp8_weight, int4, int4_weight
from tests.builders.tiny import Tensor, Tiny, kimi, mixture, values_of

UP = "language_model.model.layers.1.mlp.experts.2.up_proj"


def opened(folder: Path, tensors: dict[str, Tensor], **config: object) -> Checkpoint:
    return open_checkpoint(Tiny(tensors=tensors, config=dict(config), shards=1).write(folder))


@pytest.mark.parametrize("make", [lambda: int4(kimi()), lambda: fp8(mixture()), lambda: fp8(mixture(), (128, 128))])
def test_a_quantized_source_decodes_to_what_it_stands_for(make: object, tmp_path: Path) -> None:
    stored, meant = make()  # type: ignore[operator]
    checkpoint = open_checkpoint(stored.write(tmp_path))
    forms = set()
    for name, tensor in meant.tensors.items():
        module = name.removesuffix(".weight")
        if name.endswith("_proj.weight"):
            weight = locate(checkpoint, module)
            forms.add(weight.form)
            values = values_of(tensor)
            np.testing.assert_array_equal(decoded_rows(checkpoint, module, 0, weight.rows), values)
            np.testing.assert_array_equal(decoded_rows(checkpoint, module, 5, 17), values[5:17])
    assert forms & {"int4", "fp8"}


@pytest.mark.parametrize(("dtype", "kind"), [("F32", "<f4"), ("F16", "<f2")])
def test_plain_weights_come_as_float32(dtype: str, kind: str, tmp_path: Path) -> None:
    values = np.arange(12, dtype=kind).reshape(3, 4)
    checkpoint = opened(tmp_path, {"a.weight": Tensor(dtype, (3, 4), values.tobytes())})
    rows = decoded_rows(checkpoint, "a", 1, 3)
    assert rows.dtype == np.float32
    assert rows.tolist() == values[1:].tolist()
    assert decoded_rows(checkpoint, "a", 2, 2).shape == (0, 4)


def test_rows_outside_the_matrix_are_refused(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, {"a.weight": Tensor("F32", (3, 4), bytes(48))})
    with pytest.raises(UnreadableWeight, match="3 rows"):
        decoded_rows(checkpoint, "a", 2, 4)


def test_a_partly_used_last_word_is_cut_where_weight_shape_says(tmp_path: Path) -> None:
    tensors, meant = int4_weight(np.random.default_rng(0).normal(0, 1, (4, 64)).astype(np.float32))
    tensors["weight_shape"] = Tensor("I32", (2,), np.array([4, 60], "<i4").tobytes())
    weights = {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}}
    quant = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": weights}
    checkpoint = opened(tmp_path, {f"a.{k}": v for k, v in tensors.items()}, quantization_config=quant)
    np.testing.assert_array_equal(decoded_rows(checkpoint, "a", 0, 4), values_of(meant)[:, :60])


@pytest.mark.parametrize(("shape", "count"), [((), 1), ((1,), 1), ((6,), 6), ((6, 1), 6)])
@pytest.mark.parametrize("suffix", ["weight_scale", "weight_scale_inv"])
def test_fp8_scales_per_tensor_and_per_row(shape: tuple[int, ...], count: int, suffix: str, tmp_path: Path) -> None:
    tensors, _ = fp8_weight(np.random.default_rng(1).normal(0, 1, (6, 8)).astype(np.float32), (6, 8))
    scale = np.linspace(0.5, 2, count).astype(np.float32)
    made = {"a.weight": tensors["weight"], f"a.{suffix}": Tensor("F32", shape, scale.tobytes())}
    rows = decoded_rows(opened(tmp_path, made), "a", 2, 5, intermediate="F32")
    codes = decoded_rows(
        opened(tmp_path / "1", {**made, f"a.{suffix}": Tensor("F32", (), np.float32(1).tobytes())}), "a", 2, 5
    )
    np.testing.assert_array_equal(rows, codes * (scale[2:5, None] if count > 1 else scale))


def test_powers_of_two_scale_mxfp8(tmp_path: Path) -> None:
    codes = Tensor("F8_E4M3", (2, 64), b"\x38" * 128)
    scales = Tensor("U8", (2, 2), bytes([127, 128, 126, 120]))
    rows = decoded_rows(opened(tmp_path, {"a.weight": codes, "a.weight_scale": scales}), "a", 0, 2)
    assert rows[:, ::32].tolist() == [[1, 2], [0.5, 2**-7]]


def change(name: str, tensor: Tensor | None, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    rest = {key: value for key, value in tensors.items() if key != name}
    return rest if tensor is None else {**rest, name: tensor}


INT4 = {f"a.{key}": value for key, value in int4_weight(np.ones((4, 64), np.float32))[0].items()}
FP8 = {f"a.{key}": value for key, value in fp8_weight(np.ones((4, 64), np.float32), (4, 64))[0].items()}
SHAPE = Tensor("I64", (2,), np.array([4, 100], "<i8").tobytes())


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (change("a.weight_scale", None, INT4), "without a matrix"),
        (change("a.weight_scale", Tensor("BF16", (4, 3), bytes(24)), INT4), "scales of shape"),
        (change("a.weight_scale", Tensor("BF16", (2, 2), bytes(8)), INT4), "scales of shape"),
        (change("a.weight_shape", SHAPE, INT4), "claim to be"),
        (change("a.weight_shape", Tensor("F32", (2,), bytes(8)), INT4), "weight_shape is"),
        ({**INT4, "a.weight_zero_point": Tensor("I32", (1, 2), bytes(8))}, "asymmetric"),
        ({**INT4, "a.weight_g_idx": Tensor("I32", (64,), bytes(256))}, "reordered"),
        (change("a.weight_scale_inv", None, FP8), "without scales"),
        (change("a.weight_scale_inv", Tensor("F32", (3, 3), bytes(36)), FP8), "scales of shape"),
        ({"a.weight": Tensor("U8", (4, 4), bytes(16))}, "no weight known"),
        ({"a.weight": Tensor("BF16", (4,), bytes(8))}, "no weight known"),
        ({"a.weight": Tensor("F8_E5M2", (4, 4), bytes(16))}, "no weight known"),
        ({"a.weight_packed": Tensor("U8", (4, 4), bytes(16))}, "no form of a source"),
        ({"b.weight": Tensor("BF16", (4, 4), bytes(32))}, "no weight of this name"),
        ({"a.weight": Tensor("BF16", (4, 5), bytes(32))}, "header describes"),
    ],
)
def test_what_is_not_known_is_refused_with_its_reason(tensors: dict[str, Tensor], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeight, match=reason):
        locate(opened(tmp_path, tensors), "a")


def test_a_row_too_long_to_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.checkpoint.weights.MAX_COLUMNS", 7)
    with pytest.raises(UnreadableWeight, match="8 weights"):
        locate(opened(tmp_path, {"a.weight": Tensor("F32", (2, 8), bytes(64))}), "a")


def test_a_size_no_file_has_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeight, match="header describes"):
        locate(opened(tmp_path, {"a.weight": Tensor("BF16", (1 << 40, 1 << 20), bytes(64))}), "a")
