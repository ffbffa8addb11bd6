"""The demo's recipes, words and texts, read as the pipeline reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from publisher.card.person import read_person
from publisher.plan.recipe import load_recipe

DEMO = Path(__file__).parents[2] / "demo"


@pytest.mark.parametrize("name", ["nvfp4", "mxfp4"])
def test_recipes_are_valid_and_name_files_that_are_there(name: str) -> None:
    recipe = load_recipe(DEMO / f"{name}.yaml")
    assert recipe.source == str(DEMO / "source")
    assert recipe.evaluation is not None
    assert recipe.card is not None
    paths = [recipe.card, recipe.evaluation.data, *([recipe.calibration.data] if recipe.calibration else [])]
    assert all(path.is_file() for path in paths)
    assert recipe.target is not None
    assert recipe.target.gate == "manual"


def test_calibration_text_fills_what_the_recipe_draws() -> None:
    recipe = load_recipe(DEMO / "nvfp4.yaml")
    assert recipe.calibration is not None
    rows = [json.loads(line) for line in (DEMO / "calibration.jsonl").read_text(encoding="utf-8").splitlines()]
    assert 64 <= len(rows) <= 128
    assert recipe.calibration.samples <= len(rows)
    assert min(len(row["text"].split()) for row in rows) > recipe.calibration.sequence_length / 4
    assert all(set(row) == {"text"} for row in rows)


def test_the_two_texts_share_no_line() -> None:
    rows = [json.loads(line)["text"] for line in (DEMO / "calibration.jsonl").read_text(encoding="utf-8").splitlines()]
    seen = {line.strip() for text in rows for line in text.splitlines() if len(line.strip()) > 50}
    scored = {line.strip() for line in (DEMO / "eval.txt").read_text().splitlines() if len(line.strip()) > 50}
    assert len(scored) > 300
    assert not seen & scored


def test_the_cards_say_what_the_weights_are() -> None:
    person = read_person(DEMO / "card.toml")
    assert person["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert any("Q4_1" in note and "not the original" in note for note in person["notes"])
    _, head, body = (DEMO / "upstream_card.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    assert "Q4_1" in body


@pytest.mark.parametrize("name", ["calibration.jsonl", "eval.txt"])
def test_texts_are_small_and_their_licence_lies_beside_them(name: str) -> None:
    assert (DEMO / name).stat().st_size < 150_000
    assert name in (DEMO / "README.md").read_text()
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in (DEMO / "licence/Python-3.11.txt").read_text()
