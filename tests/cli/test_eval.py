"""`publisher eval compare`: both sides of `--`, the table, the document, the Hub's files, refusals."""

from __future__ import annotations

import json

import yaml

from tests.cli.conftest import ROOT, Workspace
from tests.evals.conftest import document, real, write
from tests.evals.endpoint import endpoint, install_stand_in

SOURCE, QUANTIZED = real("0.4.11", "source"), real("0.4.11", "quantized")


def test_the_table_names_both_sides(workspace: Workspace) -> None:
    done = workspace.publisher("eval", "compare", SOURCE, "--", f"NVFP4={QUANTIZED}", "--average", "all")
    for told in (
        "org/source",
        "NVFP4",
        "tiny_sums",
        "2-shot, exact_match, strict-match, n = 24",
        "−12.50 pp",
        "Average",
    ):
        assert told in done.out
    assert "paired by document" in done.out


def test_options_may_stand_on_both_sides(workspace: Workspace) -> None:
    done = workspace.publisher("eval", "compare", "--task", "tiny_sums", SOURCE, "--", QUANTIZED, "--format", "json")
    assert [score["filter"] for score in done.json["scores"]] == ["strict-match", "flexible-extract"]
    assert done.json["model_index"][0]["name"] == "quantized"
    assert done.json["eval_results"] == {}
    assert workspace.publisher("eval", "compare", SOURCE, "--", QUANTIZED, "--format", "quiet").out == ""


def test_without_two_sides_nothing_is_compared(workspace: Workspace) -> None:
    for arguments in ((SOURCE, QUANTIZED), (), (SOURCE, "--"), ("--", QUANTIZED)):
        done = workspace.publisher("eval", "compare", *arguments, code=2)
        assert "BASELINE... -- RESULT..." in done.err


def test_unlike_protocols_end_with_two_and_name_the_field(workspace: Workspace) -> None:
    other = real("0.4.11-seed42", "quantized")
    done = workspace.publisher("eval", "compare", SOURCE, "--", other, "--format", "json", code=2)
    assert "fewshot_seed is 1234 in one and 42 in the other" in done.json["error"]["message"]


def test_the_hub_s_files_are_written(workspace: Workspace) -> None:
    folder = workspace.folder / "out"
    paths = []
    for name, value in (("b", 0.5), ("a", 0.6)):
        body = document({"gsm8k:exact_match,strict-match": (value, 0.01)}, model_name=f"org/{name}")
        paths.append(write(workspace.folder / name, body))
    done = workspace.publisher(
        "eval",
        "compare",
        paths[0],
        "--",
        paths[1],
        "--eval-results",
        str(folder),
        "--source-url",
        "https://example.org/r",
    )
    assert "gsm8k.yaml" in done.err
    (entry,) = yaml.safe_load((folder / ".eval_results" / "gsm8k.yaml").read_text())
    assert (entry["dataset"], entry["value"]) == ({"id": "openai/gsm8k", "task_id": "gsm8k"}, 60.0)
    assert entry["source"] == {"url": "https://example.org/r"}
    done = workspace.publisher("eval", "compare", SOURCE, "--", QUANTIZED, "--eval-results", str(folder))
    assert "nothing was written" in done.err


def test_a_missing_file_is_a_sentence(workspace: Workspace) -> None:
    assert "does not exist" in workspace.publisher("eval", "compare", "nowhere.json", "--", QUANTIZED, code=2).err


def test_a_push_publishes_the_scores_that_card_toml_names(workspace: Workspace) -> None:
    for name, value in (("bf16", 0.5), ("fp4", 0.49)):
        write(workspace.folder / name, document({"gsm8k:exact_match,strict-match": (value, 0.01)}, n=1319))
    plain = 'base_model = "tiny/tiny"\n'
    card = workspace.folder / "card.toml"
    card.write_text(plain + '[evaluation]\nbaseline = ["BF16=bf16"]\nresults = ["FP4=fp4"]\n')
    assert workspace.push(workspace.recipe()).json["verified"] is True
    (entry,) = yaml.safe_load((workspace.tree / ".eval_results" / "gsm8k.yaml").read_text())
    assert (entry["value"], entry["notes"].split(";")[0]) == (49.0, "MXFP4")
    assert "| gsm8k |" in (workspace.tree / "README.md").read_text()
    listed = json.loads((workspace.tree / "publish.json").read_text())
    assert ".eval_results/gsm8k.yaml" in {entry["name"] for entry in listed["resources"]}
    card.write_text(plain)
    workspace.push(workspace.recipe())
    assert not (workspace.tree / ".eval_results" / "gsm8k.yaml").exists()
    assert "model-index" not in (workspace.tree / "README.md").read_text()


def test_models_are_measured_alike_and_compared(workspace: Workspace) -> None:
    packages = install_stand_in(workspace.folder / "packages")
    with endpoint("base") as base, endpoint("ours", wrong={3}) as ours:
        models = ("--baseline", f"BF16={base.address}", "--result", ours.address)
        done = workspace.publisher(
            "eval", "run", *models, "--task", "sums", "--format", "json", PYTHONPATH=f"{ROOT}:{packages}"
        )
        assert base.prompts == ours.prompts
    assert (done.json["baselines"], done.json["result"]) == (["BF16"], "result")
    assert done.json["scores"][0]["result"]["value"] == 90.0
    assert "lm-evaluation-harness 0.4.11 on sums" in done.err
    assert "eval-runs" in "".join(str(path) for path in workspace.folder.rglob("results_*.json"))


def test_two_models_of_one_label_are_refused(workspace: Workspace) -> None:
    done = workspace.publisher("eval", "run", "--baseline", "x=a/b", "--result", "x=a/c", "--task", "sums", code=2)
    assert "one label" in done.err
