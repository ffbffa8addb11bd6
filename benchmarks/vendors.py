"""What the vendors' own tools make of a source: `python benchmarks/vendors.py TOOL MODE SOURCE OUT [CALIBRATION]`.

Started in each tool's own environment, because their requirements conflict, so nothing of the project is imported. A
tool without an exporter for the format (torchao) writes the weights' values in float32 into a copy of the source.
CALIBRATION is a text file, a sample a line; 32 samples of at most 256 tokens are used.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAMPLES, LENGTH = 32, 256
LINEARS = (".mlp.", ".self_attn.")


def samples(source: Path, calibration: Path) -> list[Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    texts = [json.loads(line)["text"] for line in calibration.read_text().splitlines()[:SAMPLES]]
    return [tokenizer(text, return_tensors="pt", truncation=True, max_length=LENGTH)["input_ids"] for text in texts]


def modelopt(mode: str, source: Path, out: Path, calibration: Path | None) -> None:
    """NVFP4_DEFAULT_CFG, W4A16_NVFP4_CFG, MXFP4_DEFAULT_CFG … through its Hugging Face exporter."""
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)

    def loop(quantized: Any) -> None:
        for ids in samples(source, calibration) if calibration else [torch.arange(8)[None]]:
            quantized(ids)

    with torch.inference_mode():
        export_hf_checkpoint(mtq.quantize(model, getattr(mtq, mode), loop), export_dir=out)


def torchao(mode: str, source: Path, out: Path, _: Path | None) -> None:
    """`nvfp4`, or an MX scale mode: the values of every linear's weight after a round trip."""
    import torch
    from safetensors.torch import load_file, save_file
    from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    def values(weight: Any) -> Any:
        if mode == "nvfp4":
            scale = per_tensor_amax_to_scale(weight.abs().max())
            return NVFP4Tensor.to_nvfp4(weight.float(), per_tensor_scale=scale).dequantize(torch.float32)
        made = MXTensor.to_mx(weight, torch.float4_e2m1fn_x2, 32, ScaleCalculationMode[mode.upper()])
        return made.dequantize(torch.float32)

    out.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, out)
            continue
        tensors = load_file(path)
        for name in tensors:
            if name.endswith("_proj.weight") and any(part in name for part in LINEARS):
                tensors[name] = values(tensors[name]).contiguous()
        save_file(tensors, out / path.name, metadata={"format": "pt"})


def llm_compressor(mode: str, source: Path, out: Path, calibration: Path | None) -> None:
    """A preset: file to file where activations need no calibration, `oneshot` for NVFP4."""
    from llmcompressor import model_free_ptq, oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    ignore = ["lm_head", "re:.*embed_tokens$"]
    if calibration is None:
        model_free_ptq(str(source), str(out), scheme=mode, ignore=ignore, device="cpu", max_workers=1)
        return
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    rows = [ids[0].tolist() for ids in samples(source, calibration)]
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
    modifier = QuantizationModifier(targets="Linear", scheme=mode, ignore=ignore)
    oneshot(
        model=model, dataset=data, recipe=[modifier], max_seq_length=LENGTH, num_calibration_samples=len(rows)
    )  # the tokenizer stays the source's: transformers rewrites it in some versions
    model.save_pretrained(out, save_compressed=True)


def quark(_mode: str, source: Path, out: Path, _calibration: Path | None) -> None:
    """MXFP4 with dynamic activations, file to file."""
    from quark.torch import ModelQuantizer
    from quark.torch.quantization.config.config import OCP_MXFP4Spec, QConfig, QLayerConfig

    specs = [OCP_MXFP4Spec(ch_axis=-1, is_dynamic=dynamic).to_quantization_spec() for dynamic in (False, True)]
    layer = QLayerConfig(weight=specs[0], input_tensors=specs[1])
    config = QConfig(global_quant_config=layer, exclude=["lm_head"])
    ModelQuantizer(config).direct_quantize_checkpoint(str(source), str(out), device="cpu")


TOOLS: dict[str, Callable[[str, Path, Path, Path | None], None]] = {
    "modelopt": modelopt,
    "torchao": torchao,
    "llm-compressor": llm_compressor,
    "quark": quark,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    tool, wanted, *places = sys.argv[1:]
    given, made, *text = map(Path, places)
    TOOLS[tool](wanted, given.absolute(), made.absolute(), text[0].absolute() if text else None)
