"""Histograms: the outline is as high as the counts, the axis names true values, defects are words."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

from publisher.reports import histograms
from publisher.reports.overview import Histogram, Range


def made(form: str, counts: dict[int, int]) -> Histogram:
    return Histogram(
        pattern="m.*.up_proj",
        format=form,
        counts=tuple(counts.get(code, 0) for code in range(256)),
        tensors=2,
        of=7,
    )


def outline(page: str) -> list[float]:
    """The height of each unit of width, read back from the path."""
    match = re.search(r'd="M0 40([^"]*)z"', page)
    assert match
    at, heights = 40.0, []
    for move, number in re.findall(r"([vh])(-?[\d.]+)", match.group(1)):
        if move == "v":
            at += float(number)
        else:
            heights += [round(40 - at, 1)] * int(number)
    assert at == pytest.approx(40)
    return heights


@pytest.mark.parametrize(("form", "codes"), [("nvfp4", {0: 1, 60: 10, 61: 20, 126: 5}), ("mxfp4", {110: 3, 118: 9})])
def test_bars_are_as_high_as_their_counts(form: str, codes: dict[int, int]) -> None:
    own = made(form, codes)
    page = histograms.histograms([own])
    heights = outline(page)
    begin, end = histograms._window(own)
    assert len(heights) == end - begin
    peak = max(codes.values())
    for code in range(begin, end):
        assert heights[code - begin] == pytest.approx(40 * codes.get(code, 0) / peak, abs=0.1)


def test_the_axis_and_the_median_are_true_values() -> None:
    page = histograms.histograms([made("nvfp4", {48: 10})])
    value = float(np.array([48], np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)[0])
    assert f"median {value:.3g}" in page
    for label, at in re.findall(r'<text x="([\d.]+)%" y="11">([^<]*)</text>', page):
        code = round(float(label) / 100 * 127 - 0.5)
        true = float(np.array([code], np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)[0])
        power = at.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-"))
        assert true == (2.0 ** int(power[1:]) if at[1:] and at[1:] != power[1:] else float(at))


def test_defects_are_told_in_words() -> None:
    page = histograms.histograms([made("nvfp4", {50: 100, 0x7F: 2, 0xFF: 1, 0x90: 4})])
    assert "3 NaN, 4 negative" in page
    assert "NaN" in histograms.histograms([made("mxfp4", {120: 1, 255: 1})])
    assert "NaN" not in histograms.histograms([made("mxfp4", {120: 1})])


def test_how_much_was_looked_at_is_told() -> None:
    assert "111 scales; 2 of 7 tensors" in histograms.histograms([made("mxfp4", {100: 111})])


@pytest.mark.parametrize("counts", [{}, {255: 1}, {0: 1}, {254: 1}, {0: 1, 254: 1}])
def test_odd_histograms_are_drawn(counts: dict[int, int]) -> None:
    for form in ("nvfp4", "mxfp4"):
        outline(histograms.histograms([made(form, counts)]))


def test_ranges_say_what_is_odd() -> None:
    own = Range(pattern="m", suffix="weight_scale_2", low=None, middle=None, high=None, odd=3, tensors=3, of=9)
    page = histograms.ranges([own])
    assert "3 of 9" in page
    assert "–" in page
