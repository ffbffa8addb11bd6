"""Exports of llm-compressor, in an environment of its own: `python llm_compressor_exports.py SOURCES OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from llmcompressor import model_free_ptq, oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier

IGNORE = ["lm_head", "re:.*mlp.gate$", "re:.*embed_tokens$"]


def file_to_file(source: Path, out: Path, scheme: str) -> None:
    model_free_ptq(str(source), str(out), scheme=scheme, ignore=IGNORE, device="cpu", max_workers=1)


def calibrated(source: Path, out: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    rows = [[(7 * i * (n + 1)) % 250 + 3 for i in range(64)] for n in range(16)]
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * 64] * 16})
    modifier = QuantizationModifier(targets="Linear", scheme="NVFP4", ignore=IGNORE)
    oneshot(model=model, dataset=data, recipe=[modifier], max_seq_length=64, num_calibration_samples=16)
    model.save_pretrained(out, save_compressed=True)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)


if __name__ == "__main__":
    sources, target = Path(sys.argv[1]), Path(sys.argv[2])
    for name in ("slice", "kimi"):
        for scheme in ("NVFP4A16", "MXFP4"):
            file_to_file(sources / name, target / f"{name}-model-free-{scheme.lower()}", scheme)
        calibrated(sources / name, target / f"{name}-oneshot-nvfp4")
