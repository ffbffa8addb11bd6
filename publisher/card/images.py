"""The card's pictures: how every class of modules is stored layer by layer, and how far it is from its source.

SVG, because it is text: the same checkpoint gives the same bytes, a diff can be read, and nothing beyond the standard
library is needed. Only shapes, presentation attributes and text are written, no style, script or link, so that a page
that shows the file as an image or by itself shows the same. Experts share a row whatever their number, layers share
columns beyond 128; each row says in words what its colours mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher import jsonio, markup
from publisher.checkpoint.census import Census, ClassCensus
from publisher.checkpoint.modules import class_of, layer_of
from publisher.checkpoint.stacks import Stack, stacks
from publisher.markup import Html
from publisher.subjects.evidence import PICTURES

COVERAGE, ERROR = PICTURES
MARK = "<!-- Written by fp4-publisher. -->\n"
COLOURS = {
    "nvfp4": "#5b9a00", "mxfp4": "#c4501b", "int4": "#8a63d2", "mxfp8": "#d98e04", "fp8": "#e0a93b",
    "bf16": "#4a7fb5", "f16": "#6fa3c9", "f32": "#35577a",
}  # fmt: skip
OTHER = "#b0178f"
SHADES = ("#fff3c4", "#fde08a", "#fcc04f", "#f99d2e", "#ec7424", "#cf4a23", "#a32a22", "#6d1420")
WIDTH, ROW, LABEL, SAID = 1000, 18, 300, 130  # the picture, a row, the names before it, the words behind it
MAX_NAME = 44


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of the card.

    Args:
        path: where it lies in the repository.
        alt: what it shows, for those who cannot see it.
        svg: its bytes as text.
    """

    path: str
    alt: str
    svg: str


def pictures(census: Census, errors: Mapping[str, float]) -> tuple[Picture, ...]:
    """The pictures of a checkpoint.

    Args:
        census: of the checkpoint.
        errors: relative RMSE by module, where it was measured.
    """
    found = [_coverage(census)] if any(item.matrix for item in census.classes) else []
    measured = _measured(errors)
    drawn = _error(census, measured) if measured else None
    return tuple(found + ([drawn] if drawn else []))


def write(folder: Path, drawn: Sequence[Picture]) -> list[str]:
    """Write the pictures below a folder and remove those of an earlier call; returns their paths."""
    for stale in set(written(folder)) - {picture.path for picture in drawn}:
        (folder / stale).unlink()
    for picture in drawn:
        jsonio.write_atomic(folder / picture.path, picture.svg)
    return [picture.path for picture in drawn]


def written(folder: Path) -> list[str]:
    """The pictures `write` left below a folder, known by their first line; another's of that name is not among them."""
    found = []
    for name in PICTURES:
        path = folder / name
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(len(MARK)) == MARK.encode():
                    found.append(name)
    return found


# --- coverage ------------------------------------------------------------------------------------------------------


def _coverage(census: Census) -> Picture:
    legend = [(form, _colour(form), f"{form}: {tally.count:,} modules") for form, tally in census.forms.items()][:8]
    pieces, y = list(_legend(legend, 34)), 64
    for stack in stacks(census):
        pieces += _heading(stack, y)
        y += 22
        for name, item in stack.classes.items():
            pieces += _label(name, _said(item), y)
            pieces += _strip(stack, item, y)
            y += ROW
        pieces += _axis(stack, y)
        y += 30
    told = "; ".join(words for _, _, words in legend)
    alt = f"Coverage map, layers across and classes of modules down: {told}"
    return Picture(COVERAGE, alt, _svg("How each class of modules is stored, layer by layer", pieces, y))


def _said(item: ClassCensus) -> str:
    forms = list(item.forms.items())
    if len(forms) == 1:
        return f"{item.tally.count:,} {forms[0][0]}"
    return ", ".join(f"{count:,} {form}" for form, count in forms[:2]) + (" …" if len(forms) > 2 else "")


