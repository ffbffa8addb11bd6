"""Scale histograms as small pictures: one a class of modules, block scales by code, which is a scale of powers of two.

E4M3 codes 0 to 126 rise with the value, eight to a power of two, so their order is the axis (448 at the right end);
E8M0 codes are the powers of two themselves and only the part in use is drawn. Negative and NaN codes are told in
words: they are defects, and a bar would hide how few they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from publisher import markup
from publisher.formats import e4m3, e8m0
from publisher.markup import Html
from publisher.reports.maps import percent
from publisher.reports.overview import CODES, Histogram, Range

HEIGHT = 40
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def histograms(found: Sequence[Histogram]) -> Html:
    """Every histogram with its axis and its words."""
    return markup.element("div", *map(_histogram, found), kind="multiples")


def _histogram(own: Histogram) -> Html:
    begin, end = _window(own)
    bars = own.counts[begin:end]
    peak = max(bars, default=0) or 1
    heights = [0 if not count else max(round(count / peak * HEIGHT, 1), 0.8) for count in bars]
    path = f"M0 {HEIGHT}" + "".join(_steps(heights)) + "z"
    picture = markup.element(
        "svg",
        markup.void("path", f"f-{own.format}", d=path),
        kind="bars",
        viewBox=f"0 0 {end - begin} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"block scales of {own.pattern}: {_words(own)}",
    )
    return markup.element(
        "figure",
        markup.element("figcaption", markup.dotted(own.pattern)),
        picture,
        _axis(own.format, begin, end),
        markup.element("p", markup.text(_words(own)), kind="quiet"),
        _defects(own),
        markup.element("p", markup.text(_sampled(own.tensors, own.of, f"{own.scales:,} scales")), kind="quiet"),
    )


def _window(own: Histogram) -> tuple[int, int]:
    """The codes that are drawn, first and one past the last."""
    if own.format == "nvfp4":
        return 0, e4m3.MAX_CODE + 1
    used = [code for code in range(e8m0.MAX_CODE + 1) if own.counts[code]]
    if not used:
        return 119, 136
    middle = (used[0] + used[-1] + 1) // 2
    half = max((used[-1] - used[0]) // 2 + 2, 8)
    return max(middle - half, 0), min(middle + half, e8m0.MAX_CODE + 1)


def _steps(heights: Sequence[float]) -> list[str]:
    """The outline of the bars, each one wide, by relative moves."""
    moves, last = [], 0.0
    for height, group in itertools.groupby(heights):
        rise = f"v{last - height:g}" if height != last else ""
        moves.append(f"{rise}h{len(list(group))}")
        last = height
    return [*moves, f"v{last:g}"]


def _axis(form: str, begin: int, end: int) -> Html:
    step = 16 if form == "nvfp4" else max((end - begin) // 6, 1)
    codes = range(8, end, step) if form == "nvfp4" else range(begin + step // 2, end, step)
    ticks = [
        markup.element(
            "text", markup.text(_value(form, code)), x=f"{100 * (code - begin + 0.5) / (end - begin):.1f}%", y="11"
        )
        for code in codes
    ]
    return markup.element("svg", *ticks, kind="axis", aria_hidden="true")


def _value(form: str, code: int) -> str:
    """A code's value: a number where it is plain, a power of two otherwise."""
    power = code // 8 - e4m3.BIAS if form == "nvfp4" else code - e8m0.BIAS
    if 0 <= power < 9:
        return str(2**power)
    return "2" + str(power).translate(RAISED)


def _words(own: Histogram) -> str:
    """The middle, and the shares at both ends."""
    drawn = own.counts[: 127 if own.format == "nvfp4" else 255]
    total, half, middle = sum(drawn), 0, 0
    for code, count in enumerate(drawn):
        half += count
        if half * 2 >= total:
            middle = code
            break
    parts = [f"median {float(CODES[own.format][middle]):.3g}"] if total else []
    if own.format == "nvfp4":
        parts.append(f"{percent(own.share(e4m3.MAX_CODE))} at 448, {percent(own.share(0))} zero")
    return ", ".join(parts)


def _defects(own: Histogram) -> Html:
    nan = (e4m3.NAN_CODE, 0xFF) if own.format == "nvfp4" else (e8m0.NAN_CODE,)
    negative = range(0x80, 0xFF) if own.format == "nvfp4" else ()
    told = [
        f"{sum(own.counts[code] for code in codes):,} {noun}"
        for codes, noun in ((nan, "NaN"), (negative, "negative"))
        if any(own.counts[code] for code in codes)
    ]
    return markup.element("p", markup.text(", ".join(told)), kind="bad") if told else markup.text("")


def _sampled(tensors: int, of: int, amount: str) -> str:
    which = f"all {of:,} tensors" if tensors == of else f"{tensors:,} of {of:,} tensors"
    return f"{amount}; {which}"


def ranges(found: Sequence[Range]) -> Html:
    """Global scales as a table."""
    rows = [
        [
            markup.dotted(own.pattern),
            markup.code(own.suffix),
            *(markup.text("–" if value is None else f"{value:.4g}") for value in (own.low, own.middle, own.high)),
            markup.text(f"{own.odd:,}" if own.odd else ""),
            markup.text(f"{own.tensors:,} of {own.of:,}"),
        ]
        for own in found
    ]
    columns = ("module", "scale", "smallest", "median", "largest", "odd", "looked at")
    return markup.table(columns, rows, caption="Global scales", kind="ranges")
