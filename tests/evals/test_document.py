"""The JSON of a comparison: strict, complete, unrounded."""

from __future__ import annotations

import json

import pytest

from publisher.evals.compare import compare
from publisher.evals.document import to_json
from tests.evals.conftest import real


def test_everything_is_in_the_document() -> None:
    found = compare([real("0.4.11", "source")], [f"NVFP4={real('0.4.11', 'quantized')}"], average=["all"])
    body = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert (body["result"], body["baselines"]) == ("NVFP4", ["org/source"])
    score = body["scores"][0]
    assert (score["task"], score["metric"], score["filter"], score["unit"]) == ("tiny", "acc", "none", "percent")
    assert score["result"]["value"] == pytest.approx(100 * 17 / 26)
    delta = score["baselines"][0]["delta"]
    assert delta["value"] == pytest.approx(100 * (17 - 20) / 26)
    assert delta["method"] == "paired by document"
    assert delta["z"] == pytest.approx(delta["value"] / delta["stderr"])
    assert body["average"]["averaged"] == 3
    assert body["runs"][0]["seeds"]["fewshot_seed"] == 1234
