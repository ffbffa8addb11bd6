"""The GPU's kernels, run by Triton's interpreter on a CPU, and compiled for the GPUs they are meant for.

A subprocess each: Triton decides when it is imported whether it interprets or compiles. What the kernels must give is
the reference arithmetic's bytes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="import triton fails: Triton is not installed here"
    ),
]

INTERPRETED = """
import numpy as np, torch
from triton.runtime.interpreter import InterpretedFunction
from publisher import formats
from publisher.native.kernels import gpu, portable, quantizers, thresholds

# A launch readies the language, and Triton 3 does it again at every call within a kernel: half of all the time.
ready, plain = {gpu.__name__}, InterpretedFunction.__call__

def call(self, *arguments, **named):
    if self.fn.__module__ in ready:
        return self.rewrite()(*arguments, **named)
    ready.add(self.fn.__module__)
    return plain(self, *arguments, **named)

InterpretedFunction.__call__ = call
search = gpu.best_codes

# The search is slow here, so the rows of `works` and difficult ones go through it together, in a tile not full.
def both(few, largest):
    rows = torch.cat((few, weights(few.dtype)[:8].reshape(-1, few.shape[1])))
    gpu.TILE = 256
    found = search(rows, largest)
    gpu.TILE = 128
    assert np.array_equal(found.numpy(), formats.sweep.block_scale_codes(rows.float().numpy(), largest))
    searched.append(few.dtype)
    return found[:len(few)]

gpu.best_codes, searched = both, []

def weights(dtype):
    found = torch.randn((40, 64), generator=torch.Generator().manual_seed(5))
    found *= torch.exp2(torch.arange(40).float() - 26)[:, None]
    found[0], found[1] = 0.0, -0.0
    found[2, ::16] = 6.0 * 448 * 2.0**-9
    found[3] = torch.arange(64) / 8  # every tie of a block whose scale is a power of two
    return found.to(dtype)

for dtype in (torch.bfloat16, torch.float16, torch.float32):
    weight, kind = weights(dtype), gpu.KINDS[dtype]
    exact = weight.float().numpy()
    amax = gpu.block_amax(weight, 16)
    assert np.array_equal(amax.float().numpy(), np.abs(exact).reshape(40, 4, 16).max(2))
    largest = quantizers.largest(amax)
    scale_2, meter = quantizers.global_scale(largest), portable.ErrorMeter.on(weight.device)
    payload, codes = gpu.quantize(weight, amax, 16, *thresholds.nvfp4_rules(float(scale_2), kind), meter)
    wanted = formats.nvfp4.quantize(exact)
    assert np.array_equal(payload.numpy(), wanted.payload), dtype
    assert np.array_equal(codes.numpy(), wanted.block_scales), dtype
    stored = wanted.dequantize()
    assert np.isclose(float(meter.error), np.square(stored - exact, dtype=np.float64).sum(), rtol=1e-4)
    assert np.isclose(float(meter.weight), np.square(exact, dtype=np.float64).sum(), rtol=1e-4)
    for mode in formats.e8m0.MODES:
        wide = gpu.block_amax(weight, 32)
        payload, codes = gpu.quantize(weight, wide, 32, *thresholds.mxfp4_rules(mode, kind), None)
        wanted = formats.mxfp4.quantize(exact, mode=mode)
        assert np.array_equal(payload.numpy(), wanted.payload), (dtype, mode)
        assert np.array_equal(codes.numpy(), wanted.block_scales), (dtype, mode)
    assert gpu.works(weight.device, dtype), dtype
assert searched == [torch.bfloat16, torch.float16]
view = weights(torch.bfloat16)[:, 1:17]  # begins between two words
assert np.array_equal(gpu.block_amax(view, 16).float().numpy()[:, 0], np.abs(view.float().numpy()).max(1))
print("same bytes")
"""

BROKEN = """
import torch, warnings
from publisher.native.kernels import gpu, portable
portable.quantize_mxfp4 = lambda weight, amax, mode: (weight[:, :1], weight)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    assert not gpu.works(torch.device("cpu"), torch.float32)  # 16 bits would be searched too, which is slow here
assert "MXFP4 failed its check; torch computes the same" in str(told[0].message), told
print("told")
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from publisher.native.kernels import gpu

words = {"words": "*i32"}
kernels = {
    gpu._peaks: ({**words, "out": "*i16", "blocks": "i64"}, {"PAIRS": 8, "TILE": gpu.TILE, "WIDE": False}),
    gpu._encode: (
        {**words, "codes": "*u8", "below": "*i16", "halves": "*fp32", "out": "*u8", "sums": "*fp32", "blocks": "i64"},
        {"PAIRS": 8, "TILE": gpu.TILE, "WIDE": False, "KIND": 0, "METER": True},
    ),
    gpu._search: (
        {**words, "edges": "*i32", "steps": "*fp32", "out": "*u8", "blocks": "i64"},
        {"CANDIDATES": 126, "TILE": gpu.TILE, "KIND": 0},
    ),
}
for target in (GPUTarget("cuda", 90, 32), GPUTarget("cuda", 100, 32), GPUTarget("hip", "gfx950", 64)):
    for kernel, (signature, constants) in kernels.items():
        signature = {**signature, **dict.fromkeys(constants, "constexpr")}
        places = {(list(signature).index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=places)
        made = triton.compile(source, target=target, options={"enable_fp_fusion": False})
        code = made.asm["cubin"] if target.backend == "cuda" else made.asm["hsaco"]
        assert len(code) > 1000
        text = made.asm["ptx"] if target.backend == "cuda" else made.asm["amdgcn"]
        if kernel is gpu._search:  # contracted, its losses would not be the reference's
            assert "fma.rn.f32" not in text and "v_fma_f32" not in text and "v_fmac_f32" not in text, target
print("compiled")
"""


def run(code: str, tmp_path: Path, *, interpret: bool) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    environment["TRITON_INTERPRET"] = "1" if interpret else "0"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_reference_arithmetics_bytes(tmp_path: Path) -> None:
    assert "same bytes" in run(INTERPRETED, tmp_path, interpret=True)


def test_kernels_that_fail_their_check_are_not_used(tmp_path: Path) -> None:
    assert "told" in run(BROKEN, tmp_path, interpret=True)


def test_they_compile_for_hopper_blackwell_and_mi350x(tmp_path: Path) -> None:
    assert "compiled" in run(COMPILED, tmp_path, interpret=False)
