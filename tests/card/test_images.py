"""The pictures of a card: the same bytes every time, small at any size, true to the files, inert."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from publisher.card import images
from publisher.checkpoint.census import Census, take
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import module_table
from publisher.checkpoint.open import Checkpoint, open_checkpoint

SVG = "{http://www.w3.org/2000/svg}"


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


def packed(name: str) -> list[TensorRef]:
    return [ref(f"{name}.weight", "U8"), ref(f"{name}.weight_scale", "F8_E4M3")]


def model(layers: int, experts: int) -> list[TensorRef]:
    found = [ref("lm_head.weight"), ref("model.norm.weight", shape=(4,))]
    for layer in range(layers):
        found.append(ref(f"model.layers.{layer}.self_attn.o_proj.weight"))
        for expert in range(experts):
            found += packed(f"model.layers.{layer}.mlp.experts.{expert}.up_proj")
    return found


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def colours(svg: str) -> set[str]:
    return {element.get("fill", "") for element in ET.fromstring(svg).iter(f"{SVG}rect")}


def test_what_is_drawn_is_what_is_stored(tmp_path: Path) -> None:
    (drawn,) = images.pictures(census_of(tmp_path, model(3, 4)), {})
    assert drawn.path == "images/coverage.svg"
    said = texts(drawn.svg)
    assert "12 nvfp4" in said
    assert "3 bf16" in said
    assert {images.COLOURS["nvfp4"], images.COLOURS["bf16"]} <= colours(drawn.svg)
    assert "nvfp4: 12 modules" in drawn.alt


def test_errors_are_means_of_a_layer_and_the_most_is_told(tmp_path: Path) -> None:
    names = [f"model.layers.{layer}.mlp.experts.{expert}.up_proj" for layer in range(2) for expert in range(4)]
    measured = {name: 0.1 if ".0.mlp" in name else 0.2 for name in names} | {names[-1]: 0.4, "x": float("nan")}
    _, drawn = images.pictures(census_of(tmp_path, model(2, 4)), measured)
    said = texts(drawn.svg)
    assert "10 %" in said
    assert "25 %" in said  # (0.2 × 3 + 0.4) / 4
    assert "17.5 %, most 40 %" in said
    assert {images.SHADES[0], images.SHADES[-1]} <= colours(drawn.svg)


@pytest.mark.parametrize(("layers", "experts"), [(61, 384), (1000, 1)])
def test_a_picture_stays_small_and_inside_its_frame(tmp_path: Path, layers: int, experts: int) -> None:
    census = census_of(tmp_path, model(layers, experts))
    measured = {f"model.layers.{n}.mlp.experts.{e}.up_proj": 0.1 + n / 1e4 for n in range(layers) for e in range(3)}
    for drawn in images.pictures(census, measured):
        assert len(drawn.svg) < 60_000
        root = ET.fromstring(drawn.svg)
        width, height = float(root.get("width", "0")), float(root.get("height", "0"))
        for rect in root.iter(f"{SVG}rect"):
            assert float(rect.get("x", "0")) + float(rect.get("width", "0")) <= width
            assert float(rect.get("y", "0")) + float(rect.get("height", "0")) <= height


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (images.pictures(census_of(tmp_path, model(3, 2)), {"lm_head": 0.1}) for _ in range(2))
    assert first == second


def test_a_name_is_text_and_nothing_is_loaded_or_run(tmp_path: Path) -> None:
    hostile = "model.layers.0.<script>alert(1)</script>&\"'"
    (drawn,) = images.pictures(census_of(tmp_path, [*packed(hostile), ref("a.weight")]), {})
    tags = {element.tag.removeprefix(SVG) for element in ET.fromstring(drawn.svg).iter()}
    assert tags <= {"svg", "title", "rect", "text"}
    assert "href" not in drawn.svg
    assert "style" not in drawn.svg


def test_pictures_of_an_earlier_run_go_and_a_persons_own_stay(tmp_path: Path) -> None:
    drawn = images.pictures(census_of(tmp_path, model(2, 2)), {"model.layers.0.self_attn.o_proj": 0.1})
    assert images.write(tmp_path, drawn) == ["images/coverage.svg", "images/error.svg"]
    assert images.written(tmp_path) == ["images/coverage.svg", "images/error.svg"]
    assert images.write(tmp_path, drawn[:1]) == ["images/coverage.svg"]
    assert not (tmp_path / "images/error.svg").exists()
    (tmp_path / "images/error.svg").write_text("<svg/>")
    assert images.written(tmp_path) == ["images/coverage.svg"]


def test_what_holds_no_matrix_has_no_picture(tmp_path: Path) -> None:
    assert images.pictures(census_of(tmp_path, [ref("a.weight", shape=(4,))]), {}) == ()
