"""Exports of Quark's file-to-file mode, in an environment of its own: `python quark_exports.py SOURCES OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from quark.torch import ModelQuantizer
from quark.torch.quantization.config.config import OCP_MXFP4Spec, QConfig, QLayerConfig

EXCLUDE = ["lm_head", "*mlp.gate"]


def export(source: Path, out: Path) -> None:
    static = OCP_MXFP4Spec(ch_axis=-1, is_dynamic=False).to_quantization_spec()
    dynamic = OCP_MXFP4Spec(ch_axis=-1, is_dynamic=True).to_quantization_spec()
    layer = QLayerConfig(weight=static, input_tensors=dynamic)
    config = QConfig(global_quant_config=layer, exclude=EXCLUDE)
    ModelQuantizer(config).direct_quantize_checkpoint(str(source), str(out), device="cpu")


if __name__ == "__main__":
    for name in ("slice", "kimi"):
        export(Path(sys.argv[1]) / name, Path(sys.argv[2]) / f"{name}-quark-mxfp4")
