"""INT4 as compressed-tensors packs it: its own packer and its own dequantizer are the oracles."""

from __future__ import annotations

import numpy as np
import pytest

from publisher.formats import TensorError, int4


def test_the_first_element_is_the_lowest_nibble_and_eight_is_zero() -> None:
    words = np.array([[0x7654_3210, 0xFEDC_BA98]], np.uint32).astype(np.int64).astype(np.uint32)
    assert int4.unpack(words, 16).tolist() == [list(range(-8, 8))]
    assert int4.unpack(words.view(np.int32), 13).tolist() == [list(range(-8, 5))]


def test_reading_from_the_other_end_reverses_each_word() -> None:
    words = np.array([[0x7654_3210]], np.uint32)
    assert int4.unpack(words, 8, order="high").tolist() == [list(range(-1, -9, -1))]


@pytest.mark.parametrize("columns", [32, 40, 64, 7168])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_compressed_tensors_unpacks_and_dequantizes_the_same(columns: int, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    random = np.random.default_rng(columns)
    integers = torch.from_numpy(random.integers(-8, 8, (5, columns), np.int8))
    group = 8 if columns % 32 else 32
    scales = torch.from_numpy(random.uniform(1e-4, 0.3, (5, columns // group)).astype(np.float32)).to(
        getattr(torch, dtype)
    )
    words = helpers.pack_to_int32(integers, 4)
    assert np.array_equal(int4.unpack(words.numpy(), columns), integers.numpy())
    args = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=group, symmetric=True)
    theirs = dequantize(integers, scales, args=args).float().numpy()
    ours = int4.dequantize(
        words.numpy(),
        scales.float().numpy(),
        columns,
        group=group,
        intermediate="BF16" if dtype == "bfloat16" else "F32",
    )
    if dtype == "float16":
        ours = ours.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(ours, theirs)


def test_rounding_to_bf16_moves_some_products() -> None:
    """Three times a full significand needs more bits than BF16 has; that is why the intermediate must be named."""
    words = np.full((1, 4), 0xBBBB_BBBB, np.uint32)
    scale = np.array([[1.9921875]], np.float32)
    exact = int4.dequantize(words, scale, 32, group=32, intermediate="F32")
    rounded = int4.dequantize(words, scale, 32, group=32)
    assert exact[0, 0] == 3 * 1.9921875
    assert rounded[0, 0] == 5.96875 != exact[0, 0]


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        (np.zeros((2, 4), np.int64), 32),
        (np.zeros((2, 4), np.float32), 32),
        (np.zeros(4, np.int32), 32),
        (np.zeros((2, 4), np.int32), 33),
        (np.zeros((2, 4), np.int32), 24),
    ],
)
def test_what_is_no_matrix_of_words_is_refused(words: np.ndarray, columns: int) -> None:
    with pytest.raises(TensorError):
        int4.unpack(words, columns)


@pytest.mark.parametrize(("shape", "group"), [((2, 2), 32), ((1, 1), 32), ((2, 1), 16), ((2, 1), 0)])
def test_scales_of_another_shape_are_refused(shape: tuple[int, int], group: int) -> None:
    with pytest.raises(TensorError, match="scales have shape"):
        int4.dequantize(np.zeros((2, 4), np.int32), np.ones(shape, np.float32), 32, group=group)
