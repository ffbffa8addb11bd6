"""`--on-nan keep`: what is not finite stays as it is, everywhere it is said, and is looked for once."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from publisher import pipeline
from publisher.errors import PublisherError
from publisher.journal import Event, RunDirectory
from publisher.pipeline import Order, finite
from publisher.plan.recipe import load_recipe
from tests.builders.sources import fp8_weight, int4_weight
from tests.builders.tiny import Tensor, bf16, llama, values_of
from tests.cli.conftest import Workspace

UP, GATE = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.gate_proj"


@pytest.fixture
def damaged(tmp_path: Path) -> Workspace:
    tiny = llama()
    values = values_of(tiny.tensors[f"{UP}.weight"]).copy()
    values[1, 2:4] = np.nan, np.inf
    tiny.tensors[f"{UP}.weight"] = bf16(values)
    tiny.write(tmp_path / "source")
    (tmp_path / "card.toml").write_text('base_model = "tiny/tiny"\n')
    return Workspace(tmp_path)


def run(workspace: Workspace, form: str, on_nan: str, until: str = "quantize") -> list[Event]:
    loaded = load_recipe(workspace.folder / workspace.recipe(form))
    order = Order(recipe=loaded, target=loaded.target, to=f"folder:{workspace.folder / 'out'}", on_nan=on_nan)
    events: list[Event] = []
    pipeline.run(pipeline.prepare(order), RunDirectory(workspace.run), events.append, until=until)
    return events


def test_by_default_it_is_refused_by_name(damaged: Workspace) -> None:
    with pytest.raises(PublisherError, match=rf"{UP}\.weight holds 2 NaN or infinite values"):
        run(damaged, "nvfp4", "refuse")
    assert not damaged.checkpoint.exists()


@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_kept_layers_are_the_source_s_bytes_and_are_declared(damaged: Workspace, form: str) -> None:
    events = run(damaged, form, "keep")
    warning = next(event for event in events if event.kind == "warning" and "NaN" in str(event.payload.get("message")))
    assert warning.payload["modules"] == [UP]
    assert warning.payload["kept"] == 2
    record = json.loads((damaged.run / "checkpoint.quantize.json").read_text())
    assert record["not_finite"] == {UP: 2}
    config = json.loads((damaged.checkpoint / "config.json").read_text())["quantization_config"]
    assert {UP, GATE} <= set(config["ignore"] if form == "nvfp4" else config["exclude"])
    stored = next(damaged.checkpoint.glob("*.safetensors"))
    with safe_open(stored, framework="pt") as found:
        names = set(found.keys())
        assert str(found.get_tensor(f"{GATE}.weight").dtype) == "torch.bfloat16"
        kept = found.get_tensor(f"{UP}.weight").view(torch.int16).numpy()
    assert f"{UP}.weight_scale" not in names
    assert "model.layers.0.mlp.down_proj.weight_scale" in names
    assert any(kept.tobytes() in path.read_bytes() for path in damaged.source.glob("*.safetensors"))
    assert np.isnan(kept.view(ml_dtypes.bfloat16).astype(np.float32)[1, 2])


DOWN, OUT = "model.layers.{}.mlp.down_proj", "model.layers.{}.self_attn.o_proj"


@pytest.fixture
def encoded(tmp_path: Path) -> tuple[Workspace, dict[str, np.ndarray]]:
    """One weight each in block-scaled FP8, per-channel FP8, FP8 with powers of two, INT4; what they stand for."""
    tiny, meant = llama(), {}

    def replaced(module: str, tensors: dict[str, Tensor], values: np.ndarray) -> None:
        del tiny.tensors[f"{module}.weight"]
        tiny.tensors |= {f"{module}.{suffix}": tensor for suffix, tensor in tensors.items()}
        meant[module] = values.astype(ml_dtypes.bfloat16)

    tensors, stands = fp8_weight(values_of(tiny.tensors[f"{DOWN.format(0)}.weight"]), (24, 40))
    codes = bytearray(tensors["weight"].data)
    codes[5], codes[-1] = 0x7F, 0xFF
    tensors["weight"].data = bytes(codes)
    values = values_of(stands).copy()
    values.reshape(-1)[[5, -1]] = np.nan
    replaced(DOWN.format(0), tensors, values)

    for module, shape, dtype, scales in (
        (DOWN.format(1), (64, 1), "BF16", np.full((64, 1), 0.5, ml_dtypes.bfloat16)),
        (OUT.format(1), (64, 2), "U8", np.full((64, 2), 126, np.uint8)),
    ):
        columns = tiny.tensors[f"{module}.weight"].shape[1]
        scales[3, 0] = 255 if dtype == "U8" else np.inf
        own = (np.arange(64 * columns) % 60 + 8).astype(np.uint8).reshape(64, columns)
        stored = {"weight": Tensor("F8_E4M3", own.shape, own.tobytes())}
        stored["weight_scale"] = Tensor(dtype, shape, scales.tobytes())
        factors = np.repeat(np.where(scales == 255, np.nan, 0.5) if dtype == "U8" else scales, columns // shape[1], 1)
        replaced(module, stored, own.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * factors.astype(np.float32))

    tensors, stands = int4_weight(values_of(tiny.tensors[f"{OUT.format(0)}.weight"]))
    scale = np.frombuffer(tensors["weight_scale"].data, ml_dtypes.bfloat16).reshape(64, 2).copy()
    scale[9, 1] = np.nan
    tensors["weight_scale"].data = scale.tobytes()
    values = values_of(stands).copy()
    values[9, 32:] = np.nan
    replaced(OUT.format(0), tensors, values)

    tiny.config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [24, 40]}
    tiny.tensors = dict(sorted(tiny.tensors.items()))
    tiny.write(tmp_path / "source")
    (tmp_path / "card.toml").write_text('base_model = "tiny/tiny"\n')
    workspace = Workspace(tmp_path)
    recipe = tmp_path / workspace.recipe("nvfp4")
    recipe.write_text(recipe.read_text().replace("*.mlp.*_proj", "*_proj"))
    return workspace, meant


def test_codes_and_scales_of_encoded_sources(encoded: tuple[Workspace, dict[str, np.ndarray]]) -> None:
    """Each kind of source that is decoded, each with one damage that only its own codes or scales show."""
    workspace, meant = encoded
    loaded = load_recipe(workspace.folder / "nvfp4.yaml")
    order = Order(recipe=loaded, target=loaded.target, to=f"folder:{workspace.folder / 'out'}", on_nan="keep")
    pipeline.run(pipeline.prepare(order), RunDirectory(workspace.run), lambda _: None, until="quantize")
    record = json.loads((workspace.run / "checkpoint.quantize.json").read_text())
    assert record["not_finite"] == {DOWN.format(0): 2, DOWN.format(1): 1, OUT.format(0): 1, OUT.format(1): 1}
    stored = load_file(next(workspace.checkpoint.glob("*.safetensors")))
    kept = {name.removesuffix(".weight") for name in stored if name.endswith("_proj.weight")}
    kept -= {name.removesuffix(".weight_scale") for name in stored}
    assert kept == meant.keys()
    for module, values in meant.items():
        found = stored[f"{module}.weight"].view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        assert np.isnan(values).any() or np.isinf(values).any()
        assert np.array_equal(found.astype(np.float32), values.astype(np.float32), equal_nan=True), module


def test_going_on_does_not_look_again_and_another_source_does(
    damaged: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(damaged, "nvfp4", "keep")
    looked: list[object] = []
    real = finite.not_finite
    monkeypatch.setattr(finite, "not_finite", lambda *a, **k: (looked.append(a), real(*a, **k))[1])
    assert "skip" in {event.kind for event in run(damaged, "nvfp4", "keep") if event.stage == "quantize"}
    assert looked == []
    llama().write(damaged.source)
    run(damaged, "nvfp4", "keep")
    assert len(looked) == 1
    assert json.loads((damaged.run / "checkpoint.quantize.json").read_text())["not_finite"] == {}


def test_a_sound_source_gives_the_plan_without_it(workspace: Workspace) -> None:
    run(workspace, "nvfp4", "keep")
    plan = (workspace.run / "plan.json").read_bytes()
    run(workspace, "nvfp4", "refuse")
    assert (workspace.run / "plan.json").read_bytes() == plan
