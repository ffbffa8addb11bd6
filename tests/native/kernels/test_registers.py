"""Elements found by their quarters: as near as any, and the search finds the same where none can be looked up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba, the extra `fast`, is not installed")

import numba
from numba.core.registry import cpu_target

from publisher.formats import e2m1, nvfp4
from publisher.native.kernels import compiled, registers, search, thresholds
from publisher.native.kernels.machine import machine_code
from publisher.native.kernels.vectors import Emitter, vector_code
from tests.native.kernels.test_search import blocks

ROOT = Path(__file__).parents[3]
KIND = "heavy tails"
able = pytest.mark.skipif(not registers.can_look_up(cpu_target.target_context), reason="this processor has no AVX-512")


def _looked_up(clipped: bool):
    @vector_code
    def found(_typing, numbers, _index, out):
        def generate(context, builder, signature, values):
            emit = Emitter(context, builder, signature, values, "numbers index out")
            quarters_of = emit.load("numbers", emit.arguments["index"], registers._FLOATS, 4)
            emit.store(
                registers.element_in_quarters(builder, quarters_of, clipped=clipped), "out", emit.arguments["index"]
            )
            return context.get_dummy_value()

        return numba.void(numbers, numba.int64, out), generate

    return found


@able
@pytest.mark.parametrize("clipped", [True, False])
def test_the_element_that_is_looked_up_is_one_of_the_nearest(clipped: bool) -> None:
    found = _looked_up(clipped)

    @machine_code
    def all_found(numbers, out):
        for index in range(0, numbers.shape[0], 16):
            found(numbers, index, out)

    exact = np.arange(0, 32, 1 / 16, dtype=np.float32)  # all boundaries, and numbers between them
    beside = np.concatenate([np.nextafter(exact[1:], np.float32(0)), np.nextafter(exact, np.float32(99))])
    beyond = np.array([32, 35.9, 1e9, 3e38, np.inf], np.float32) if clipped else np.empty(0, np.float32)
    numbers = np.concatenate([exact, beside[beside < 32], beyond])
    numbers = np.concatenate([numbers, np.zeros(-len(numbers) % 16, np.float32)])
    out = np.empty_like(numbers)
    all_found(numbers, out)
    distances = np.abs(numbers.astype(np.float64)[:, None] - 4 * np.array(e2m1.MAGNITUDES))
    assert np.array_equal(np.abs(numbers.astype(np.float64) - out), distances.min(axis=1))


def worked() -> bytes:
    """Scale codes that were searched, payloads under them, and their error to six digits, of some blocks."""
    values = blocks(KIND, np.random.default_rng(12)).astype(np.float32)
    peaks = np.abs(values).max(axis=1)
    scale = nvfp4.global_scale(peaks.max())
    codes = nvfp4.block_scale_codes(peaks.copy(), scale)
    search.best_codes(values, peaks, search.candidates(float(peaks.max())), codes)
    _, steps = thresholds.nvfp4_rules(float(scale), "F32")
    payload, sums = np.empty((len(values), 8), np.uint8), np.zeros(2)
    compiled.encode(values, codes.reshape(-1, 1), steps, 16, payload, sums)
    return codes.tobytes() + payload.tobytes() + f"{sums[0]:.6g} {sums[1]:.6g}".encode()


@able
@pytest.mark.slow
def test_a_processor_without_the_instruction_finds_the_same(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from numba.core.registry import cpu_target\n"
        "from publisher.native.kernels import registers\n"
        "from tests.native.kernels.test_registers import worked\n"
        "assert not registers.can_look_up(cpu_target.target_context)\n"
        "sys.stdout.buffer.write(worked())\n"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == worked()
