"""Maps of a checkpoint, classes of modules down, layers across: how each is stored, and how far it is from its source.

A stack of layers (a decoder, a vision tower) has a map of its own; what lies outside layers is listed. Equal
neighbours are one rectangle and at most `COLUMNS` columns are drawn, so the picture of 500,000 modules stays small.
Colour never stands alone: each rectangle says in words what it is, each row how many modules are stored how.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher import markup
from publisher.checkpoint.census import Census, ClassCensus, Tally
from publisher.checkpoint.modules import class_of, layer_of
from publisher.checkpoint.stacks import ROWS, Stack, matrices, stacks
from publisher.findings import Finding
from publisher.markup import Html
from publisher.units import format_bytes

KNOWN = ("nvfp4", "mxfp4", "int4", "mxfp8", "fp8", "bf16", "f16", "f32")
STEPS = 8  # shades of the error map
HEIGHT = 10  # of a row, in the picture's own units
_DIGITS = re.compile(r"(\d+)")


_ALONE = Stack(name="", layers=1, classes={})


def left_out(census: Census) -> str:
    """What the maps do not show, in words; empty where they show all."""
    small = [item for item in census.classes if not item.matrix]
    rest = matrices(census)[ROWS:]
    told = []
    for items, noun in ((small, "of norms, biases and tables"), (rest, "more")):
        if items:
            size = format_bytes(sum(item.tally.bytes for item in items))
            told.append(f"{len(items):,} class{'es' if len(items) != 1 else ''} {noun} ({size})")
    return f"Not drawn: {' and '.join(told)}." if told else ""


# --- how modules are stored ----------------------------------------------------------------------------------------


def coverage(census: Census, findings: Sequence[Finding]) -> Html:
    """The coverage maps with their legend; places of errors and warnings are marked."""
    marks = _marks(census, findings)
    drawn = [_coverage_map(stack, marks) for stack in stacks(census)]
    legend = [_legend_item(form, tally) for form, tally in census.forms.items()]
    return markup.join((markup.element("ul", *legend[:12], kind="legend"), *drawn))


def _legend_item(form: str, tally: Tally) -> Html:
    words = f"{form}: {tally.count:,} modules, {format_bytes(tally.bytes)}"
    return markup.element("li", _swatch(_kind(form)), markup.text(words))


def _swatch(kind: str) -> Html:
    rect = markup.void("rect", kind, width="12", height="12", rx="2")
    return markup.element("svg", rect, width="12", height="12", aria_hidden="true")


def _kind(form: str) -> str:
    """The colour of a form; every one that is not known shares one, which stands out."""
    return f"f-{form}" if form in KNOWN else "f-other"


def _coverage_map(stack: Stack, marks: Mapping[str, Mapping[int | None, str]]) -> Html:
    rows = [_coverage_row(stack, name, item, marks.get(item.pattern, {})) for name, item in stack.classes.items()]
    if not stack.name:
        return markup.element(
            "figure",
            markup.element("figcaption", markup.text("Outside the layers")),
            _table(("module", "count", "stored as", "size", ""), rows, _nothing()),
        )
    caption = (markup.code(stack.name), markup.text(f" {stack.layers:,} layers"))
    head = ("module", "count", "stored as", "size", "layers")
    return markup.element("figure", markup.element("figcaption", *caption), _table(head, rows, _axis(stack)))


def _nothing() -> Html:
    return markup.text("")


def _table(columns: Sequence[str], rows: Iterable[Sequence[Html]], axis: Html, kind: str = "map") -> Html:
    """A table whose last column holds the picture, with an axis above it."""
    *names, last = columns
    heads = [markup.element("th", markup.text(name), scope="col") for name in names]
    heads.append(markup.element("th", markup.element("span", markup.text(last), kind="quiet"), axis, scope="col"))
    body = [markup.element("tr", *(markup.element("td", cell) for cell in row)) for row in rows]
    return markup.element(
        "table",
        markup.element("thead", markup.element("tr", *heads)),
        markup.element("tbody", *body),
        kind=kind,
    )


def _coverage_row(stack: Stack, name: str, item: ClassCensus, marks: Mapping[int | None, str]) -> Sequence[Html]:
    some = [form if len(item.forms) == 1 else f"{count:,} {form}" for form, count in item.forms.items()]
    said = ", ".join(some[:4]) + (" …" if len(some) > 4 else "")
    if stack.name:
        picture = _strip(stack, item.cells, marks, item.pattern)
    else:
        worst_mark: dict[int | None, str] = {0: max(marks.values(), key="error".__eq__)} if marks else {}
        picture = _strip(_ALONE, {0: item.forms}, worst_mark, item.pattern)
    return (
        markup.dotted(name),
        markup.text(f"{item.tally.count:,}"),
        markup.text(said),
        markup.text(format_bytes(item.tally.bytes)),
        picture,
    )


def _strip(
    stack: Stack, cells: Mapping[int | None, Mapping[str, int]], marks: Mapping[int | None, str], label: str
) -> Html:
    """One row of a map: a rectangle for each run of columns that hold the same, and marks below what is found."""
    columns: dict[int, Counter[str]] = {}
    for layer, forms in cells.items():
        if layer is not None:
            columns.setdefault(stack.column(layer), Counter()).update(forms)
    pieces = []
    for begin, end, forms in _runs(columns):
        pieces += _cells(begin, end, forms, stack.said(begin, end) if stack.name else "")
    if stack.columns <= 64 and stack.name:
        lines = "".join(f"M{column} 0v{HEIGHT}" for column in range(1, stack.columns))
        pieces.append(markup.void("path", "lines", d=lines))
    severities = {stack.column(layer): mark for layer, mark in marks.items() if layer is not None}
    pieces += [
        markup.void("rect", f"mark {mark}", x=str(column), y=str(HEIGHT - 3), width="1", height="3")
        for column, mark in sorted(severities.items())
    ]
    return _picture(stack.columns, pieces, label)


def _picture(columns: int, pieces: Sequence[Html], label: str) -> Html:
    return markup.element(
        "svg",
        *pieces,
        kind="strip",
        viewBox=f"0 0 {columns} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def _runs(columns: Mapping[int, Counter[str]]) -> Iterator[tuple[int, int, Counter[str]]]:
    """Neighbouring columns that hold the same, as (first, one past the last, what)."""
    begin = end = -1
    held: Counter[str] = Counter()
    for column in sorted(columns):
        if begin >= 0 and column == end and columns[column] == held:
            end += 1
            continue
        if begin >= 0:
            yield begin, end, held
        begin, end, held = column, column + 1, columns[column]
    if begin >= 0:
        yield begin, end, held


def _cells(begin: int, end: int, forms: Counter[str], where: str) -> list[Html]:
    """One run; where modules are stored in two ways, the commoner above, each as high as its share but visible."""
    total = forms.total()
    words = ", ".join(f"{count:,} {form}" for form, count in forms.most_common(4))
    each = " each" if end - begin > 1 else ""
    title = markup.element("title", markup.text(f"{where}: {words}{each}" if where else words))
    first, most = forms.most_common(1)[0]
    height = HEIGHT if most == total else min(max(HEIGHT * most / total, 2), HEIGHT - 2)
    pieces = [_cell(begin, end, 0, height, _kind(first), title)]
    if most < total:
        second = forms.most_common(2)[1][0]
        pieces.append(_cell(begin, end, height, HEIGHT - height, _kind(second), title))
    return pieces


def _cell(begin: int, end: int, y: float, height: float, kind: str, title: Html) -> Html:
    return markup.element(
        "rect", title, kind=kind, x=str(begin), y=f"{y:g}", width=str(end - begin), height=f"{height:g}"
    )


def _axis(stack: Stack) -> Html:
    """Layer numbers above the columns they begin, at round distances."""
    wanted = max(stack.layers / 8, 1)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 500, 1000, 5000, 10_000, 50_000) if s >= wanted)
    ticks = [
        markup.element("text", markup.text(f"{layer:,}"), x=f"{100 * (layer + 0.5) / stack.layers:.2f}%", y="11")
        for layer in range(0, stack.layers, step)
    ]
    return markup.element("svg", *ticks, kind="axis", aria_hidden="true")


def _marks(census: Census, findings: Sequence[Finding]) -> dict[str, dict[int | None, str]]:
    """Class to layer to the severity of what was found there."""
    known = {item.pattern for item in census.classes}
    found: dict[str, dict[int | None, str]] = {}
    for finding in findings:
        if finding.tensor is None or finding.waived is not None or str(finding.severity) == "info":
            continue
        for name in (finding.tensor, finding.tensor.rpartition(".")[0]):
            pattern = class_of(name)
            if pattern in known:
                layers = found.setdefault(pattern, {})
                if layers.get(layer_of(name)) != "error":
                    layers[layer_of(name)] = str(finding.severity)
                break
    return found


# --- how far modules are from their source -------------------------------------------------------------------------


@dataclass(slots=True)
class _Errors:
    """The errors of the modules of one cell."""

    count: int = 0
    total: float = 0.0
    most: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.most = max(self.most, value)

    @property
    def mean(self) -> float:
        return self.total / self.count


def errors(census: Census, measured: Mapping[str, Mapping[str, float]]) -> Html:
    """Relative RMSE of each class and layer as shades from the least to the most; empty where nothing was measured."""
    cells, low, high = _collected(measured)
    if not cells:
        return _nothing()
    drawn = []
    for stack in stacks(census):
        rows = [
            _error_row(stack, n, cells[c.pattern], low, high) for n, c in stack.classes.items() if c.pattern in cells
        ]
        if rows and stack.name:
            caption = (markup.code(stack.name), markup.text(" relative RMSE against the source, mean of each layer"))
            table = _table(("module", "measured", "mean", "most", "layers"), rows, _axis(stack), "map far")
            drawn.append(markup.element("figure", markup.element("figcaption", *caption), table))
    return markup.join((_shades(low, high), *drawn))


def _collected(
    measured: Mapping[str, Mapping[str, float]],
) -> tuple[dict[str, dict[int | None, _Errors]], float, float]:
    """Class to layer to its errors, and the least and the most of all modules."""
    found: dict[str, dict[int | None, _Errors]] = {}
    low, high = math.inf, 0.0
    for name, numbers in measured.items():
        value = numbers.get("rel_rmse")
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            continue
        found.setdefault(class_of(name), {}).setdefault(layer_of(name), _Errors()).add(float(value))
        low, high = min(low, value), max(high, value)
    return found, low, high


def _error_row(stack: Stack, name: str, cells: Mapping[int | None, _Errors], low: float, high: float) -> Sequence[Html]:
    columns: dict[int, _Errors] = {}
    for layer, own in cells.items():
        if layer is None:
            continue
        into = columns.setdefault(stack.column(layer), _Errors())
        into.count, into.total, into.most = into.count + own.count, into.total + own.total, max(into.most, own.most)
    pieces = []
    for column, own in sorted(columns.items()):
        where = stack.said(column, column + 1)
        words = f"{where}: mean {percent(own.mean)}, most {percent(own.most)} of {own.count:,}"
        kind = f"h{_shade(own.mean, low, high)}"
        pieces.append(_cell(column, column + 1, 0, HEIGHT, kind, markup.element("title", markup.text(words))))
    count = sum(own.count for own in cells.values())
    mean = sum(own.total for own in cells.values()) / count
    most = max(own.most for own in cells.values())
    numbers = (f"{count:,}", percent(mean), percent(most))
    return markup.dotted(name), *map(markup.text, numbers), _picture(stack.columns, pieces, name)


def _shade(value: float, low: float, high: float) -> int:
    """0 for the least, `STEPS` - 1 for the most."""
    return 0 if high <= low else min(int((value - low) / (high - low) * STEPS), STEPS - 1)


def _shades(low: float, high: float) -> Html:
    swatches = [_swatch(f"h{step}") for step in range(STEPS)]
    ends = markup.text(percent(low)), markup.text(percent(high))
    return markup.element("p", ends[0], markup.text(" "), *swatches, markup.text(" "), ends[1], kind="shades")


def percent(part: float) -> str:
    """A share as people read it: `9.6 %`, `0.03 %`."""
    return f"{part * 100:.3g} %"


def worst(measured: Mapping[str, Mapping[str, float]], limit: int) -> list[tuple[str, float, float | None]]:
    """The modules farthest from their source: name, relative RMSE, cosine."""
    found = [
        (name, float(numbers["rel_rmse"]), numbers.get("cosine"))
        for name, numbers in measured.items()
        if isinstance(numbers.get("rel_rmse"), int | float) and math.isfinite(numbers["rel_rmse"])
    ]
    return sorted(found, key=lambda item: -item[1])[:limit]
