"""Which runs are one model, and what two of them with the same seed mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.evals.results import Key
from publisher.evals.sides import sides, split
from tests.evals.conftest import document, write

SCORES = {"quiz:acc,none": (0.5, 0.01)}


def test_runs_of_one_model_are_one_side_and_a_label_joins_several(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / str(seed), document(SCORES, seed=seed, model_name=f"org/{'b' if seed == 3 else 'a'}"))
        for seed in (1, 2, 3)
    ]
    found = sides(paths, "baseline")
    assert [(side.label, len(side.runs)) for side in found] == [("org/a", 2), ("org/b", 1)]
    (joined,) = sides([f"BF16={path}" for path in paths], "baseline")
    assert (joined.label, len(joined.runs)) == ("BF16", 3)


def test_a_run_named_twice_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a", document(SCORES))
    (side,) = sides([path, str(tmp_path / "a"), f"{tmp_path}/a/../a"], "baseline")
    assert len(side.runs) == 1


def test_equal_seeds_are_no_two_samples(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, document(SCORES)) for name in "ab"]
    (side,) = sides(paths, "baseline")
    with pytest.raises(PublisherError, match="twice with the same seeds"):
        side.runs_with(Key("quiz", "acc", "none"))


def test_tasks_may_stand_in_several_files(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, document({f"{name}:acc,none": (0.5, 0.01)})) for name in "ab"]
    (side,) = sides(paths, "baseline")
    assert [key.task for key in side.keys] == ["a", "b"]
    assert len(side.runs_with(Key("a", "acc", "none"))) == 1


def test_nothing_named_is_refused() -> None:
    with pytest.raises(PublisherError, match="No result is named"):
        sides([], "result")


def test_a_label_is_what_stands_before_the_first_equals_sign(tmp_path: Path) -> None:
    assert split("BF16=runs/a=b.json") == ("BF16", Path("runs/a=b.json"))
    assert split("runs/a.json") == ("", Path("runs/a.json"))
    odd = tmp_path / "seed=1"
    odd.mkdir()
    assert split(str(odd)) == ("", odd)
