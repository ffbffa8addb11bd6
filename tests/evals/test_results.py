"""Results files: three real shapes, what hostile ones do, where samples lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.evals.results import Key, model_args, read_run, read_runs
from tests.evals.conftest import HARNESS, document, real, write


@pytest.mark.parametrize("version", ["0.4.9", "0.4.11", "0.4.13"])
def test_every_version_of_the_harness_reads_alike(version: str) -> None:
    (run,) = read_runs(Path(real(version, "source")))
    assert run.harness == version
    assert run.model == "org/source"
    assert run.scores[Key("tiny_sums", "exact_match", "strict-match")].value == 0.5
    assert run.scores[Key("tiny", "acc", "none")].value == pytest.approx(20 / 26)
    assert run.leaves("tiny") == ("tiny_colours", "tiny_numbers")
    assert run.leaves("tiny_sums") == ("tiny_sums",)
    assert run.subtasks() == {"tiny_colours", "tiny_numbers"}
    assert run.documents("tiny_sums") == (24, 24)
    assert run.higher_is_better(Key("tiny", "acc", "none")) is True


def test_the_standard_error_is_that_of_the_formula() -> None:
    """lm_eval/api/metrics.py: the sample standard deviation over the root of n; of 24 answers 12 were right."""
    (run,) = read_runs(Path(real("0.4.11", "source")))
    wanted = (24 * 0.25 / 23) ** 0.5 / 24**0.5
    assert run.scores[Key("tiny_sums", "exact_match", "strict-match")].stderr == pytest.approx(wanted)


def test_samples_lie_beside_their_results() -> None:
    (run,) = read_runs(Path(real("0.4.11", "source")))
    found = run.samples("tiny_sums")
    assert found is not None
    assert found.parent == HARNESS / "0.4.11" / "source"
    assert run.samples("tiny") is None
    assert run.samples("../tiny_sums") is None


def test_scores_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    body = document({"a:acc,none": (0.5, "N/A")})
    body["results"]["a"] |= {
        "f1,none": None,
        "em,none": [0.5],
        "bypass,none": 10**400,
        " ": " ",
        "mc2,none": "0.25",
        "mc2_stderr,none": "N/A",
        "flag,none": True,
    }
    run = read_run(Path(write(tmp_path, body)))
    assert {str(key): score.value for key, score in run.scores.items()} == {"a:acc,none": 0.5, "a:mc2,none": 0.25}
    assert run.scores[Key("a", "acc", "none")].stderr is None


def test_a_metric_may_end_in_stderr_itself(tmp_path: Path) -> None:
    body = document({"a:acc,none": (0.5, 0.1)})
    body["results"]["a"]["odd_stderr,none"] = 0.75
    assert Key("a", "odd_stderr", "none") in read_run(Path(write(tmp_path, body))).scores


@pytest.mark.parametrize(
    "value", [None, 3, [], "text", {"results": []}, {"results": {"a": {"acc,none": None}}}, {"results": {"a": 1}}]
)
def test_what_holds_no_score_is_refused_in_a_sentence(tmp_path: Path, value: object) -> None:
    path = tmp_path / "results_x.json"
    path.write_text(json.dumps(value))
    with pytest.raises(PublisherError, match="holds no scores"):
        read_run(path)


def test_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results_x.json"
    path.write_text('{"results": {"a": {"acc,none": NaN}}}')
    with pytest.raises(PublisherError, match="NaN"):
        read_run(path)


@pytest.mark.parametrize("value", [None, 3, [], "text", {"a": 1}, {"a": {"b": {}}}, [{"metric": 3}]])
@pytest.mark.parametrize(
    "name",
    [
        "configs",
        "versions",
        "n-shot",
        "n-samples",
        "config",
        "group_subtasks",
        "higher_is_better",
        "date",
        "lm_eval_version",
    ],
)
def test_any_value_of_any_type_is_read(tmp_path: Path, name: str, value: object) -> None:
    run = read_run(Path(write(tmp_path, document({"a:acc,none": (0.5, 0.1)}) | {name: value})))
    key = Key("a", "acc", "none")
    assert run.scores[key].value == 0.5
    run.documents("a"), run.leaves("a"), run.subtasks(), run.higher_is_better(key), model_args(run), run.date, run.model


def test_groups_that_hold_themselves_end(tmp_path: Path) -> None:
    body = document({"a:acc,none": (0.5, 0.1)}, group_subtasks={"a": ["b", "a"], "b": ["a", "c"]})
    assert read_run(Path(write(tmp_path, body))).leaves("a") == ("c",)


def test_arguments_of_the_model_are_text_or_a_mapping(tmp_path: Path) -> None:
    body = document({"a:acc,none": (0.5, 0.1)})
    body["config"]["model_args"] = "pretrained=org/x,max_gen_toks=256,odd"
    run = read_run(Path(write(tmp_path, body | {"model_name": None})))
    assert model_args(run) == {"pretrained": "org/x", "max_gen_toks": "256"}
    assert run.model == "org/x"


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="holds no results"):
        read_runs(tmp_path)
    with pytest.raises(PublisherError, match="does not exist"):
        read_runs(tmp_path / "nowhere.json")
