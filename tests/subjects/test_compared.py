"""Weights beside their source: numbers against numpy in float64, what is read, and why two are far apart."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError
from publisher.rules import run
from publisher.subjects import Compared, Comparison, Evidence, Meter, Untouched, sampled
from publisher.subjects.compared import read_comparison
from tests.builders.sources import SOURCES
from tests.builders.tiny import Tensor, Tiny, bf16, f32, llama, mixture, mxfp4, nvfp4, values_of
from tests.builders.watched import Watched

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj"
EXPERT = "model.layers.1.mlp.experts"
Pair = tuple[Tiny, Tiny]


def evidence(pair: Pair, folder: Path, **options: Any) -> Evidence:
    source, result = pair
    return Evidence(
        checkpoint=open_checkpoint(result.write(folder / "result")),
        source=open_checkpoint(source.write(folder / "source")),
        **options,
    )


def compared(pair: Pair, folder: Path, meter: Meter | None = None, **options: Any) -> dict[str, Compared]:
    given = evidence(pair, folder, **options)
    return {c.name: c for c in read_comparison(given, {Compared}, meter or Meter()) if isinstance(c, Compared)}


def stored_values(tiny: Tiny, name: str) -> np.ndarray:
    """What an NVFP4 module of modelopt's stands for, by ml_dtypes."""
    raw = np.frombuffer(tiny.tensors[f"{name}.weight"].data, np.uint8)
    rows, width = tiny.tensors[f"{name}.weight"].shape
    codes = np.stack([raw & 15, raw >> 4], axis=1).reshape(rows, width * 2)
    elements = codes.astype(np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float64)
    scale = np.frombuffer(tiny.tensors[f"{name}.weight_scale"].data, ml_dtypes.float8_e4m3fn).astype(np.float64)
    second = float(np.frombuffer(tiny.tensors[f"{name}.weight_scale_2"].data, "<f4")[0])
    return elements * scale.reshape(rows, -1).repeat(16, axis=1) * second


def test_error_and_cosine_are_those_of_numpy_in_float64(tmp_path: Path) -> None:
    source = llama()
    result = nvfp4(source)
    for name, one in compared((source, result), tmp_path).items():
        weights, values = values_of(source.tensors[f"{name}.weight"]).astype(np.float64), stored_values(result, name)
        norms = np.linalg.norm(weights) * np.linalg.norm(values)
        assert one.rel_rmse == pytest.approx(np.linalg.norm(values - weights) / np.linalg.norm(weights), rel=1e-5)
        assert one.cosine == pytest.approx((weights * values).sum() / norms, rel=1e-6)
        assert one.amax == abs(weights).max()
        assert one.whole


@pytest.mark.parametrize("base", SOURCES)
def test_every_source_is_reproduced_to_the_bit(base: str, tmp_path: Path) -> None:
    meter = Meter()
    found = compared(SOURCES[base](), tmp_path, meter)
    assert found
    assert not meter.left
    assert all(c.verdict.wrong == 0 and c.verdict.blocks > 0 and c.cause is None for c in found.values())
    assert all(c.rel_rmse < 0.16 for c in found.values())


def test_pieces_add_up_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = (s := llama(), nvfp4(s))
    whole = compared(pair, tmp_path / "1")
    monkeypatch.setattr(sampled, "PIECE", 200)
    monkeypatch.setattr("publisher.subjects.compared.SAMPLE", 8)
    pieces = compared(pair, tmp_path / "2")
    for name, one in pieces.items():
        assert one.rel_rmse == pytest.approx(whole[name].rel_rmse, rel=1e-5)
        assert (one.amax, one.looked) == (whole[name].amax, whole[name].looked)
        assert one.verdict.blocks < whole[name].verdict.blocks


