"""Real files with any value put anywhere: every comparison ends in a result or in a sentence."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import PublisherError
from publisher.evals import hub, tables
from publisher.evals.compare import compare
from publisher.evals.document import to_json
from tests.evals.conftest import real

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, -1e308, 10**400, "", "N/A", "0.5", "\x1b[2J", "\ud800", [], [None],
    [[]], {}, {"": None}, ["tiny"], {"tiny": ["tiny"]}, "../../etc/passwd", "x" * 5000,
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) of a document."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found.append((value, key))
        found.extend(places(item))
    return found


def copied(folder: Path, model: str) -> Path:
    target = folder / model
    target.mkdir()
    for path in Path(real("0.4.11", model)).iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("seed", range(6))
def test_any_value_anywhere_ends_in_a_result_or_a_sentence(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    base, ours = copied(tmp_path, "source"), copied(tmp_path, "quantized")
    results = next(ours.glob("results_*"))
    clean = json.loads(results.read_text())
    refused = compared = 0
    for _ in range(40):
        body = json.loads(json.dumps(clean))
        for _ in range(draw.choice((1, 1, 3))):
            holder, key = draw.choice(places(body))
            holder[key] = draw.choice(ODD)
        results.write_text(json.dumps(body))
        try:
            found = compare([str(base)], [str(ours)], average=draw.choice(([], ["all"])))
        except PublisherError as error:
            refused += len(error.message) < 5000
        else:
            compared += 1
            json.dumps([to_json(found), tables.rows(found), tables.facts(found)], allow_nan=False)
            json.dumps([hub.model_index(found, name="x"), hub.eval_results(found)], allow_nan=False)
    assert refused
    assert compared


@pytest.mark.parametrize("seed", range(4))
def test_any_value_in_the_samples_ends_in_a_result_or_a_sentence(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    base, ours = copied(tmp_path, "source"), copied(tmp_path, "quantized")
    path = next(ours.glob("samples_tiny_sums_*"))
    clean = path.read_text().splitlines()
    for _ in range(25):
        lines = list(clean)
        for _ in range(draw.choice((1, 2))):
            number = draw.randrange(len(lines))
            row = json.loads(clean[number])
            holder, key = draw.choice(places(row))
            holder[key] = draw.choice(ODD)
            lines[number] = draw.choice((json.dumps(row), json.dumps(row)[: draw.randrange(60)], ""))
        path.write_text("\n".join(lines))
        try:
            json.dumps(to_json(compare([str(base)], [str(ours)])), allow_nan=False)
        except PublisherError:
            continue
