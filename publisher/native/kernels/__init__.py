"""NVFP4 and MXFP4 of a weight, by whichever kernel is fastest here: the bytes are the same."""

from publisher.native.kernels.portable import MXFP4_BLOCK, NVFP4_BLOCK, ErrorMeter, count_not_finite, e8m0_codes
from publisher.native.kernels.quantizers import (
    accelerated,
    block_amax,
    global_scale,
    largest,
    quantize_mxfp4,
    quantize_nvfp4,
    quantize_nvfp4_four_over_six,
    quantize_nvfp4_mse,
)
from publisher.native.kernels.sparse import prune
from publisher.native.threads import thread_by_chunk

__all__ = [
    "MXFP4_BLOCK",
    "NVFP4_BLOCK",
    "ErrorMeter",
    "accelerated",
    "block_amax",
    "count_not_finite",
    "e8m0_codes",
    "global_scale",
    "largest",
    "prune",
    "quantize_mxfp4",
    "quantize_nvfp4",
    "quantize_nvfp4_four_over_six",
    "quantize_nvfp4_mse",
    "thread_by_chunk",
]
