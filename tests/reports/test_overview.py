"""The sample of scales: bytes counted again with numpy, bounded whatever the size, nothing read at level headers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from publisher.checkpoint.files import LocalFiles
from publisher.checkpoint.open import open_checkpoint
from publisher.reports import overview
from tests.builders.tiny import compressed, llama, mixture, mxfp4, nvfp4


class Watched:
    """A folder that counts what is read of its shards, and may claim to be far away."""

    def __init__(self, root: Path, *, far: bool = False) -> None:
        self._files, self._far = LocalFiles(root), far
        self.reads: list[int] = []

    @property
    def label(self) -> str:
        return self._files.label

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._files.sizes

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        data = self._files.read(path, begin, end)
        self.reads.append(len(data))
        return data

    def local(self, path: str) -> Path | None:
        return None if self._far else self._files.local(path)


@pytest.mark.parametrize(
    ("make", "form", "dtype"),
    [
        (nvfp4, "nvfp4", ml_dtypes.float8_e4m3fn),
        (mxfp4, "mxfp4", ml_dtypes.float8_e8m0fnu),
        (lambda s: compressed(s, "nvfp4"), "nvfp4", ml_dtypes.float8_e4m3fn),
    ],
)
def test_histograms_count_every_scale_of_a_small_checkpoint(tmp_path: Path, make, form, dtype) -> None:
    tiny = make(llama())
    seen = overview.look(open_checkpoint(tiny.write(tmp_path)), level="scales")
    for own in seen.histograms:
        names = [own.pattern.replace("*", str(layer)) + ".weight_scale" for layer in range(2)]
        codes = np.concatenate([np.frombuffer(tiny.tensors[name].data, np.uint8) for name in names])
        assert own.format == form
        assert own.counts == tuple(np.bincount(codes, minlength=256))
        assert own.tensors == own.of == 2
        values = codes.view(dtype).astype(np.float32)
        decoded = [float(overview.CODES[form][code]) for code, count in enumerate(own.counts) for _ in range(count)]
        assert sorted(decoded) == sorted(values.tolist())


def test_global_scales_have_a_range_and_odd_ones_are_counted(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.tensors["model.layers.0.mlp.up_proj.weight_scale_2"].data = np.float32(np.nan).tobytes()
    found = overview.look(open_checkpoint(tiny.write(tmp_path)), level="full").ranges
    own = next(r for r in found if r.pattern == "model.layers.*.mlp.up_proj" and r.suffix == "weight_scale_2")
    other = np.frombuffer(tiny.tensors["model.layers.1.mlp.up_proj.weight_scale_2"].data, "<f4")[0]
    assert (own.low, own.middle, own.high, own.odd, own.tensors) == (other, other, other, 1, 2)


def test_nothing_is_read_at_level_headers(tmp_path: Path) -> None:
    files = Watched(nvfp4(mixture()).write(tmp_path))
    checkpoint = open_checkpoint(files)
    files.reads.clear()
    seen = overview.look(checkpoint, level="headers")
    assert files.reads == []
    assert seen.histograms == ()
    assert seen.census.total.count == len(checkpoint.tensors)


def test_of_a_repository_few_requests_are_made(tmp_path: Path) -> None:
    files = Watched(nvfp4(mixture()).write(tmp_path), far=True)
    checkpoint = open_checkpoint(files)
    files.reads.clear()
    seen = overview.look(checkpoint, level="scales")
    assert len(files.reads) <= overview.REMOTE_TENSORS * len(seen.histograms)
    assert seen.ranges == ()
    experts = next(h for h in seen.histograms if h.pattern.endswith("mlp.experts.*.up_proj"))
    assert (experts.tensors, experts.of) == (3, 8)


def test_what_a_header_claims_bounds_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "SAMPLE", 16)
    files = Watched(nvfp4(mixture()).write(tmp_path))
    checkpoint = open_checkpoint(files)
    files.reads.clear()
    overview.look(checkpoint, level="full")
    assert max(files.reads) <= 16


def test_a_shard_that_vanished_leaves_holes_not_an_error(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(nvfp4(llama()).write(tmp_path))
    for shard in tmp_path.glob("*.safetensors"):
        shard.unlink()
    seen = overview.look(checkpoint, level="scales")
    assert seen.histograms == ()
    assert all(own.tensors == 0 for own in seen.ranges)
