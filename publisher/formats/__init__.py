"""What the bytes mean: the reference arithmetic of NVFP4 and MXFP4, in numpy and in tables.

Nothing here uses a quantization library, so what is checked with it is checked independently of the engine that wrote
it.

| module | holds |
|---|---|
| `spec` | `FORMATS` (element, block, scales, size), `LAYOUTS` (each dialect's tensor names, which way scales go) |
| `blocks` | checks on matrices, runs of rows, block and group maxima, `TensorError` |
| `e2m1` | the four-bit element: codes, ties, signed zeros, nibble order |
| `e4m3` | NVFP4's block scale |
| `e8m0` | MXFP4's block scale in its four modes |
| `floats` | BF16, F16, F32 bytes as float32, and float32 rounded to BF16 |
| `nvfp4` | quantize and dequantize NVFP4, per producer |
| `mxfp4` | quantize and dequantize MXFP4, per producer |
| `sweep`, `fouroversix` | NVFP4's searches for better block scales |
| `sparse` | paired 4:8: which weights are pruned, and how what is left is stored |
"""

from __future__ import annotations

from publisher.formats import blocks, e2m1, e4m3, e8m0, floats, fouroversix, mxfp4, nvfp4, sparse, spec
from publisher.formats.blocks import TensorError, amax, block_amax, fused_amax
from publisher.formats.mxfp4 import MxFp4Tensor
from publisher.formats.nvfp4 import NvFp4Tensor
from publisher.formats.spec import FORMATS, LAYOUTS, FormatSpec, Layout, TensorRole

__all__ = [
    "FORMATS",
    "LAYOUTS",
    "FormatSpec",
    "Layout",
    "MxFp4Tensor",
    "NvFp4Tensor",
    "TensorError",
    "TensorRole",
    "amax",
    "block_amax",
    "blocks",
    "e2m1",
    "e4m3",
    "e8m0",
    "floats",
    "fouroversix",
    "fused_amax",
    "mxfp4",
    "nvfp4",
    "sparse",
    "spec",
]