def test_a_sample_reads_its_share_and_the_same_one_every_time(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(0, 0.02, (512, 1024)).astype(np.float32)
    source = Tiny(tensors={"model.layers.0.mlp.down_proj.weight": bf16(values)}, config={}, shards=1)
    result = nvfp4(source)
    files, original = Watched(result.write(tmp_path / "r")), Watched(source.write(tmp_path / "s"))
    given = Evidence(checkpoint=open_checkpoint(files), source=open_checkpoint(original), sample=1024)
    files.reads.clear()
    original.reads.clear()
    (one,) = read_comparison(given, {Compared}, Meter())
    assert isinstance(one, Compared)
    assert one.looked == 16 * 1024
    assert one.verdict.blocks == 1024
    assert not one.whole
    assert sum(size for _, _, size in original.reads) == 16 * 1024 * 2
    assert sum(size for path, _, size in files.reads if path.endswith(".safetensors")) == 4 + 16 * (512 + 64)
    rows = sorted(begin // 2048 for _, begin, _ in original.reads)
    assert rows[-1] - rows[0] > 256  # spread over the matrix
    first = list(original.reads)
    original.reads.clear()
    list(read_comparison(given, {Compared}, Meter()))
    assert original.reads == first
    assert one.rel_rmse == pytest.approx(0.095, abs=0.004)


def swap(tiny: Tiny) -> None:
    data = np.frombuffer(tiny.tensors[f"{UP}.weight"].data, np.uint8)
    tiny.tensors[f"{UP}.weight"].data = ((data << 4) | (data >> 4)).astype(np.uint8).tobytes()


def triple(tiny: Tiny) -> None:
    value = np.frombuffer(tiny.tensors[f"{UP}.weight_scale_2"].data, "<f4")[0]
    tiny.tensors[f"{UP}.weight_scale_2"] = f32(3 * float(value))


def noise(tiny: Tiny) -> None:
    rng = np.random.default_rng(3)
    tiny.tensors[f"{UP}.weight"].data = rng.integers(0, 256, 96 * 32, np.uint8).tobytes()


def of_the_other_layer(tiny: Tiny) -> None:
    for suffix in ("weight", "weight_scale", "weight_scale_2"):
        tiny.tensors[f"{UP}.{suffix}"] = tiny.tensors[f"{UP.replace('.0.', '.1.')}.{suffix}"]


@pytest.mark.parametrize(
    ("edit", "cause", "twin"),
    [
        (swap, "swapped", None),
        (triple, "scaled", None),
        (noise, None, None),
        (of_the_other_layer, "other", UP.replace(".0.", ".1.")),
    ],
)
@pytest.mark.parametrize("sample", [None, 64])
def test_the_cause_of_a_large_error_is_found(
    edit: Callable[[Tiny], None], cause: str | None, twin: str | None, sample: int | None, tmp_path: Path
) -> None:
    source = llama()
    result = nvfp4(source)
    edit(result)
    found = compared((source, result), tmp_path, sample=sample)
    assert (found[UP].cause, found[UP].twin) == (cause, twin)
    assert all(one.cause is None for name, one in found.items() if name != UP)


def test_a_packed_weight_of_nan_is_not_finite_and_has_no_error(tmp_path: Path) -> None:
    source = llama()
    result = nvfp4(source)
    result.poke(f"{UP}.weight_scale", 3, 0x7F)
    one = compared((source, result), tmp_path)[UP]
    assert not one.finite
    assert not one.comparable
    assert "rel_rmse" not in one.measured()
    assert one.verdict.blocks == 96 * 4 - 1


def test_an_infinite_source_is_not_sound(tmp_path: Path) -> None:
    source = llama()
    result = nvfp4(source)
    source.poke(f"{UP}.weight", 0, 0x80)
    source.poke(f"{UP}.weight", 1, 0x7F)
    one = compared((source, result), tmp_path)[UP]
    assert not one.sound
    assert not one.comparable


@pytest.mark.parametrize("size", [1e18, 1e-22])
def test_weights_of_any_size_are_compared(size: float, tmp_path: Path) -> None:
    """Squares of these leave float32."""
    source = llama()
    for name, tensor in source.tensors.items():
        source.tensors[name] = bf16(values_of(tensor) * np.float32(size))
    found = compared((source, nvfp4(source)), tmp_path)
    assert all(one.rel_rmse == pytest.approx(0.095, abs=0.01) for one in found.values())


def widened(tiny: Tiny, seed: int | None) -> Tiny:
    """The same weights in F32, moved by less than BF16 can tell where there is a seed."""
    for name, tensor in tiny.tensors.items():
        values = values_of(tensor)
        if seed is not None:
            values = values * (1 + np.random.default_rng(seed).uniform(-1e-3, 1e-3, values.shape).astype(np.float32))
        tiny.tensors[name] = Tensor("F32", tensor.shape, values.astype("<f4").tobytes())
    return tiny


@pytest.mark.parametrize("seed", [None, 4])
def test_a_wide_source_may_have_been_rounded_to_bf16_first(seed: int | None, tmp_path: Path) -> None:
    source = widened(llama(), seed)
    rounded = {n: bf16(np.frombuffer(t.data, "<f4").reshape(t.shape)) for n, t in source.tensors.items()}
    result = nvfp4(Tiny(tensors=rounded, config=source.config, files=source.files))
    given = evidence((source, result), tmp_path)
    found = [c for c in read_comparison(given, {Compared}, Meter()) if isinstance(c, Compared)]
    assert all(c.verdict.wrong == 0 for c in found)
    assert any(c.intermediate == "BF16" for c in found) == (seed is not None)
    report = run(given, level="full", select=["NU"])
    assert report.findings == (), [f.message for f in report.findings]


REASONS: list[tuple[str, Callable[[Tiny], object]]] = [
    ("do not fit", lambda t: setattr(t.tensors[f"{UP}.weight_scale"], "shape", (48, 8))),
    ("it unpacks to", lambda t: t.tensors.update(reshaped(t))),
    ("is no nvfp4 matrix", lambda t: setattr(t.tensors[f"{UP}.weight_scale"], "dtype", "U8")),
    ("no single number", lambda t: t.tensors.__setitem__(f"{UP}.weight_scale_2", Tensor("F32", (2,), bytes(8)))),
    ("no global scale", lambda t: t.tensors.pop(f"{UP}.weight_scale_2")),
    ("smoothed", lambda t: t.tensors.__setitem__(f"{UP}.pre_quant_scale", Tensor("BF16", (64,), bytes(128)))),
    ("not complete", lambda t: t.tensors.pop(f"{UP}.weight_scale")),
]


def reshaped(tiny: Tiny) -> dict[str, Tensor]:
    payload, scale = tiny.tensors[f"{UP}.weight"], tiny.tensors[f"{UP}.weight_scale"]
    return {
        f"{UP}.weight": Tensor("U8", (48, 64), payload.data),
        f"{UP}.weight_scale": Tensor("F8_E4M3", (48, 8), scale.data),
    }


@pytest.mark.parametrize(("reason", "edit"), REASONS, ids=[reason for reason, _ in REASONS])
def test_what_cannot_be_compared_says_why(reason: str, edit: Callable[[Tiny], object], tmp_path: Path) -> None:
    source = llama()
    result = nvfp4(source)
    edit(result)
    report = run(evidence((source, result), tmp_path), level="full", select=["NU04", "NU03", "NU01"])
    left = {entry.code: entry.reason for entry in report.not_run if entry.code in ("NU04", "NU03", "NU01")}
    assert set(left) == {"NU03", "NU04"}
    assert all(text.startswith("not finished: 1 ") and reason in text for text in left.values())
    assert UP not in report.measured
    assert len(report.measured) == 13


def test_the_report_carries_the_numbers_and_only_where_there_are_some(tmp_path: Path) -> None:
    given = evidence((s := mixture(), mxfp4(s)), tmp_path)
    body = run(given, level="full", select=["NU"]).to_json()
    assert len(body["measured"]) == 45
    one = body["measured"][f"{EXPERT}.2.up_proj"]
    assert set(one) == {"share", "blocks", "rel_rmse", "cosine", "mismatch"}
    assert (one["share"], one["mismatch"]) == (1.0, 0.0)
    json.dumps(body, allow_nan=False)
    assert "measured" not in run(given, level="scales").to_json()


def test_a_shard_that_shrinks_ends_the_comparison_and_passes_nothing(tmp_path: Path) -> None:
    given = evidence((s := llama(), nvfp4(s)), tmp_path)
    shard = tmp_path / "source" / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="ends inside"):
        list(read_comparison(given, {Compared}, Meter()))
    report = run(given, level="full", select=["NU03", "NU04"])
    assert report.rules_run == ()
    assert not report.publishable


def test_the_whole_comes_last_with_every_weight(tmp_path: Path) -> None:
    given = evidence((s := llama(), nvfp4(s)), tmp_path)
    subjects = list(read_comparison(given, {Untouched, Compared, Comparison}, Meter()))
    assert [type(s) for s in subjects[-2:]] == [Compared, Comparison]
    whole = subjects[-1]
    assert isinstance(whole, Comparison)
    assert len(whole.modules) == 14
    assert {type(s) for s in subjects[:7]} == {Untouched}


def test_progress_ends_where_it_was_promised(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    meter = Meter(progress=lambda done, total: steps.append((done, total)))
    list(read_comparison(evidence((s := llama(), nvfp4(s)), tmp_path), {Untouched, Compared}, meter))
    assert steps[-1][0] == steps[-1][1] > 0


@pytest.mark.parametrize("seed", range(25))
def test_nonsense_gets_a_verdict(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    pair = rng.choice([lambda: (s := mixture(), nvfp4(s)), *SOURCES.values()])()
    for tiny in pair:
        for name in rng.sample(sorted(tiny.tensors), 4):
            tensor = tiny.tensors[name]
            tensor.dtype = rng.choice(["F32", "U8", "I32", "I64", "F4", "BOOL", "F8_E4M3", "C64", tensor.dtype, "?"])
            tensor.shape = rng.choice([(), (1,), (0,), (3, 4, 5), (10**12, 10**12), tensor.shape, tensor.shape[::-1]])
    report = run(evidence(pair, tmp_path), level="full", select=["NU"])
    assert not [f.message for f in report.findings if "could not finish" in f.message]
    json.dumps(report.to_json(), allow_nan=False)