def _strip(stack: Stack, item: ClassCensus, y: int) -> Iterator[Html]:
    """One rectangle for each run of columns that hold the same; two ways of storing share its height."""
    columns: dict[int, Counter[str]] = {}
    for layer, forms in item.cells.items():
        if layer is None and stack.name:
            continue
        columns.setdefault(stack.column(layer or 0) if stack.name else 0, Counter()).update(forms)
    begin: int | None = None
    for column in range(stack.columns + 1):
        held = columns.get(column)
        if begin is not None and held != columns.get(begin):
            yield from _run(stack, begin, column, columns[begin], y)
            begin = None
        if begin is None and held is not None:
            begin = column


def _run(stack: Stack, begin: int, end: int, forms: Counter[str], y: int) -> Iterator[Html]:
    ordered = forms.most_common(2)
    share = ordered[0][1] / forms.total() if len(ordered) > 1 else 1.0
    height = round((ROW - 4) * min(max(share, 0.25), 0.75)) if share < 1 else ROW - 4
    yield _cell(stack, begin, end, y, height, _colour(ordered[0][0]))
    if share < 1:
        yield _cell(stack, begin, end, y + height, ROW - 4 - height, _colour(ordered[1][0]))


def _colour(form: str) -> str:
    return COLOURS.get(form, OTHER)


# --- error ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Cell:
    """The errors of the modules of one class in one layer."""

    count: int = 0
    total: float = 0.0
    most: float = 0.0

    def add(self, value: float) -> None:
        self.count, self.total, self.most = self.count + 1, self.total + value, max(self.most, value)

    def merge(self, other: _Cell) -> None:
        self.count, self.total = self.count + other.count, self.total + other.total
        self.most = max(self.most, other.most)

    @property
    def mean(self) -> float:
        return self.total / self.count


def _measured(errors: Mapping[str, float]) -> dict[str, dict[int | None, _Cell]]:
    found: dict[str, dict[int | None, _Cell]] = {}
    for name, value in errors.items():
        if math.isfinite(value) and value >= 0:
            found.setdefault(class_of(name), {}).setdefault(layer_of(name), _Cell()).add(value)
    return found


def _error(census: Census, measured: Mapping[str, Mapping[int | None, _Cell]]) -> Picture | None:
    drawn = [
        (stack, {name: found for name, item in stack.classes.items() if (found := _columns(stack, item, measured))})
        for stack in stacks(census)
        if stack.name
    ]
    drawn = [(stack, rows) for stack, rows in drawn if rows]
    means = [cell.mean for _, rows in drawn for cells in rows.values() for cell in cells.values()]
    if not means:
        return None
    low, high = min(means), max(means)
    pieces, y = list(_scale(low, high)), 64
    for stack, rows in drawn:
        pieces += _heading(stack, y)
        y += 22
        for name, cells in rows.items():
            own = _together(cells.values())
            pieces += _label(name, f"{_percent(own.mean)}, most {_percent(own.most)}", y)
            pieces += [
                _cell(stack, column, column + 1, y, ROW - 4, _shade(cell.mean, low, high))
                for column, cell in sorted(cells.items())
            ]
            y += ROW
        pieces += _axis(stack, y)
        y += 30
    alt = (
        "Error map, layers across and classes of modules down: mean relative RMSE of the weights against the source, "
        f"from {_percent(low)} to {_percent(high)}"
    )
    return Picture(ERROR, alt, _svg("Relative RMSE of the weights against the source, mean of each layer", pieces, y))


def _columns(stack: Stack, item: ClassCensus, measured: Mapping[str, Mapping[int | None, _Cell]]) -> dict[int, _Cell]:
    found: dict[int, _Cell] = {}
    for layer, cell in measured.get(item.pattern, {}).items():
        if layer is not None and 0 <= layer < stack.layers:
            found.setdefault(stack.column(layer), _Cell()).merge(cell)
    return found


