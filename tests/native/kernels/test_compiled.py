"""Machine code: the same bytes without numba and with any number of threads, kept per user, no compiler asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from publisher.native import kernels
from publisher.native.kernels import quantizers

pytest.importorskip("numba", reason="numba, the extra `fast`, is not installed")
ROOT = Path(__file__).parents[3]

PROGRAM = """
import hashlib, sys
if {without!r}:
    sys.modules["numba"] = None
import torch
torch.set_num_threads({threads})
from publisher.native import kernels
assert kernels.accelerated() is not {without!r}
digest = hashlib.sha256()
sums = []
for dtype in (torch.bfloat16, torch.float16, torch.float32)[:{kinds}]:
    weight = (torch.randn((640, 2048), generator=torch.Generator().manual_seed(5)) * 0.02).to(dtype)
    weight[7] = 0
    meter = kernels.ErrorMeter.on(weight.device)
    amax = kernels.block_amax(weight, 16)
    parts = [*kernels.quantize_nvfp4(weight, amax, kernels.global_scale(kernels.largest(amax)), meter)]
    parts += kernels.quantize_mxfp4(weight, kernels.block_amax(weight, 32), "ceil", meter)
    few, largest = weight[:48], kernels.largest(amax)
    parts += kernels.quantize_nvfp4_mse(few, amax[:48], largest, kernels.global_scale(largest), meter)
    for part in parts:
        digest.update(part.view(torch.uint8).numpy().tobytes())
    sums += [float(meter.error), float(meter.weight)]
print(digest.hexdigest(), *sums)
"""


def output(cache: Path, threads: int = 2, without: bool = False, kinds: int = 3) -> list[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PATH": "", "OMP_NUM_THREADS": str(threads)}
    program = PROGRAM.format(threads=threads, without=without, kinds=kinds)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A cache that was empty, and what the program that filled it printed."""
    cache: Path = tmp_path_factory.mktemp("compiled") / "cache"
    return cache, output(cache)


@pytest.mark.slow
def test_the_same_bytes_without_numba_and_with_any_number_of_threads(compiled: tuple[Path, list[str]]) -> None:
    cache, (digest, *sums) = compiled
    assert output(cache, threads=1) == [digest, *sums]
    assert output(cache, threads=3) == [digest, *sums]
    plain, *other = output(cache, without=True)
    assert plain == digest
    assert [float(value) for value in other] == pytest.approx([float(value) for value in sums], rel=1e-4)


def test_machine_code_is_kept_where_the_user_keeps_such_things(compiled: tuple[Path, list[str]]) -> None:
    cache, found = compiled
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.nbc")}
    assert len(kept) >= 5
    assert all((cache / "fp4-publisher") in path.parents for path in kept)
    assert output(cache) == found
    assert kept == {path: path.stat().st_mtime_ns for path in cache.rglob("*.nbc")}


@pytest.mark.slow
def test_a_cache_folder_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(output(tmp_path / "cache", kinds=1)) == 3


def test_small_weights_do_not_wait_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizers, "accelerated", lambda: pytest.fail("the compiled kernels were asked for"))
    weight = torch.ones((64, 64), dtype=torch.bfloat16)
    assert kernels.block_amax(weight, 16).shape == (64, 4)
