"""The maps say in words what they show in colour, and stay small whatever the checkpoint."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from publisher.checkpoint import stacks
from publisher.checkpoint.census import Census, take
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import module_table
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.findings import ERROR, WARNING, Finding
from publisher.reports import maps
from tests.builders.tiny import kimi, mixture, nvfp4


class Words(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.cells: list[list[str]] = []
        self.kinds: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.kinds.append(dict(attrs).get("class") or "")
        if tag == "title":
            self.titles.append("")
        elif tag == "tr":
            self.cells.append([])
        elif tag == "td":
            self.cells[-1].append("")

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.titles[-1] += data
        elif self.cells and self.cells[-1]:
            self.cells[-1][-1] += data


def census_of(folder: Path, refs: list[TensorRef]) -> Census:
    (folder / "config.json").write_text("{}")
    empty = open_checkpoint(folder)
    return take(
        Checkpoint(
            files=empty.files, shards={}, index=None, config={}, hf_quant_config=None, document_flaws={},
            declarations=(), tensors={ref.name: ref for ref in refs}, modules=module_table(refs),
        )
    )  # fmt: skip


def ref(name: str, dtype: str = "BF16", shape: tuple[int, ...] = (4, 4)) -> TensorRef:
    return TensorRef(name, dtype, shape, "s", 0, 32)


@pytest.fixture
def census(tmp_path: Path) -> Census:
    return take(open_checkpoint(nvfp4(kimi()).write(tmp_path / "kimi")))


def test_a_stack_of_layers_has_a_map_and_the_rest_is_listed(census: Census) -> None:
    found = stacks.stacks(census)
    assert [stack.name for stack in found] == [
        "language_model.model.layers.*",
        "vision_tower.encoder.blocks.*",
        "",
    ]
    assert found[0].layers == 3
    words = Words(maps.coverage(census, ()))
    assert "layers 1–2: 4 nvfp4 each" in words.titles
    rows = {row[0]: row[1:4] for row in words.cells if row}
    assert rows["mlp.experts.*.up_proj"][:2] == ["8", "nvfp4"]
    assert rows["language_model.lm_head"][:2] == ["1", "bf16"]
    assert "norms" in maps.left_out(census)


def test_modules_stored_in_two_ways_are_shown_and_told(tmp_path: Path) -> None:
    refs = [ref(f"m.layers.0.experts.{n}.up.weight", "U8" if n else "BF16") for n in range(4)]
    refs += [ref(f"m.layers.0.experts.{n}.up.weight_scale", "F8_E4M3") for n in range(1, 4)]
    words = Words(maps.coverage(census_of(tmp_path, refs), ()))
    assert "layer 0: 3 nvfp4, 1 bf16" in words.titles
    assert {"f-nvfp4", "f-bf16"} <= set(words.kinds)


def test_what_nobody_can_name_stands_out(tmp_path: Path) -> None:
    words = Words(maps.coverage(census_of(tmp_path, [ref("m.layers.0.up.weight", "U8")]), ()))
    assert "f-other" in words.kinds


def test_findings_are_marked_where_they_are(census: Census) -> None:
    at = "language_model.model.layers.2.mlp.experts.1.up_proj"
    findings = [
        Finding(code="SV01", slug="s", severity=ERROR, message="m", tensor=f"{at}.weight_scale"),
        Finding(code="FU01", slug="s", severity=WARNING, message="m", tensor=at),
        Finding(code="FU01", slug="s", severity=WARNING, message="m", tensor="language_model.lm_head.weight"),
        Finding(code="FU01", slug="s", severity=ERROR, message="m", tensor="nowhere", waived="x"),
    ]
    words = Words(maps.coverage(census, findings))
    assert [kind for kind in words.kinds if kind.startswith("mark")] == ["mark error", "mark warning"]


@pytest.mark.parametrize("layers", [1, 61, 128, 129, 1000, 99_999])
def test_a_map_stays_small_whatever_the_layers(tmp_path: Path, layers: int) -> None:
    found = census_of(tmp_path, [ref(f"m.layers.{n}.up.weight", "BF16" if n % 2 else "F32") for n in range(layers)])
    assert len(maps.coverage(found, ())) < 60_000


def test_a_made_up_number_of_classes_does_not_fill_the_page(tmp_path: Path) -> None:
    refs = [
        ref(f"m.layers.{layer}.odd{number}.weight", "BF16" if (layer + number) % 2 else "F32")
        for number in range(300)
        for layer in range(256)
    ]
    found = census_of(tmp_path, refs)
    page = maps.coverage(found, ())
    assert len(page) < 2_000_000
    assert "236 classes more" in maps.left_out(found)


def test_errors_are_means_by_layer_with_the_worst_told(census: Census) -> None:
    at = "language_model.model.layers"
    measured = {f"{at}.{layer}.mlp.experts.{n}.up_proj": {"rel_rmse": 0.01 * (layer + n), "cosine": 0.9}
                for layer in (1, 2) for n in range(4)}  # fmt: skip
    measured["broken"] = {"rel_rmse": float("nan")}
    words = Words(maps.errors(census, measured))
    assert "layer 1: mean 2.5 %, most 4 % of 4" in words.titles
    assert "layer 2: mean 3.5 %, most 5 % of 4" in words.titles
    rows = [row for row in words.cells if row]
    assert rows[0][:4] == ["mlp.experts.*.up_proj", "8", "3 %", "5 %"]
    assert maps.worst(measured, 1) == [(f"{at}.2.mlp.experts.3.up_proj", 0.05, 0.9)]


def test_without_measurements_there_is_no_error_map(census: Census) -> None:
    assert maps.errors(census, {}) == ""
    assert maps.errors(census, {"x": {"rel_rmse": float("inf")}}) == ""


def test_names_of_a_stranger_are_text(tmp_path: Path) -> None:
    name = 'm.layers.0.<img src=x onerror="x">.{{x}}'
    page = maps.coverage(census_of(tmp_path, [ref(f"{name}.weight")]), ())
    assert "<img" not in page
    assert "{{" not in page
    assert any("<img src=x" in row[0] for row in Words(page).cells if row)


def test_mixture_has_its_dense_layer_apart(tmp_path: Path) -> None:
    words = Words(maps.coverage(take(open_checkpoint(nvfp4(mixture()).write(tmp_path / "m"))), ()))
    assert "layer 0: 1 nvfp4" in words.titles
