"""Mean squares in the statistics file against the safetensors library: read one by one, refused where damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from publisher.checkpoint import moments, statistics
from publisher.checkpoint.moments import InMemory
from publisher.checkpoint.statistics import Observed, Statistics
from publisher.errors import CheckpointError

METADATA = {"kind": "activation statistics", "schema": "1"}
SEEN = {"a": Observed(3.0, 5), "b": Observed(2.0, 4), "c": Observed(0.0, 0)}
ROWS = {"a": np.array([1, 0.5, 9], np.float32), "b": np.array([4], np.float32)}


def tensors(**changed: np.ndarray) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    for name, one in SEEN.items():
        made |= {f"{name}.input_amax": np.float32(one.amax), f"{name}.tokens": np.int64(one.tokens)}
    made |= {f"{name}.input_mean_square": row for name, row in ROWS.items()}
    return {name: np.asarray(value) for name, value in {**made, **changed}.items()}


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    statistics.write(path, Statistics(modules=SEEN, metadata=METADATA, mean_squares=InMemory(ROWS)))
    with safe_open(path, "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    wanted = tensors()
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in found)


def test_what_the_library_writes_is_read_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_file(tensors(), path, metadata=METADATA)
    found = statistics.read(path)
    assert found.modules == SEEN
    assert [found.mean_squares.length(name) for name in "abcd"] == [3, 1, None, None]
    assert np.array_equal(found.mean_squares.get("a"), ROWS["a"])
    assert found.mean_squares.get("c") is None
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        found.mean_squares.get("a")


def test_sums_of_a_state_are_float64(tmp_path: Path) -> None:
    path, sums = tmp_path / "s.partial", {"a": np.array([1 / 3, 1e300])}
    statistics.write(path, Statistics(modules=SEEN, mean_squares=InMemory(sums, np.dtype("<f8"))))
    again = statistics.read(path).mean_squares
    assert (again.dtype, again.get("a").tolist()) == (np.float64, [1 / 3, 1e300])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a.input_mean_square": np.ones((2, 2), np.float32)}, "shape"),
        ({"a.input_mean_square": np.ones(2, np.float16)}, "F16"),
        ({"a.input_mean_square": np.ones(2, np.int32)}, "I32"),
        ({"d.input_mean_square": np.ones(2, np.float32)}, "d has an input_mean_square and no tokens"),
    ],
)
def test_what_is_no_row_is_refused(change: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_file(tensors(**change), path, metadata=METADATA)
    with pytest.raises(CheckpointError, match=words):
        statistics.read(path)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_a_number_that_is_no_mean_square_is_refused_when_read(value: float, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_file(tensors(**{"b.input_mean_square": np.array([value], np.float32)}), path, metadata=METADATA)
    found = statistics.read(path)
    assert np.array_equal(found.mean_squares.get("a"), ROWS["a"])
    with pytest.raises(CheckpointError, match=r"b\.input_mean_square"):
        found.mean_squares.get("b")


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.safetensors"
    path.write_bytes(b"old")

    class Broken(InMemory):
        def get(self, module: str) -> moments.Row | None:
            raise MemoryError

    with pytest.raises(MemoryError):
        statistics.write(path, Statistics(modules=SEEN, mean_squares=Broken(ROWS)))
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
