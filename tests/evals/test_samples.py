"""Samples files: real ones agree with the results beside them, broken ones name their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.evals import samples
from publisher.evals.results import read_runs
from publisher.evals.samples import read_samples
from tests.evals.conftest import real, sample


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_real_samples_average_to_the_score_beside_them() -> None:
    (run,) = read_runs(Path(real("0.4.11", "quantized")))
    checked = 0
    for key, score in run.scores.items():
        path = run.samples(key.task)
        if path is not None:
            answers = read_samples(path)[key.metric, key.filter]
            assert sum(answers.scores.values()) / len(answers.scores) == pytest.approx(score.value)
            checked += 1
    assert checked == 6


def test_equal_documents_stay_two(tmp_path: Path) -> None:
    path = lines(tmp_path / "s.jsonl", sample(1, 0.0, text="same"), sample(0, 1.0, text="same"))
    found = read_samples(path)["acc", "none"].scores
    assert [found[key] for key in sorted(found, key=lambda key: key[1])] == [1.0, 0.0]


def test_truth_values_and_numbers_written_as_text_count(tmp_path: Path) -> None:
    path = lines(tmp_path / "s.jsonl", *(sample(n, value) for n, value in enumerate((True, "False", "True", "0.5", 1))))
    assert list(read_samples(path)["acc", "none"].scores.values()) == [1.0, 0.0, 1.0, 0.5, 1.0]


def test_a_score_that_is_no_single_number_leaves_none(tmp_path: Path) -> None:
    path = lines(tmp_path / "s.jsonl", sample(0, 1.0), sample(1, [0, 1]))
    found = read_samples(path)["acc", "none"]
    assert found.scores == {}
    assert len(found.prompts) == 2


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["not JSON"], "line 1 is not JSON"),
        ([sample(0, 1.0), "[]"], "line 2 is no sample"),
        ([sample(0, 1.0), {**sample(1, 1.0), "doc_hash": 3}], "line 2 is no sample"),
        ([sample(0, 1.0), sample(0, 0.0)], "line 2: document 0 is there twice"),
        (['{"acc": NaN}'], "NaN"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, rows: list[object], told: str) -> None:
    with pytest.raises(PublisherError, match=told):
        read_samples(lines(tmp_path / "s.jsonl", *rows))


def test_long_lines_and_long_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MAX_LINES", 2)
    with pytest.raises(PublisherError, match="more than 2 lines"):
        read_samples(lines(tmp_path / "s.jsonl", *(sample(n, 1.0) for n in range(3))))
    monkeypatch.setattr(samples, "MAX_LINE", 100)
    with pytest.raises(PublisherError, match="more than 100 bytes"):
        read_samples(tmp_path / "s.jsonl")


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="cannot be read"):
        read_samples(tmp_path)