def _together(cells: Iterable[_Cell]) -> _Cell:
    whole = _Cell()
    for cell in cells:
        whole.merge(cell)
    return whole


def _shade(value: float, low: float, high: float) -> str:
    step = int((value - low) / (high - low) * len(SHADES)) if high > low else 0
    return SHADES[min(step, len(SHADES) - 1)]


def _scale(low: float, high: float) -> Iterator[Html]:
    yield _words(_percent(low), LABEL - 8, 46, anchor="end")
    for step, colour in enumerate(SHADES):
        yield markup.void("rect", x=str(LABEL + 24 * step), y="34", width="24", height="14", fill=colour)
    yield _words(_percent(high), LABEL + 24 * len(SHADES) + 8, 46)


def _percent(value: float) -> str:
    return f"{value * 100:.3g} %"


# --- pieces --------------------------------------------------------------------------------------------------------


def _svg(title: str, pieces: Sequence[Html], height: int) -> str:
    page = markup.void("rect", width=str(WIDTH), height=str(height), fill="#ffffff")
    drawing = markup.element(
        "svg",
        markup.element("title", markup.text(title)),
        page,
        _words(title, 12, 20, size=14, weight="bold"),
        *pieces,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=str(WIDTH),
        height=str(height),
        role="img",
        font_family="sans-serif",
    )
    return f"{MARK}{drawing}\n"


def _words(
    text: str, x: float, y: float, *, size: int = 12, anchor: str = "", weight: str = "", fill: str = "#1c2733"
) -> Html:
    return markup.element(
        "text", markup.text(text), x=f"{x:g}", y=f"{y:g}", font_size=str(size), text_anchor=anchor,
        font_weight=weight, fill=fill,
    )  # fmt: skip


def _legend(entries: Sequence[tuple[str, str, str]], y: int) -> Iterator[Html]:
    x = 12.0
    for _, colour, words in entries:
        if x + 24 + 7 * len(words) > WIDTH:
            return
        yield markup.void("rect", x=f"{x:g}", y=str(y), width="12", height="12", fill=colour)
        yield _words(words, x + 18, y + 11)
        x += 34 + 7.0 * len(words)


def _heading(stack: Stack, y: int) -> Iterator[Html]:
    name = f"{_short(stack.name)}, {stack.layers:,} layers" if stack.name else "Outside the layers"
    yield _words(name, 12, y + 14, weight="bold")


def _label(name: str, said: str, y: int) -> Iterator[Html]:
    yield _words(_short(name), LABEL - 8, y + 12, anchor="end")
    yield _words(said, WIDTH - SAID + 8, y + 12, size=11, fill="#4a5866")


def _short(name: str) -> str:
    """The end of a long name tells more than its beginning."""
    return name if len(name) <= MAX_NAME else "…" + name[-MAX_NAME + 1 :]


def _cell(stack: Stack, begin: int, end: int, y: int, height: int, colour: str) -> Html:
    scale = (WIDTH - LABEL - SAID) / stack.columns if stack.name else ROW
    gap = 1 if scale >= 6 else 0
    return markup.void(
        "rect", x=f"{LABEL + begin * scale:.2f}", y=str(y), width=f"{max((end - begin) * scale - gap, 0.5):.2f}",
        height=str(height), fill=colour,
    )  # fmt: skip


def _axis(stack: Stack, y: int) -> Iterator[Html]:
    """Layer numbers below the columns they begin, at round distances."""
    if not stack.name or stack.layers < 1:
        return
    wanted = max(stack.layers / 10, 1)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 500, 1000, 5000, 10_000, 50_000) if s >= wanted)
    scale = (WIDTH - LABEL - SAID) / stack.layers
    for layer in range(0, stack.layers, step):
        yield _words(f"{layer:,}", LABEL + (layer + 0.5) * scale, y + 10, size=10, anchor="middle", fill="#4a5866")
