"""The four published recipes on a tiny Kimi of transformers' own class, BF16 and INT4: from calibration to the push.

Every step is the command line's. What comes out is held against the vendors' own arithmetic on the weights that the
source's own library decodes, and against all the rules.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from publisher.checkpoint.open import open_checkpoint
from publisher.plan.library import ready_recipes
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders import moonshot

pytestmark = [pytest.mark.slow, pytest.mark.engine]
ROOT = Path(__file__).parents[2]
KIMI_001, KIMI_002, KIMI_003, KIMI_004 = ready_recipes()
# No fault: an INT4 source leaves shared experts and the dense layer in 16 bits, and 001 packs them.
ARGUED = {(KIMI_001, "int4"): {"NU14"}}


@dataclass(frozen=True)
class Kimi:
    """A source, what its weights are, and what calibration saw."""

    form: str
    folder: Path
    source: Path
    meant: Mapping[str, Tensor]

    def publisher(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "publisher", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module", params=["bf16", "int4"])
def kimi(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kimi:
    folder: Path = tmp_path_factory.mktemp(request.param)
    source = moonshot.write(folder / "source", int4=request.param == "int4")
    weights = moonshot.published(moonshot.model())
    if request.param == "int4":
        _, weights = moonshot.packed(weights)
    words = random.Random(0)
    lines = [" ".join(f"t{words.randrange(3, 250)}" for _ in range(60)) for _ in range(16)]
    (folder / "text.txt").write_text("\n".join(lines))
    (folder / "card.toml").write_text('base_model = "moonshotai/Kimi-K2.6"\n')
    found = Kimi(request.param, folder, source, weights)
    found.publisher("calibrate", "source", "--data", "text.txt", "--samples", "16", "--sequence-length", "64")
    return found


@pytest.fixture(scope="module", params=ready_recipes())
def made(request: pytest.FixtureRequest, kimi: Kimi) -> tuple[Kimi, str, Path]:
    """The source, the recipe's name, and the run that `push` left."""
    name: str = request.param
    statistics = [] if name == KIMI_002 else ["--statistics", "statistics.safetensors"]
    told = ["--source", "source", "--repo", f"me/Kimi-K2.6-{name}", "--card", "card.toml", "--output", f"{name}.yaml"]
    kimi.publisher("recipes", "write", name, *told, *statistics)
    where = ["--to", "folder:hub", "--run-dir", f"runs/{name}", "--yes", "--format", "json"]
    record = json.loads(kimi.publisher("push", f"{name}.yaml", *where).splitlines()[-1])
    assert record["verified"] is True
    return kimi, name, kimi.folder / "runs" / name


def test_every_rule_is_satisfied(made: tuple[Kimi, str, Path]) -> None:
    kimi, name, folder = made
    checkpoint, source = open_checkpoint(folder / "checkpoint"), open_checkpoint(kimi.source)
    report = run(Evidence(checkpoint=checkpoint, source=source, base_model="moonshotai/Kimi-K2.6"), level="full")
    assert {found.code for found in report.findings} == ARGUED.get((name, kimi.form), set())
    assert {found.severity.name for found in report.findings} <= {"INFO"}
    published = json.loads((folder / "publication.json").read_text())
    assert published["findings"] == []


def test_what_is_packed_and_what_is_as_it_was(made: tuple[Kimi, str, Path]) -> None:
    kimi, name, folder = made
    stored = tensors(folder / "checkpoint")
    wanted = [n.removesuffix(".weight") for n in kimi.meant if quantizes(name, n)]
    assert len(wanted) == moonshot.MODULES["every mlp" if name == KIMI_001 else "experts"]
    scaled = {n.removesuffix(".weight_scale") for n in stored if n.endswith(".weight_scale")}
    assert scaled == set(wanted)
    for tensor in [n for n in kimi.meant if n.removesuffix(".weight") not in scaled]:
        assert stored[tensor].dtype == kimi.meant[tensor].dtype, tensor
        assert torch.equal(stored[tensor], kimi.meant[tensor]), tensor
    routers = [n for n in stored if n.endswith("mlp.gate.weight")]
    assert len(routers) == moonshot.LAYERS - 1
    assert all(stored[router].dtype == torch.bfloat16 for router in routers)
    inputs = [n for n in stored if n.endswith((".input_scale", ".input_global_scale"))]
    assert len(inputs) == (0 if name == KIMI_002 else len(wanted))


def test_the_weights_are_the_vendors_own(made: tuple[Kimi, str, Path]) -> None:
    """Payload, block scales and global scale of every matrix, computed by the library whose layout it is."""
    kimi, name, folder = made
    stored = tensors(folder / "checkpoint")
    chosen = [n for n in kimi.meant if quantizes(name, n)]
    weights = {n: halved(kimi.meant[n]) if name == KIMI_003 else kimi.meant[n] for n in chosen}
    for weight in chosen:
        module = weight.removesuffix(".weight")
        for part, expected in VENDOR[name](weights, module).items():
            ours = stored[f"{module}.{part}"]
            assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape), f"{module}.{part}"
            assert torch.equal(raw(ours), raw(expected)), f"{module}.{part}"


def test_of_every_four_pairs_two_are_zero_bytes(made: tuple[Kimi, str, Path]) -> None:
    _, name, folder = made
    if name != KIMI_003:
        return
    payloads = {n: t for n, t in tensors(folder / "checkpoint").items() if n.endswith(".weight_packed")}
    assert len(payloads) == moonshot.MODULES["experts"]
    for name, payload in payloads.items():
        assert ((payload.view(len(payload), -1, 4) != 0).sum(-1) <= 2).all(), name
    card = (folder / "checkpoint/README.md").read_text().lower()
    assert "4:8" in card
    assert "spars" in card


