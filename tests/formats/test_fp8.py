"""FP8 weights against torch's E4M3 and ml_dtypes': blocks with ragged edges, rows, whole tensors, any run of rows."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from publisher.formats import TensorError, floats, fp8


def stored(rows: int, columns: int, block: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(rows + columns)
    codes = random.normal(0, 60, (rows, columns)).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return codes, random.uniform(1e-5, 1e-2, fp8.blocks_of(rows, columns, block)).astype(np.float32)


@pytest.mark.parametrize("block", [(128, 128), (24, 40), (1, 300), (300, 300), (7, 1)])
def test_torch_gives_the_same_weights(block: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    rows, columns = 200, 300
    codes, scales = stored(rows, columns, block)
    values = torch.from_numpy(codes.copy()).view(torch.float8_e4m3fn).float()
    wide = torch.from_numpy(scales).repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    theirs = values * wide
    ours = fp8.dequantize(codes, scales, block=block, intermediate="F32")
    np.testing.assert_array_equal(ours, theirs.numpy())
    rounded = fp8.dequantize(codes, scales, block=block)
    np.testing.assert_array_equal(rounded, theirs.bfloat16().float().numpy())


@pytest.mark.parametrize(("begin", "end"), [(0, 1), (10, 40), (23, 24), (47, 50), (24, 48)])
def test_a_run_of_rows_is_the_same_rows(begin: int, end: int) -> None:
    block = (24, 40)
    codes, scales = stored(50, 90, block)
    whole = fp8.dequantize(codes, scales, block=block)
    touched = scales[begin // 24 : -(-end // 24)]
    run = fp8.dequantize(codes[begin:end], touched, block=block, first_row=begin)
    np.testing.assert_array_equal(run, whole[begin:end])


def test_nan_codes_and_nan_scales_stay_nan() -> None:
    codes = np.array([[0x7F, 0x38], [0x38, 0x38]], np.uint8)
    weights = fp8.dequantize(codes, np.array([[1.0], [np.nan]], np.float32), block=(1, 2))
    assert np.isnan(weights).tolist() == [[True, False], [True, True]]


def test_the_intermediate_is_bf16_unless_said_otherwise() -> None:
    codes, scales = stored(4, 8, (4, 8))
    exact = fp8.dequantize(codes, scales, block=(4, 8), intermediate="F32")
    np.testing.assert_array_equal(fp8.dequantize(codes, scales, block=(4, 8)), floats.round_to_bf16(exact))


@pytest.mark.parametrize(
    ("shape", "block"), [((1, 2), (2, 4)), ((1, 1), (2, 4)), ((2, 2), (0, 4)), ((2, 1, 1), (2, 8))]
)
def test_shapes_that_do_not_belong_together_are_refused(shape: tuple[int, ...], block: tuple[int, int]) -> None:
    with pytest.raises(TensorError):
        fp8.dequantize(np.zeros((3, 8), np.uint8), np.ones(shape, np.float32), block=block)
