"""MXFP4: golden bytes of the producers, what each does with odd blocks, and the laws of the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from publisher.formats import TensorError, blocks, e2m1, e8m0, floats, mxfp4

GOLDEN = Path(__file__).parents[1] / "golden"
QUARK: dict[str, Any] = json.loads((GOLDEN / "quark-mxfp4.json").read_text())
TIES: dict[str, Any] = json.loads((GOLDEN / "fp4-vectors.json").read_text())["ties"]
WEIGHTS = hnp.arrays(np.float32, (2, 64), elements=st.floats(-1e4, 1e4, width=32))


@pytest.mark.parametrize("case", QUARK["modes"])
def test_golden_bytes_of_quark(case: str) -> None:
    weights = floats.decode(bytes.fromhex(QUARK["weights_bf16"]), "BF16", tuple(QUARK["shape"]))
    ours = mxfp4.quantize(weights, mode=case.split("-")[0], policy=mxfp4.POLICIES["quark-0.13"])  # type: ignore[arg-type]
    assert ours.block_scales.tobytes().hex() == QUARK["modes"][case]["block_scales"]
    assert ours.payload.tobytes().hex() == QUARK["modes"][case]["payload"]


def test_native_differs_from_quark_only_in_the_scale_of_zero_blocks() -> None:
    weights = floats.decode(bytes.fromhex(QUARK["weights_bf16"]), "BF16", tuple(QUARK["shape"]))
    ours = mxfp4.quantize(weights)
    theirs = QUARK["modes"]["even-bf16"]
    assert ours.payload.tobytes().hex() == theirs["payload"]
    scales = np.frombuffer(bytes.fromhex(theirs["block_scales"]), np.uint8).reshape(ours.block_scales.shape)
    zero = blocks.block_amax(weights, 32) == 0
    np.testing.assert_array_equal(ours.block_scales[~zero], scales[~zero])
    assert set(ours.block_scales[zero]) == {0}
    assert set(scales[zero]) == {1}


def test_golden_ties_of_modelopt() -> None:
    values = np.zeros((1, 32), np.float32)
    values[0, :16] = [float(value) for value in TIES["values"]]
    ours = mxfp4.quantize(values, mode="ceil6", policy=mxfp4.POLICIES["modelopt"])
    assert ours.block_scales.tolist() == [[TIES["modelopt_mxfp4"]["block_scale"]]]
    assert ours.payload.tobytes()[:8].hex() == TIES["modelopt_mxfp4"]["packed"][:16]
    assert set(ours.payload.tobytes()[8:]) == {0x88}


@pytest.mark.parametrize(
    ("name", "mode", "code", "byte"),
    [
        ("native", "even", 0, 0x00),
        ("native", "ceil6", 0, 0x00),
        ("quark", "even", 0, 0x00),
        ("quark", "floor", 104, 0x00),
        ("quark-0.13", "even", 1, 0x00),
        ("compressed-tensors", "even", 0, 0x00),
        ("compressed-tensors", "ceil6", 0, 0x00),
        ("modelopt", "ceil6", 0, 0x88),
    ],
)
def test_an_all_zero_block(name: str, mode: e8m0.Mode, code: int, byte: int) -> None:
    ours = mxfp4.quantize(np.zeros((1, 32), np.float32), mode=mode, policy=mxfp4.POLICIES[name])
    assert ours.block_scales.tolist() == [[code]]
    assert set(ours.payload.flat) == {byte}
    assert not ours.dequantize().any()


def test_only_compressed_tensors_and_modelopt_write_negative_zeros() -> None:
    weights = np.array([[6.0, -0.01, -0.0, 0.0] * 8], np.float32)
    codes = {
        name: e2m1.unpack(mxfp4.quantize(weights, mode=next(iter(p.zero_codes)), policy=p).payload)[0, :4].tolist()
        for name, p in mxfp4.POLICIES.items()
    }
    assert codes == {
        "native": [7, 0, 0, 0],
        "quark": [7, 0, 0, 0],
        "quark-0.13": [7, 0, 0, 0],
        "compressed-tensors": [7, 8, 0, 0],
        "modelopt": [7, 8, 8, 8],
    }


def test_a_mode_the_producer_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(TensorError, match=r"quark has no MXFP4 scale mode 'ceil6'.*even, floor, ceil"):
        mxfp4.quantize(np.ones((1, 32), np.float32), mode="ceil6", policy=mxfp4.POLICIES["quark"])


@pytest.mark.parametrize("name", mxfp4.POLICIES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_refused(name: str, bad: float) -> None:
    weights = np.ones((2, 32), np.float32)
    weights[1, 31] = bad
    with pytest.raises(TensorError, match=r"the first at \[1, 31\]"):
        mxfp4.quantize(weights, policy=mxfp4.POLICIES[name])


@pytest.mark.parametrize(
    ("payload", "scales", "said"),
    [
        (np.zeros((2, 16), np.uint8), np.zeros((2, 2), np.uint8), r"must be \(2, 1\)"),
        (np.zeros((2, 8), np.uint8), np.zeros((2, 1), np.uint8), "16 is not divisible"),
        (np.zeros((2, 16), np.float32), np.zeros((2, 1), np.uint8), "payload is float32"),
    ],
)
def test_bytes_that_do_not_belong_together_are_refused(payload: np.ndarray, scales: np.ndarray, said: str) -> None:
    with pytest.raises(TensorError, match=said):
        mxfp4.dequantize(payload, scales)


def test_every_pair_of_codes_dequantizes_to_the_product() -> None:
    payload = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 16, axis=1)
    exact = e2m1.decode(e2m1.unpack(payload)).astype(np.float64) * np.ldexp(1.0, np.arange(256) - 127)[:, None]
    exact[255] = np.nan
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(mxfp4.dequantize(payload, scales), exact.astype(np.float32))


@pytest.mark.parametrize(("mode", "error"), [("even", 0.1122), ("floor", 0.1140), ("ceil", 0.1369), ("ceil6", 0.1184)])
def test_expected_error_on_normal_weights(mode: e8m0.Mode, error: float) -> None:
    """The error depends on where the spread lies between powers of two; 0.02 is a usual initialization."""
    weights = np.random.default_rng(2).normal(0, 0.02, (256, 2048)).astype(np.float32)
    difference = mxfp4.quantize(weights, mode=mode).dequantize() - weights
    assert np.linalg.norm(difference) / np.linalg.norm(weights) == pytest.approx(error, abs=0.001)


@given(WEIGHTS, st.sampled_from(e8m0.MODES))
def test_every_block_uses_the_top_of_its_range(weights: np.ndarray, mode: e8m0.Mode) -> None:
    ours = mxfp4.quantize(weights, mode=mode)
    top = (e2m1.unpack(ours.payload) & 7).reshape(2, 2, 32).max(axis=2)
    usable = blocks.block_amax(weights, 32) > 1e-30
    assert (top[usable] >= {"even": 6, "floor": 6, "ceil6": 5, "ceil": 4}[mode]).all()


@given(WEIGHTS, st.sampled_from(e8m0.MODES))
def test_quantizing_twice_changes_nothing(weights: np.ndarray, mode: e8m0.Mode) -> None:
    """`even` and `floor` can clip a maximum, and a clipped block may keep its scale: values are fixed points."""
    first = mxfp4.quantize(weights, mode=mode).dequantize()
    if mode in ("even", "floor"):
        np.testing.assert_array_equal(mxfp4.quantize(first, mode=mode).dequantize(), first)
    else:
        again = mxfp4.quantize(first, mode=mode).dequantize()
        np.testing.assert_array_equal(mxfp4.quantize(again, mode=mode).dequantize(), again)


@given(WEIGHTS, st.sampled_from(["ceil", "ceil6"]))
def test_modes_that_never_clip_err_by_at_most_one_step(weights: np.ndarray, mode: e8m0.Mode) -> None:
    ours = mxfp4.quantize(weights, mode=mode)
    steps = np.repeat(e8m0.decode(ours.block_scales).astype(np.float64), 32, axis=1)
    error = np.abs(ours.dequantize().astype(np.float64) - weights)
    assert (error <= steps * (1 + 1e-5)).all()


@given(WEIGHTS, st.sampled_from(e8m0.MODES), st.sampled_from(list(mxfp4.POLICIES)))
def test_negated_weights_give_negated_values(weights: np.ndarray, mode: e8m0.Mode, name: str) -> None:
    policy = mxfp4.POLICIES[name]
    if mode not in policy.zero_codes:
        return
    ours = mxfp4.quantize(weights, mode=mode, policy=policy)
    mirrored = mxfp4.quantize(-weights, mode=mode, policy=policy)
    np.testing.assert_array_equal(ours.dequantize(), -mirrored.dequantize())
