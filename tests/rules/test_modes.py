"""What every producer writes in every mode passes the rules on scales and payloads, whatever the weights look like.

Byte by byte these checkpoints are the producers': the reference arithmetic is held against their own code elsewhere,
and two of them quantize here themselves. The searches for the least error are written out from their documentation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.findings import Report
from publisher.formats import blocks, e2m1, e4m3, e8m0, mxfp4, nvfp4
from publisher.rules import load_rules, run
from publisher.subjects import Evidence
from tests.builders.tiny import Tensor, Tiny, f32

SHAPE = (64, 512)
JUDGED = ("SV02", "SV03", "SV04", "SV05", "SV06", "SV07", "SV11", "SV12", "SV13", "SV14", "SV15", "SV17")
Packer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, float | None]]


def weights() -> dict[str, np.ndarray]:
    """Layers as models have them, and some that are rare: pruned, padded, from int4, ternary, with an outlier."""
    rng = np.random.default_rng(3)
    normal = rng.normal(0, 0.02, SHAPE)
    pruned = normal * (np.argsort(rng.random((*SHAPE[:1], SHAPE[1] // 8, 8)), axis=2).reshape(SHAPE) % 4 < 2)
    padded = np.where(np.arange(SHAPE[0])[:, None] < 50, normal, 0)
    holes = np.where(rng.random((SHAPE[0], SHAPE[1] // 32)).repeat(32, axis=1) < 0.1, 0, normal)
    steps = rng.integers(-8, 8, SHAPE) * (0.01 * rng.uniform(0.2, 1, (SHAPE[0], SHAPE[1] // 32)).repeat(32, axis=1))
    outlier = normal.copy()
    outlier[5, 77] = 5.0
    made = {
        "normal": normal,
        "laplace": rng.laplace(0, 0.02, SHAPE),
        "student": rng.standard_t(3, SHAPE) * 0.02,
        "uniform": rng.uniform(-0.1, 0.1, SHAPE),
        "int4": steps,
        "ternary": rng.choice([-0.05, 0, 0.05], SHAPE),
        "pruned": pruned,
        "padded": padded,
        "holes": holes,
        "outlier": outlier,
        "large": normal * 400,
        "small": normal * 1e-2,
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


WEIGHTS = weights()


def policy(name: str) -> Packer:
    def pack(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float | None]:
        made = nvfp4.quantize(values, policy=nvfp4.POLICIES[name])
        return made.payload, made.block_scales, float(made.global_scale)

    return pack


def mx(name: str, mode: e8m0.Mode) -> Packer:
    def pack(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float | None]:
        made = mxfp4.quantize(values, mode=mode, policy=mxfp4.POLICIES[name])
        return made.payload, made.block_scales, None

    return pack


def _searched(values: np.ndarray, codes: np.ndarray, second: np.float32) -> tuple[np.ndarray, np.ndarray, float]:
    """Each block under the first of its candidate scales (candidates, rows, blocks) that has the least error."""
    grouped = values.reshape(len(values), -1, 16)
    best = np.full(grouped.shape[:2], np.inf, np.float32)
    chosen = np.zeros(grouped.shape[:2], np.uint8)
    for candidate in codes:
        step = (e4m3.decode(candidate) * second)[..., None]
        error = np.square(e2m1.decode(e2m1.encode(grouped / step)) * step - grouped).sum(axis=2)
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, candidate, chosen)
    scaled = grouped / (e4m3.decode(chosen) * second)[..., None]
    return e2m1.pack(e2m1.encode(scaled.reshape(values.shape))), chosen, float(second)


def swept(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """modelopt's sweep over all scales, smallest first: a block of zeros ends at the smallest."""
    shape = (len(values), values.shape[1] // 16)
    codes = np.stack([np.full(shape, code, np.uint8) for code in range(1, 0x7F)])
    return _searched(values, codes, np.float32(abs(values).max() / 2688))


def four_over_six(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """modelopt's choice between the largest weight at 6 and at 4; blocks of zeros divide by the global scale."""
    second = np.float32(abs(values).max() / (6 * 256))
    maxima = blocks.block_amax(values, 16)
    per_block = np.where(maxima == 0, 1, maxima / 6)
    limit = np.float32(2.0**-9), np.float32(448)
    codes = np.stack([e4m3.encode(np.clip(per_block * m / second, *limit).astype(np.float32)) for m in (1.0, 1.5)])
    return _searched(values, codes, second)


def static(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """modelopt's static calibration without a search."""
    second = np.float32(abs(values).max() / 2688)
    maxima = blocks.block_amax(values, 16)
    per_block = np.where(maxima == 0, 1, maxima / 6)
    codes = e4m3.encode(np.clip(per_block / second, np.float32(2.0**-9), np.float32(448)).astype(np.float32))
    return _searched(values, codes[None], second)


def modelopt(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """modelopt itself."""
    import torch
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    made, scales, second = NVFP4QTensor.quantize(torch.from_numpy(values.copy()), 16)
    return made._quantized_data.numpy(), scales.contiguous().view(torch.uint8).numpy(), float(second)


def compressed(preset: str, name: str) -> Packer:
    """compressed-tensors itself, on BF16 weights."""

    def pack(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float | None]:
        import torch
        from compressed_tensors.compressors.mxfp4 import MXFP4PackedCompressor
        from compressed_tensors.compressors.nvfp4 import NVFP4PackedCompressor
        from compressed_tensors.quantization import preset_name_to_scheme
        from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

        scheme = preset_name_to_scheme(preset, ["Linear"])
        tensor = torch.from_numpy(values.copy()).to(torch.bfloat16)
        grouped = tensor.unflatten(-1, (-1, 16 if name == "nvfp4" else 32))
        scale = generate_gparam(tensor.min(), tensor.max()) if name == "nvfp4" else None
        scales, _ = calculate_qparams(grouped.amin(-1), grouped.amax(-1), scheme.weights, global_scale=scale)
        state = {"weight": tensor, "weight_scale": scales} | (
            {"weight_global_scale": scale} if scale is not None else {}
        )
        kind = NVFP4PackedCompressor if name == "nvfp4" else MXFP4PackedCompressor
        made = kind.compress(state, scheme)
        codes = made["weight_scale"].contiguous().view(torch.uint8).numpy()
        return made["weight_packed"].numpy(), codes, float(scale) if scale is not None else None

    return pack


NVFP4 = {
    "native": ("weight", policy("native")),
    "modelopt static": ("weight", static),
    "modelopt sweep": ("weight", swept),
    "modelopt four-over-six": ("weight", four_over_six),
    "compressed-tensors": ("weight_packed", policy("compressed-tensors")),
    "compressed-tensors on BF16": ("weight_packed", policy("compressed-tensors-bf16")),
}
MX = {
    f"{name} {mode}": ("weight", mx(name, mode), mode if name != "modelopt" else None)
    for name, policy_ in mxfp4.POLICIES.items()
    for mode in policy_.zero_codes
}


def layers(suffix: str, pack: Packer, repeat: int = 2) -> Iterator[tuple[str, Tensor]]:
    for number, values in enumerate(list(WEIGHTS.values()) * repeat):
        payload, scales, second = pack(values)
        at = f"model.layers.{number}.mlp.down_proj"
        yield f"{at}.{suffix}", Tensor("U8", payload.shape, payload.tobytes())
        yield f"{at}.weight_scale", Tensor("U8" if second is None else "F8_E4M3", scales.shape, scales.tobytes())
        if second is not None:
            name = "weight_scale_2" if suffix == "weight" else "weight_global_scale"
            yield f"{at}.{name}", f32(second, () if suffix == "weight" else (1,))


def judged(suffix: str, pack: Packer, folder: Path, mode: str | None = None) -> Report:
    declared = {"quant_method": "quark", "global_quant_config": {"weight": {"scale_calculation_mode": mode}}}
    config = {"quantization_config": declared} if mode else {}
    tiny = Tiny(tensors=dict(layers(suffix, pack)), config=config, shards=1)
    return run(Evidence(checkpoint=open_checkpoint(tiny.write(folder))), level="full", select=JUDGED)


def said(report: Report) -> list[str]:
    return [f"{finding.code} {finding.message}" for finding in report.findings]


@pytest.mark.parametrize("producer", NVFP4)
def test_no_nvfp4_is_flagged(producer: str, tmp_path: Path) -> None:
    assert said(judged(*NVFP4[producer], tmp_path)) == []


@pytest.mark.parametrize("producer", MX)
def test_no_mxfp4_is_flagged_with_its_mode_declared_or_not(producer: str, tmp_path: Path) -> None:
    suffix, pack, mode = MX[producer]
    for declared in {mode, None}:
        assert said(judged(suffix, pack, tmp_path / str(declared), declared)) == []


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("weight", modelopt),
        ("weight_packed", compressed("NVFP4A16", "nvfp4")),
        ("weight_packed", compressed("MXFP4A16", "mxfp4")),
    ],
    ids=["modelopt", "compressed-tensors nvfp4", "compressed-tensors mxfp4"],
)
def test_the_vendors_own_code_is_not_flagged(suffix: str, pack: Packer, tmp_path: Path) -> None:
    assert said(judged(suffix, pack, tmp_path)) == []


def test_a_declared_mode_that_was_not_used_is_told_once(tmp_path: Path) -> None:
    report = judged("weight", mx("native", "ceil"), tmp_path, "even")
    assert [finding.code for finding in report.findings] == ["SV14"]
    assert "scale mode even never leaves out" in report.findings[0].message


@pytest.mark.parametrize("pack", [policy("native"), swept, mx("native", "floor")], ids=["max", "sweep", "floor"])
def test_weights_moved_after_their_scales_were_chosen_are_no_damage(pack: Packer, tmp_path: Path) -> None:
    """As GPTQ does: scales of the original weights, codes of weights that made up for others' errors."""
    rng = np.random.default_rng(8)

    def moved(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float | None]:
        _, scales, second = pack(values)
        steps = e8m0.decode(scales) if second is None else e4m3.decode(scales) * np.float32(second)
        width = values.shape[1] // scales.shape[1]
        changed = values * rng.normal(1, 0.25, values.shape).astype(np.float32)
        scaled = changed.reshape(len(values), -1, width) / steps[..., None]
        return e2m1.pack(e2m1.encode(scaled.reshape(values.shape).astype(np.float32))), scales, second

    assert said(judged("weight", moved, tmp_path)) == []


def quartered(pack: Packer) -> Packer:
    """Codes of weights that are four times too small for their scales."""

    def small(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float | None]:
        payload, scales, second = pack(values)
        lower = np.array([0, 0, 0, 0, 1, 2, 2, 3], np.uint8)
        codes = e2m1.unpack(payload)
        return e2m1.pack(codes & 8 | lower[codes & 7]), scales, second

    return small


@pytest.mark.parametrize("pack", [policy("native"), swept, mx("native", "even")], ids=["max", "sweep", "even"])
def test_scales_that_are_four_times_too_large_are_told(pack: Packer, tmp_path: Path) -> None:
    report = judged("weight", quartered(pack), tmp_path)
    assert [finding.code for finding in report.findings] == ["SV14"]


def test_a_few_modules_in_another_mode_are_no_damage(tmp_path: Path) -> None:
    turn = itertools.count()

    def mixed(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float | None]:
        return swept(values) if next(turn) == 5 else policy("native")(values)

    assert said(judged("weight", mixed, tmp_path)) == []


def test_the_rules_judged_here_exist() -> None:
    assert set(JUDGED) <= set(load_rules())
