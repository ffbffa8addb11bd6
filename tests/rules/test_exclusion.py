"""Exclude lists of published checkpoints, hostile ones, and long ones: silent, bounded and never a traceback."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publisher.checkpoint.open import open_checkpoint
from publisher.findings import Report
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.edits import Edit
from tests.builders.tiny import Tiny
from tests.rules.cases import GOOD
from tests.rules.exclusion_cases import KEY, PUBLISHED, listing, only

CODES = ("NM07", "NM08", "TP10", "CF03", "CF08", "CF09", "CF10", "CF11", "CF30", "FU06")


def judged(tiny: Tiny, folder: Path) -> Report:
    return run(Evidence(checkpoint=open_checkpoint(tiny.write(folder))), level="headers", select=CODES)


@pytest.mark.parametrize(("name", "base", "edit"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_the_lists_of_published_checkpoints_are_right(name: str, base: str, edit: Edit, tmp_path: Path) -> None:
    _, result = GOOD[base]()
    edit(result)
    report = judged(result, tmp_path)
    assert report.findings == (), "\n".join(f"{f.code} {f.message}" for f in report.findings)
    assert {"NM07", "NM08", "TP10"} <= set(report.rules_run)


ODD = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "re:",
            "re:(a+)+",
            "re:[",
            "*" * 400,
            "re:" + ".*a" * 90,
            "[",
            "\x00",
            "language_model.",
            "experts.",
            ".",
            "é*",
        ]
    ),
    st.builds(lambda a, b: f"{a}.experts.{b}", st.text(max_size=5), st.integers()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(ODD, max_size=8), base=st.sampled_from(["mixture-nvfp4", "kimi-mxfp4", "llama-ct-nvfp4"]))
def test_no_list_breaks_a_rule(entries: list[str], base: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    _, result = GOOD[base]()
    only(*entries)(result)
    report = judged(result, tmp_path_factory.mktemp("odd"))
    assert not [f for f in report.findings if "could not finish" in f.message]


@pytest.mark.parametrize("value", [None, 7, "lm_head", {"a": 1}, [None, 7, ["x"]], [[]]])
@pytest.mark.parametrize("base", ["llama-nvfp4", "llama-mxfp4", "llama-ct-mxfp4"])
def test_no_value_in_the_lists_place_breaks_a_rule(base: str, value: Any, tmp_path: Path) -> None:
    _, result = GOOD[base]()
    block = result.config["quantization_config"]
    block[KEY[block["quant_method"]]] = value
    report = judged(result, tmp_path)
    assert not [f for f in report.findings if "could not finish" in f.message]


def test_a_list_that_would_take_too_long_is_named_and_not_evaluated(tmp_path: Path) -> None:
    _, result = GOOD["mixture-mxfp4"]()
    listing(lambda names: names.extend(rf"re:^.*a{n}.*b.*c$" for n in range(3000)))(result)
    began = time.perf_counter()
    report = judged(result, tmp_path)
    assert time.perf_counter() - began < 10
    (found,) = [f for f in report.findings if f.code == "CF30"]
    assert "not evaluated" in found.message
    assert not [f for f in report.findings if f.code == "NM08"]


def test_a_finding_counts_and_names_layers_not_modules(tmp_path: Path) -> None:
    _, result = GOOD["mixture-nvfp4"]()
    listing(lambda names: names.append("*.mlp.shared_experts*"))(result)
    found = [f for f in judged(result, tmp_path).findings if f.code == "NM08"]
    assert len(found) == 2  # the fused gate and up, and down
    assert all("in layers 1-2 (2 of them)" in f.message for f in found)
    assert all(f.engines == f.refuses == ("vllm",) for f in found)
