"""A report as one page of HTML that needs nothing else: no script, no font, no request; light and dark.

Verdict and engines first, then what was found with its fix, then the checkpoint in pictures: what is stored how, layer
by layer; how the scales are distributed; how far each layer is from its source, where that was measured. Everything a
stranger wrote goes through `markup.text`, and the page's own policy would stop what it missed. Lists are bounded, so
the page of the largest models stays below three megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from publisher import markup
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.markup import Html
from publisher.reports import histograms, maps
from publisher.reports import validation as told
from publisher.reports.overview import Overview
from publisher.reports.validation import Group, Opinion, Validation
from publisher.units import format_bytes, format_count

STYLE = Path(__file__).parent / "page.css"
PLACES = 20  # of one rule
ALL_PLACES = 600  # of all rules together
OPEN = 5  # rules that are unfolded
WORST = 15
MARKS = {"error": "✕", "warning": "!", "info": "i"}
VERDICTS = {"loads": ("good", "✓"), "loads wrong": ("error", "✕"), "refuses": ("error", "✕")}


def write(validation: Validation) -> str:
    """The page."""
    css = STYLE.read_text(encoding="utf-8")
    title = f"{told.headline(validation.report).capitalize()}: {validation.title or 'checkpoint'}"
    return markup.document(title, css, _header(validation), markup.element("main", *_sections(validation)), _footer())


def _sections(validation: Validation) -> Iterator[Html]:
    report, overview = validation.report, validation.overview
    if overview is not None:
        yield _tiles(overview)
    yield _engines(told.opinions(report))
    yield _findings(told.groups(report))
    if overview is not None:
        yield _coverage(validation, overview)
        yield _scales(overview)
        yield _errors(validation, overview)
    yield _not_run(validation)


def _section(identity: str, title: str, note: str, *inner: Html) -> Html:
    head = [markup.element("h2", markup.text(title))]
    head += [markup.element("p", markup.text(note), kind="note")] if note else []
    return markup.element("section", *head, *inner, id=identity)


def _header(validation: Validation) -> Html:
    report = validation.report
    good = report.publishable
    tool = " ".join(str(report.tool[key]) for key in ("name", "version") if key in report.tool)
    facts = [
        ", ".join(told.counted(report)),
        f"{format_bytes(report.bytes_read)} read in {report.seconds:.1f} s",
        tool,
        validation.date,
    ]
    verdict = markup.element(
        "p",
        markup.element("span", markup.text("✓" if good else "✕"), aria_hidden="true"),
        markup.text(f" {told.headline(report)}"),
        kind=f"verdict {'good' if good else 'error'}",
    )
    name, _, commit = validation.title.partition("@") if "://" in validation.title else (validation.title, "", "")
    return markup.element(
        "header",
        markup.element("p", markup.text("Quantized checkpoint, validated"), kind="over"),
        markup.element("h1", markup.text(name.removeprefix("hf://") or "checkpoint")),
        markup.element("p", markup.text("commit "), markup.code(commit), kind="quiet") if commit else markup.text(""),
        verdict,
        markup.element("p", markup.text(" · ".join(filter(None, facts))), kind="quiet"),
    )


def _tiles(overview: Overview) -> Html:
    census = overview.census
    share = census.quantized_parameters / census.total.parameters if census.total.parameters else 0.0
    bits = census.bits_per_parameter
    tiles = [
        (format_count(census.total.parameters), "parameters"),
        (format_bytes(census.total.bytes), f"in {told.plural(len(census.shards), 'shard')}"),
        ("–" if bits is None else f"{bits:.2f}", "bits per parameter"),
        (maps.percent(share), "of the parameters quantized"),
        (f"{census.total.count:,}", "tensors"),
        _declared(overview.declared),
    ]
    drawn = [
        markup.element("li", markup.element("b", markup.text(value)), markup.element("span", markup.text(noun)))
        for value, noun in tiles
    ]
    return markup.element("ul", *drawn, kind="tiles")


def _declared(declared: Sequence[QuantConfig]) -> tuple[str, str]:
    if not declared:
        return "nothing", "is declared quantized"
    first = declared[0]
    return first.format or first.algo or "unknown", f"declared, {first.dialect}"


def _engines(found: Mapping[str, Sequence[Opinion]]) -> Html:
    if not found:
        return markup.text("")
    cards = [_engine(name, own) for name, own in found.items()]
    note = "As far as the rules that ran can tell; unknown is not a yes."
    return _section("engines", "What engines make of it", note, markup.element("div", *cards, kind="engines"))


def _engine(name: str, found: Sequence[Opinion]) -> Html:
    rows = []
    for own in found:
        kind, mark = VERDICTS.get(own.verdict, ("quiet", "?"))
        versions = ", ".join(filter(None, own.versions)) or "any"
        said = [
            markup.badge(kind, f"{mark} {own.verdict}"),
            markup.element("span", markup.text(versions), kind="version"),
        ]
        said += [markup.element("span", markup.text(own.because), kind="quiet")] if own.because else []
        rows.append(markup.element("li", *said))
    return markup.element("article", markup.element("h3", markup.text(name)), markup.element("ul", *rows))


def _findings(found: Sequence[Group]) -> Html:
    if not found:
        return _section("findings", "Findings", "The rules that ran found nothing to say.")
    left = ALL_PLACES
    drawn = []
    for number, group in enumerate(found):
        places = min(PLACES, left)
        left -= min(len(group.findings), places)
        drawn.append(_group(group, places, opened=group.blocks and number < OPEN))
    note = "Grouped by rule, what blocks publication first. An error blocks unless somebody waived it with a reason."
    return _section("findings", "Findings", note, *drawn)


def _group(group: Group, places: int, *, opened: bool) -> Html:
    severity = "waived" if group.waived is not None else str(group.severity)
    label = f"{MARKS.get(severity, '–')} {severity}"
    summary = markup.join(
        (
            markup.badge(severity, label),
            markup.code(group.code),
            markup.element("span", markup.text(group.slug), kind="slug"),
            markup.element("span", markup.text(told.plural(group.places, "place")), kind="quiet"),
        ),
        " ",
    )
    facts = [(name, str(group.rule.get(key) or "")) for name, key in (("why", "why"), ("fix", "fix"), ("seen", "seen"))]
    facts.insert(1, ("engines", group.breaks))
    facts.append(("waived", group.waived or ""))
    rows = [_place(finding.message, told.place(finding)) for finding in group.findings[:places]]
    shown = sum(finding.places for finding in group.findings[:places])
    if group.places > shown:
        rows.append(
            markup.element("li", markup.text(f"… and {group.places - shown:,} more; the JSON report lists more"))
        )
    return markup.details(
        summary,
        markup.element("p", markup.text(group.summary), kind="summary"),
        markup.element("ul", *rows, kind="places"),
        markup.facts([(name, value) for name, value in facts if value]),
        opened=opened,
    )


def _place(message: str, where: str) -> Html:
    head = [markup.dotted(where[:400]), markup.text(" ")] if where else []
    return markup.element("li", *head, markup.text(message[:600]))


def _coverage(validation: Validation, overview: Overview) -> Html:
    note = (
        "One row a class of modules, one column a layer; modules that differ only in expert number share a cell. "
        "How a module is stored is judged by its tensors. A red mark is an error found there, a yellow one a warning."
    )
    rest = markup.element("p", markup.text(maps.left_out(overview.census)), kind="quiet")
    drawn = maps.coverage(overview.census, validation.report.findings)
    return _section("coverage", "What is stored how", note, drawn, rest)


def _scales(overview: Overview) -> Html:
    if not overview.histograms and not overview.ranges:
        return markup.text("")
    note = "A sample of the stored scales, for the eye; rules read every scale they judge. Bars are linear in count."
    inner = [histograms.histograms(overview.histograms)] if overview.histograms else []
    if overview.ranges:
        summary = markup.text("Global scales")
        inner.append(markup.details(summary, histograms.ranges(overview.ranges)))
    return _section("scales", "How scales are distributed", note, *inner)


def _errors(validation: Validation, overview: Overview) -> Html:
    measured = validation.report.measured
    drawn = maps.errors(overview.census, measured)
    if not drawn:
        return drawn
    rows = [
        [markup.dotted(name), markup.text(maps.percent(error)), markup.text("–" if cosine is None else f"{cosine:.5f}")]
        for name, error, cosine in maps.worst(measured, WORST)
    ]
    table = markup.table(("module", "relative RMSE", "cosine"), rows, caption="Farthest from the source")
    note = f"{len(measured):,} modules dequantized and compared with the weights they were made from."
    return _section("errors", "How far from the source", note, drawn, markup.details(markup.text("The worst"), table))


def _not_run(validation: Validation) -> Html:
    report = validation.report
    reasons, absent = told.not_run(report), told.inapplicable(report)
    inner = []
    if reasons:
        rows = [(reason, ", ".join(codes)) for reason, codes in reasons.items()]
        count = sum(map(len, reasons.values()))
        inner.append(_folded(f"{told.plural(count, 'rule')} not run", markup.facts(rows), opened=True))
    if absent:
        inner.append(_folded(f"{told.plural(len(absent), 'rule')} with nothing to judge", markup.facts(absent.items())))
    if report.rules_run:
        run = markup.element("p", markup.text(", ".join(report.rules_run)), kind="codes")
        inner.append(_folded(f"{told.plural(len(report.rules_run), 'rule')} run", run))
    return _section("rules", "What was checked", "Not run is not passed.", *inner)


def _folded(summary: str, inner: Html, *, opened: bool = False) -> Html:
    return markup.details(markup.text(summary), inner, opened=opened)


def _footer() -> Html:
    said = "This page is whole: it holds no script and loads nothing. Names in it come from the checkpoint."
    return markup.element("footer", markup.text(said))
