"""Whole comparisons: one run against one, seeds against seeds, several baselines, and every refusal."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scipy import stats

from publisher.errors import PublisherError
from publisher.evals.compare import compare
from publisher.evals.protocol import UnlikeProtocols
from tests.evals.conftest import document, real, sample, write

SEEDS = ("0.4.11", "0.4.11-seed42", "0.4.11-seed7777")


def test_one_run_against_one_with_standard_errors(tmp_path: Path) -> None:
    base = write(tmp_path / "b", document({"quiz:acc,none": (0.9151, 0.0077)}))
    ours = write(tmp_path / "a", document({"quiz:acc,none": (0.9136, 0.0077)}))
    (line,) = compare([base], [ours]).lines
    (delta,) = line.deltas
    assert delta is not None
    assert delta.value == pytest.approx(-0.15)
    assert delta.error is not None
    assert delta.error.value == pytest.approx(math.hypot(0.77, 0.77))
    assert delta.z == pytest.approx(-0.1377, abs=1e-4)
    assert delta.confidence == pytest.approx(1 - 2 * stats.norm.sf(0.13775), abs=1e-4)
    assert delta.recovery == pytest.approx(0.9136 / 0.9151)


def test_samples_pair_real_runs() -> None:
    found = compare(
        [real("0.4.11", "source")], [real("0.4.11", "quantized")], tasks=["tiny_sums:exact_match,strict-match"]
    )
    scores = []
    for model in ("source", "quantized"):
        (path,) = Path(real("0.4.11", model)).glob("samples_tiny_sums_*")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        scores.append([row["exact_match"] for row in rows if row["filter"] == "strict-match"])
    wanted = stats.ttest_rel(scores[1], scores[0])
    (delta,) = found.lines[0].deltas
    assert delta is not None
    assert delta.value == pytest.approx(-12.5)
    assert delta.z == pytest.approx(wanted.statistic)
    assert delta.confidence == pytest.approx(1 - wanted.pvalue)


def test_seeds_are_samples_of_real_runs() -> None:
    found = compare(
        [real(run, "source") for run in SEEDS],
        [real(run, "quantized") for run in SEEDS],
        tasks=["tiny_sums:exact_match,strict-match"],
    )
    (line,) = found.lines
    before, after = [], []
    for run in SEEDS:
        for held, model in ((before, "source"), (after, "quantized")):
            (path,) = Path(real(run, model)).glob("results_*")
            held.append(100 * json.loads(path.read_text())["results"]["tiny_sums"]["exact_match,strict-match"])
    wanted = stats.ttest_ind(after, before, equal_var=False)
    (delta,) = line.deltas
    assert delta is not None
    assert line.result.runs == 3
    assert line.result.deviation == pytest.approx(stats.tstd(after))
    assert delta.z == pytest.approx(wanted.statistic)
    assert delta.confidence == pytest.approx(1 - wanted.pvalue)
    assert "no samples" in " ".join(found.notes)


def test_groups_stand_for_their_tasks_and_versions_of_the_harness_may_differ() -> None:
    found = compare([real("0.4.9", "source")], [real("0.4.13", "quantized")])
    assert [line.key.task for line in found.lines if line.key] == ["tiny", "tiny_sums", "tiny_sums"]
    assert any("0.4.13 and 0.4.9" in note for note in found.notes)


def test_several_baselines_are_columns_of_their_own(tmp_path: Path) -> None:
    scores = {"BF16": 0.80, "GPTQ": 0.70, "ours": 0.75}
    paths = {
        name: write(tmp_path / name, document({"quiz:acc,none": (value, 0.01)}, model_name="/model"))
        for name, value in scores.items()
    }
    found = compare([f"BF16={paths['BF16']}", f"GPTQ={paths['GPTQ']}"], [paths["ours"]])
    assert found.baselines == ("BF16", "GPTQ")
    assert [delta and round(delta.value, 6) for delta in found.lines[0].deltas] == [-5.0, 5.0]


def test_a_second_baseline_may_lack_a_score(tmp_path: Path) -> None:
    base = write(tmp_path / "a", document({"x:acc,none": (0.5, 0.1), "y:acc,none": (0.5, 0.1)}, model_name="a"))
    other = write(tmp_path / "b", document({"x:acc,none": (0.5, 0.1)}, model_name="b"))
    ours = write(tmp_path / "c", document({"x:acc,none": (0.6, 0.1), "y:acc,none": (0.6, 0.1)}, model_name="c"))
    found = compare([base, other], [ours], average=["all"])
    assert found.lines[1].baselines[1] is None
    assert found.average is not None
    assert found.average.baselines[1] is None


def test_unlike_protocols_are_refused_with_both_files(tmp_path: Path) -> None:
    base = write(tmp_path / "b", document({"quiz:acc,none": (0.5, 0.01)}))
    body = document({"quiz:acc,none": (0.5, 0.01)}) | {"n-shot": {"quiz": 0}}
    with pytest.raises(UnlikeProtocols, match="num_fewshot of quiz is 5 in one and 0 in the other"):
        compare([base], [write(tmp_path / "a", body)])


def test_runs_of_one_side_are_held_to_one_protocol_too(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        body = document({"quiz:acc,none": (0.5, 0.01)}, seed=seed) | {"n-shot": {"quiz": 4 + seed}}
        paths.append(write(tmp_path / str(seed), body))
    ours = [write(tmp_path / f"o{seed}", document({"quiz:acc,none": (0.5, 0.01)}, seed=seed)) for seed in (1, 2)]
    with pytest.raises(UnlikeProtocols, match="num_fewshot"):
        compare(paths, ours)


def test_a_hash_that_differs_is_settled_by_the_samples(tmp_path: Path, pair: tuple[str, str]) -> None:
    """Several processes gather their samples in another order, and the hash over all of them differs."""
    for place, digest in zip(pair, "ab", strict=True):
        body = json.loads(Path(place).read_text())
        body["task_hashes"] = {"quiz": digest * 64}
        Path(place).write_text(json.dumps(body))
    assert compare([pair[0]], [pair[1]]).lines[0].deltas[0] is not None
    next(Path(pair[0]).parent.glob("samples_*")).unlink()
    with pytest.raises(UnlikeProtocols, match="task_hashes"):
        compare([pair[0]], [pair[1]])


def test_prompts_that_differ_are_refused(pair: tuple[str, str]) -> None:
    path = next(Path(pair[1]).parent.glob("samples_*"))
    path.write_text(path.read_text().replace('"prompt_hash": "', '"prompt_hash": "x'))
    with pytest.raises(UnlikeProtocols, match="prompts of quiz is one text for 8 of 8 documents"):
        compare([pair[0]], [pair[1]])


def test_other_filters_are_named(tmp_path: Path) -> None:
    base = write(tmp_path / "b", document({"quiz:exact_match,strict-match": (0.5, 0.01)}))
    ours = write(tmp_path / "a", document({"quiz:exact_match,flexible-extract": (0.5, 0.01)}))
    with pytest.raises(PublisherError, match="metric or filter differ"):
        compare([base], [ours], tasks=["quiz"])
    with pytest.raises(PublisherError, match="share no score"):
        compare([base], [ours])
    with pytest.raises(PublisherError, match="has no score 'mmlu'"):
        compare([base], [ours], tasks=["mmlu"])


def test_results_of_two_models_are_no_result(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, document({"quiz:acc,none": (0.5, 0.01)}, model_name=name)) for name in "abc"]
    with pytest.raises(PublisherError, match="results are of 2 models: b, c"):
        compare([paths[0]], paths[1:])


def test_perplexities_are_no_percentages_and_recover_nothing(tmp_path: Path) -> None:
    paths = []
    for value in (0.9, 0.95):
        body = document({"wiki:word_perplexity,none": (value, "N/A")})
        body["higher_is_better"]["wiki"] = {"word_perplexity": False}
        paths.append(write(tmp_path / str(value), body))
    (line,) = compare([paths[0]], [paths[1]]).lines
    (delta,) = line.deltas
    assert delta is not None
    assert (line.percent, line.result.value, delta.recovery, delta.error) == (False, 0.95, None, None)


@pytest.mark.parametrize("copied", [False, True])
def test_one_run_is_not_compared_with_itself(tmp_path: Path, pair: tuple[str, str], copied: bool) -> None:
    """A slip of the fingers must not end as a published recovery of 100 %."""
    same = tmp_path / "copy.json"
    same.write_bytes(Path(pair[0]).read_bytes())
    with pytest.raises(PublisherError, match="are the same run"):
        compare([f"BF16={pair[0]}"], [f"NVFP4={same if copied else pair[0]}"])


def test_equal_answers_have_no_z(tmp_path: Path) -> None:
    lines = {"quiz": [sample(n, float(n % 2)) for n in range(8)]}
    paths = [write(tmp_path / name, document({"quiz:acc,none": (0.5, 0.19)}, n=8), lines) for name in "ab"]
    (delta,) = compare([paths[0]], [paths[1]]).lines[0].deltas
    assert delta is not None
    assert (delta.value, delta.z, delta.recovery) == (0.0, None, 1.0)


def test_a_part_of_the_documents_is_told() -> None:
    found = compare([real("0.4.11", "source")], [real("0.4.11", "quantized")])
    assert not any(line.partial for line in found.lines)


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / name, document({"quiz:acc,none": (0.5, 0.1)}, model_name="/mnt/x/model")) for name in "ab"
    ]
    found = compare([paths[0]], [paths[1]])
    assert (found.baselines, found.result) == (("model (baseline)",), "model (result)")
