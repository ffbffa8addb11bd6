"""Digests of what Quark's file-to-file mode makes of adversarial weights, in an environment of its own.

`PYTHONPATH=REPOSITORY python tests/golden/quark_adversarial.py tests/golden/quark-adversarial.json`, with amd-quark,
torch and safetensors. The weights are made here by numpy from integers alone (`tests/builders/adversarial.py`); their
own digests are kept, so that a test knows that it judges the same ones.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

import torch
from quark.torch import ModelQuantizer
from quark.torch.quantization.config.config import OCP_MXFP4Spec, QConfig, QLayerConfig
from safetensors.torch import load_file, save_file

from tests.builders import adversarial


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def main(out: Path) -> None:
    weights = {
        name: torch.from_numpy(make(32).view("int16").copy()).view(torch.bfloat16)
        for name, make in adversarial.CASES.items()
    }
    layers = {name: f"model.layers.{number}.mlp.up_proj" for number, name in enumerate(weights)}
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "source"), Path(folder, "result")
        source.mkdir()
        save_file(
            {f"{layers[n]}.weight": w for n, w in weights.items()}, source / "model.safetensors", {"format": "pt"}
        )
        (source / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
        specs = [OCP_MXFP4Spec(ch_axis=-1, is_dynamic=dynamic).to_quantization_spec() for dynamic in (False, True)]
        config = QConfig(global_quant_config=QLayerConfig(weight=specs[0], input_tensors=specs[1]), exclude=["lm_head"])
        ModelQuantizer(config).direct_quantize_checkpoint(str(source), str(result), device="cpu")
        made = {k: v for path in sorted(result.glob("*.safetensors")) for k, v in load_file(path).items()}
    found = {
        name: {
            "weights": digest(weights[name]),
            "shape": list(weights[name].shape),
            "payload": digest(made[f"{layers[name]}.weight"]),
            "scales": digest(made[f"{layers[name]}.weight_scale"]),
            "first_payload": made[f"{layers[name]}.weight"][0, :64].contiguous().numpy().tobytes().hex(),
            "first_scales": made[f"{layers[name]}.weight_scale"][0].contiguous().numpy().tobytes().hex(),
        }
        for name in weights
    }
    version = importlib.metadata.version("amd-quark")
    document = {"source": f"amd-quark {version}, direct_quantize_checkpoint on a CPU, MXFP4, even", "cases": found}
    out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