def test_the_configuration_says_what_the_card_says(made: tuple[Kimi, str, Path]) -> None:
    _, name, folder = made
    config = json.loads((folder / "checkpoint/config.json").read_text())
    declared = config["quantization_config"]
    assert "quantization_config" not in config["text_config"], "the source's own declaration is gone"
    if name in (KIMI_001, KIMI_004):
        assert declared["quant_algo"] == "NVFP4"
        assert declared["kv_cache_scheme"] == {"dynamic": False, "num_bits": 8, "type": "float"}
        second = json.loads((folder / "checkpoint/hf_quant_config.json").read_text())["quantization"]
        assert (second["quant_algo"], second["kv_cache_quant_algo"]) == ("NVFP4", "FP8")
    elif name == KIMI_002:
        assert declared["quant_method"] == "quark"
        assert declared["global_quant_config"]["weight"]["scale_calculation_mode"] == "even"
        assert declared["global_quant_config"]["input_tensors"]["is_dynamic"] is True
    else:
        assert declared["format"] == "nvfp4-pack-quantized"
        assert declared["config_groups"]["group_0"]["input_activations"]["dynamic"] == "local"
    card = (folder / "checkpoint/README.md").read_text()
    assert "moonshotai/Kimi-K2.6" in card
    licence = (folder / "checkpoint/LICENSE").read_bytes()
    assert licence == (folder.parents[1] / "source/LICENSE").read_bytes()


# --- what the vendors' libraries make of the same weights ----------------------------------------------------------


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def raw(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def quantizes(name: str, tensor: str) -> bool:
    """By the cards: 001 every MLP of the language model but the routers, the others the routed experts."""
    if not tensor.startswith("language_model.") or not tensor.endswith("_proj.weight"):
        return False
    return ".mlp." in tensor if name == KIMI_001 else ".mlp.experts." in tensor


def halved(weight: Tensor) -> Tensor:
    """+0 for the two of every four pairs with the smaller sums of squares."""
    pairs = weight.float().view(weight.shape[0], -1, 4, 2)
    lost = (pairs**2).sum(-1).argsort(dim=-1, stable=True, descending=True)[..., 2:]
    keep = torch.ones(pairs.shape[:-1], dtype=torch.bool).scatter(-1, lost, False)
    return torch.where(keep[..., None], pairs, 0.0).view(weight.shape).to(weight.dtype)


def fused(weights: Mapping[str, Tensor], module: str) -> Tensor:
    """The largest weight that the module shares its global scale with, float32."""
    parent, _, last = module.rpartition(".")
    mates = ("gate_proj", "up_proj") if last != "down_proj" else (last,)
    return torch.stack([weights[f"{parent}.{mate}.weight"].abs().amax().float() for mate in mates]).amax()


def modelopt_max(weights: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    scale_2 = fused(weights, module) / (6 * 448)
    made, scales, _ = NVFP4QTensor.quantize(weights[f"{module}.weight"].clone(), 16, None, scale_2)
    return {"weight": made._quantized_data, "weight_scale": scales, "weight_scale_2": scale_2}


def modelopt_mse(weights: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """The payload modelopt packs under the scales that were swept; how they are swept is `test_against_modelopt`'s."""
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    from tests.builders.sweeps import swept_scales

    weight, largest = weights[f"{module}.weight"], fused(weights, module)
    scales, scale_2 = swept_scales(weight, largest), largest / (6 * 448)
    made, _, _ = NVFP4QTensor.quantize(weight.clone(), 16, scales, scale_2)
    return {"weight": made._quantized_data, "weight_scale": scales, "weight_scale_2": scale_2}


def quark_even(weights: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """compressed-tensors computes the same mode, but keeps the sign of what rounds to zero; Quark drops it."""
    from compressed_tensors.compressors.mxfp4 import MXFP4PackedCompressor
    from compressed_tensors.quantization import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams

    scheme = preset_name_to_scheme("MXFP4", ["Linear"])
    weight = weights[f"{module}.weight"]
    groups = weight.view(weight.shape[0], -1, 32)
    scale, point = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights)
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": point}
    packed = MXFP4PackedCompressor.compress(state, scheme)
    codes = packed["weight_packed"]
    low, high = codes & 15, codes >> 4
    codes = torch.where(low == 8, 0, low) | torch.where(high == 8, 0, high) << 4
    return {"weight": codes.to(torch.uint8), "weight_scale": packed["weight_scale"].view(torch.uint8)}


def compressed_tensors_max(weights: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    """In float32, as the library computes for weights of that dtype; in BF16 it rounds the global scale first."""
    from compressed_tensors.compressors.nvfp4 import NVFP4PackedCompressor
    from compressed_tensors.quantization import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    scheme = preset_name_to_scheme("NVFP4", ["Linear"])
    weight, largest = weights[f"{module}.weight"].float(), fused(weights, module)
    scale = generate_gparam(-largest.reshape(1), largest.reshape(1))
    groups = weight.view(weight.shape[0], -1, 16)
    block, point = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights, global_scale=scale)
    state = {"weight": weight, "weight_scale": block, "weight_zero_point": point, "weight_global_scale": scale}
    packed = NVFP4PackedCompressor.compress(state, scheme)
    return {name: packed[name] for name in ("weight_packed", "weight_scale", "weight_global_scale")}


VENDOR: Mapping[str, Any] = {
    KIMI_001: modelopt_max,
    KIMI_002: quark_even,
    KIMI_003: compressed_tensors_max,
    KIMI_004: modelopt_mse,
}
