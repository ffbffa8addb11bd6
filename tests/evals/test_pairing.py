"""Differences document by document: against scipy, against hand, and against samples of another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from publisher.errors import PublisherError
from publisher.evals import pairing
from publisher.evals.results import Key, Run, read_run, read_runs
from publisher.evals.significance import Error
from tests.evals.conftest import document, real, sample, write

KEY = Key("quiz", "acc", "none")


def runs(pair: tuple[str, str]) -> tuple[Run, Run]:
    return read_run(Path(pair[0])), read_run(Path(pair[1]))


def test_the_error_is_that_of_the_paired_test(pair: tuple[str, str]) -> None:
    """Right before 11111100, right after 11110010: three differ."""
    one, other = runs(pair)
    found = pairing.error({}, [one], [other], KEY)
    assert isinstance(found, Error)
    wanted = stats.ttest_rel([1, 1, 1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1, 0, 0])
    assert -1 / 8 / found.value == pytest.approx(wanted.statistic)
    assert found.freedom == 7


def test_real_samples_of_two_models_and_of_a_group() -> None:
    (one,), (other,) = (read_runs(Path(real("0.4.11", name))) for name in ("source", "quantized"))
    before, after = ([], [])
    for held, model in ((before, "source"), (after, "quantized")):
        for task in ("tiny_colours", "tiny_numbers"):
            (path,) = Path(real("0.4.11", model)).glob(f"samples_{task}_*")
            held.extend(json.loads(line)["acc"] for line in path.read_text().splitlines())
    found = pairing.error({}, [one], [other], Key("tiny", "acc", "none"))
    assert isinstance(found, Error)
    difference = sum(after) / 26 - sum(before) / 26
    assert difference / found.value == pytest.approx(stats.ttest_rel(after, before).statistic)


def test_a_group_averaged_over_tasks_is_stratified(tmp_path: Path) -> None:
    """Task a has 4 documents, b has 2; the group is the mean of the two means, as lm-eval without weights has it."""
    paths = []
    for name, (a, b) in {"x": ([1, 1, 0, 0], [1, 0]), "y": ([1, 0, 0, 0], [1, 1])}.items():
        means = (sum(a) / 4, sum(b) / 2)
        body = document(
            {"all:acc,none": (sum(means) / 2, 0.1), "a:acc,none": (means[0], 0.1), "b:acc,none": (means[1], 0.1)}
        )
        body["group_subtasks"] = {"all": ["a", "b"]}
        lines = {
            task: [sample(n, float(v), text=f"{task}{n}") for n, v in enumerate(own)]
            for task, own in (("a", a), ("b", b))
        }
        paths.append(write(tmp_path / name, body, lines))
    one, other = runs((paths[0], paths[1]))
    found = pairing.error({}, [one], [other], Key("all", "acc", "none"))
    assert isinstance(found, Error)
    first, second = 0.5 / 4**0.5, 0.5**0.5 / 2**0.5  # deviations of (0,-1,0,0) and of (0,1)
    assert found.value == pytest.approx((first**2 + second**2) ** 0.5 / 2)


def test_several_runs_are_averaged_per_document(tmp_path: Path) -> None:
    def side(name: str, *answers: list[int]) -> list[Run]:
        return [
            read_run(
                Path(
                    write(
                        tmp_path / f"{name}{seed}",
                        document({"quiz:acc,none": (sum(own) / 4, 0.1)}, seed=seed, n=4),
                        {"quiz": [sample(n, float(v)) for n, v in enumerate(own)]},
                    )
                )
            )
            for seed, own in enumerate(answers)
        ]

    before, after = side("b", [1, 1, 0, 0], [1, 0, 0, 1]), side("a", [1, 0, 0, 0], [0, 0, 1, 0])
    found = pairing.error({}, before, after, KEY)
    assert isinstance(found, Error)
    wanted = stats.ttest_rel([0.5, 0, 0.5, 0], [1, 0.5, 0, 0.5])
    assert (0.25 - 0.5) / found.value == pytest.approx(wanted.statistic)


def test_samples_of_another_run_are_refused(pair: tuple[str, str]) -> None:
    path = Path(pair[1])
    body = json.loads(path.read_text())
    body["results"]["quiz"]["acc,none"] = 0.75
    path.write_text(json.dumps(body))
    one, other = runs(pair)
    with pytest.raises(PublisherError, match=r"is 0\.75, the mean of its samples 0\.625: they are of another run"):
        pairing.error({}, [one], [other], KEY)


def test_a_metric_that_is_no_mean_is_left_to_its_standard_error(pair: tuple[str, str]) -> None:
    for place in pair:
        path = Path(place)
        body = json.loads(path.read_text())
        body["results"]["quiz"]["acc,none"] = 0.9
        body["configs"]["quiz"]["metric_list"] = [{"metric": "acc", "aggregation": "median"}]
        path.write_text(json.dumps(body))
    one, other = runs(pair)
    assert "no plain mean" in str(pairing.error({}, [one], [other], KEY))


def test_without_samples_nothing_is_paired(pair: tuple[str, str]) -> None:
    next(Path(pair[1]).parent.glob("samples_*")).unlink()
    one, other = runs(pair)
    assert not pairing.have_samples((one, other), KEY)
    assert "no samples" in str(pairing.error({}, [one], [other], KEY))


def test_other_documents_and_other_prompts_are_told(pair: tuple[str, str]) -> None:
    path = next(Path(pair[1]).parent.glob("samples_*"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["prompt_hash"] = "f" * 64
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    one, other = runs(pair)
    (found,) = pairing.unlike({}, one, other, KEY)
    assert found.field == "prompts"
    assert "1 of 8 documents" in found.baseline
    lines[1]["doc_hash"] = "e" * 64
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = pairing.unlike({}, one, other, KEY)
    assert (found.field, found.baseline, found.result) == ("documents", "1 of its own", "1 of its own")
