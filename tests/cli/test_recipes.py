"""`publisher recipes`: listed, shown, written out, and what was written planned as any other recipe."""

from __future__ import annotations

from pathlib import Path

from publisher import jsonio
from publisher.checkpoint.statistics import Observed, Statistics
from publisher.checkpoint.statistics import write as write_statistics
from tests.builders.tiny import kimi
from tests.cli.conftest import Workspace

NAMES = ["kimi-k2.6-nvfp4", "kimi-k2.6-mxfp4", "kimi-k2.5-p48-nvfp4", "kimi-k2.7-code-nvfp4"]


def test_recipes_are_listed_for_a_person_and_for_a_shell(workspace: Workspace) -> None:
    assert workspace.publisher("recipes", "list", "--format", "quiet", fresh=True).out.split() == NAMES
    table = workspace.publisher("recipes", "list").out
    assert all(name in table for name in NAMES)
    assert "wafer-ai/Kimi-K2.6-NVFP4" in table
    rows = workspace.publisher("recipes", "list", "--format", "json").json
    assert [(row["name"], row["modules"], row["recipe"]["format"]) for row in rows][:2] == [
        ("kimi-k2.6-nvfp4", 69303, "nvfp4"),
        ("kimi-k2.6-mxfp4", 69120, "mxfp4"),
    ]


def test_a_recipe_is_shown_with_what_is_ours_and_what_the_card_says(workspace: Workspace) -> None:
    shown = workspace.publisher("recipes", "show", "kimi-k2.6-mxfp4").out
    for words in ("What its card says", "What is ours", "The routers stay in BF16"):
        assert words in shown
    assert "is not published" in workspace.publisher("recipes", "show", NAMES[2]).out
    assert workspace.publisher("recipes", "show", NAMES[0], "--format", "json").json["text"].startswith("# Kimi K2.6")


def test_an_unknown_name_is_refused_with_those_near_it(workspace: Workspace) -> None:
    done = workspace.publisher("recipes", "write", "kimi-k2.6-fp4", code=2)
    assert "no ready recipe 'kimi-k2.6-fp4'" in done.err
    assert "kimi-k2.6-nvfp4" in done.err


def test_what_is_written_out_is_planned_as_any_other_recipe(workspace: Workspace) -> None:
    kimi().write(workspace.folder / "kimi")
    arguments = ["--source", "./kimi", "--name", "mine", "--repo", "me/Kimi-MXFP4", "--card", "card.toml"]
    arguments += ["--output", "mine.yaml"]
    done = workspace.publisher("recipes", "write", "kimi-k2.6-mxfp4", *arguments)
    assert "publisher plan" in done.err + done.out
    plan = workspace.publisher("plan", "mine.yaml", "--format", "json").json
    assert plan["recipe"]["target"] == {"repo": "me/Kimi-MXFP4", "gate": "manual", "private": False}
    assert plan["recipe"]["source"] == str(workspace.folder / "kimi")
    quantized = [d["module"] for d in plan["decisions"] if d["action"] == "quantize"]
    assert len(quantized) == 2 * 4 * 3
    assert all(".mlp.experts." in name for name in quantized)
    again = workspace.publisher("recipes", "write", "kimi-k2.6-mxfp4", *arguments, code=2)
    assert "is there already" in again.err


def test_paths_mean_the_same_wherever_the_recipe_lies(workspace: Workspace) -> None:
    write_statistics(workspace.folder / "seen.safetensors", Statistics(modules={"a": Observed(1.0, 1)}))
    arguments = ("--source", "hf://org/name@main", "--statistics", "seen.safetensors", "--card", "~/card.toml")
    text = workspace.publisher("recipes", "write", "kimi-k2.6-nvfp4", *arguments).out
    written = jsonio.loads_yaml(text, "out")
    assert written["source"] == "hf://org/name@main"
    assert written["statistics"] == str(workspace.folder / "seen.safetensors")
    assert written["card"] == str(Path("~/card.toml").expanduser())
    assert "What its card says" in text


def test_statistics_for_a_recipe_that_reads_none_are_refused(workspace: Workspace) -> None:
    done = workspace.publisher("recipes", "write", "kimi-k2.6-mxfp4", "--statistics", "x.safetensors", code=2)
    assert "does not use statistics" in done.err


def test_a_source_that_is_none_is_refused(workspace: Workspace) -> None:
    done = workspace.publisher("recipes", "write", "kimi-k2.6-mxfp4", "--source", "s3://bucket/model", code=2)
    assert "is no source" in done.err
