"""Global scales of fused layers made equal: what an engine computes with one scale is what the checkpoint meant."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.formats import e4m3
from publisher.repair import into, propose
from publisher.repair.equalize import relative_change, rescaled
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.edits import UP
from tests.builders.tiny import Tiny, f32
from tests.rules.cases import GOOD

GATE = UP.replace("up_proj", "gate_proj")


@pytest.mark.parametrize("ratio", [0.9, 0.5, 1 / 3, 1e-3, 1e-6])
def test_new_codes_are_the_nearest(ratio: float) -> None:
    codes = np.arange(0x80, dtype=np.uint8)
    exact = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(ratio)
    nearest = exact.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    wanted = np.where((codes > 0) & (nearest == 0), 1, nearest)
    assert np.array_equal(rescaled(np.float32(ratio))[:0x80], wanted)


def test_normal_scales_move_by_a_sixteenth_at_most() -> None:
    ratio = np.float32(0.77)
    change = relative_change(rescaled(ratio), ratio)
    assert change[e4m3.DECODE[1:127] * ratio >= 2**-6].max() <= 1 / 16


def scaled(tiny: Tiny, name: str, factor: float, suffix: str) -> None:
    """What a tool does that quantizes a member alone: another global scale, the block scales to fit it."""
    ref = tiny.tensors[f"{name}.{suffix}"]
    value = float(np.frombuffer(ref.data, "<f4")[0])
    scales = tiny.tensors[f"{name}.weight_scale"]
    blocks = np.frombuffer(scales.data, ml_dtypes.float8_e4m3fn).astype(np.float32)
    multiplier = suffix == "weight_scale_2"
    tiny.tensors[f"{name}.{suffix}"] = f32(value * factor if multiplier else value / factor, ref.shape)
    scales.data = np.clip(blocks / factor, 2.0**-9, 448).astype(ml_dtypes.float8_e4m3fn).tobytes()


def block_values(checkpoint: Checkpoint, name: str, suffix: str) -> np.ndarray:
    blocks = np.frombuffer(checkpoint.read(checkpoint.tensors[f"{name}.weight_scale"]), ml_dtypes.float8_e4m3fn)
    value = np.frombuffer(checkpoint.read(checkpoint.tensors[f"{name}.{suffix}"]), "<f4")[0]
    return blocks.astype(np.float64) * (value if suffix == "weight_scale_2" else 1 / value)


@pytest.mark.parametrize(
    ("base", "suffix"), [("llama-nvfp4", "weight_scale_2"), ("llama-ct-nvfp4", "weight_global_scale")]
)
def test_one_scale_serves_all_members(base: str, suffix: str, tmp_path: Path) -> None:
    source, result = GOOD[base]()
    scaled(result, UP, 0.4, suffix)
    before = open_checkpoint(result.write(tmp_path / "result"))
    assert "FU02" in {f.code for f in run(Evidence(checkpoint=before)).errors}
    assert propose(before).changes == ()
    proposal = propose(before, scales=True)
    assert [change.repair for change in proposal.changes] == ["equalize"]
    assert "2.5 times apart" in proposal.changes[0].message
    fixed = open_checkpoint(into(proposal, tmp_path / "fixed"))
    origin = open_checkpoint(source.write(tmp_path / "source"))
    report = run(Evidence(checkpoint=fixed, source=origin, base_model="tiny/tiny"), level="full")
    assert "FU02" not in {f.code for f in report.findings}
    for name in (UP, GATE):
        assert np.allclose(block_values(fixed, name, suffix), block_values(before, name, suffix), rtol=1 / 15)
    changed = {n for n in before.tensors if fixed.read(fixed.tensors[n]) != before.read(before.tensors[n])}
    assert changed == {f"{UP}.weight_scale", f"{UP}.{suffix}"}


def test_a_dead_scale_is_not_spread(tmp_path: Path) -> None:
    _, result = GOOD["llama-nvfp4"]()
    result.tensors[f"{UP}.weight_scale_2"] = f32(0.0)
    proposal = propose(open_checkpoint(result.write(tmp_path)), scales=True)
    assert proposal.changes == ()
    assert "not a positive number" in proposal.refused[0].message
