"""`publisher diff`: what differs between two checkpoints, or between two recipes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli import parameters
from publisher.cli.output import Display, Output, format_option
from publisher.errors import PublisherError
from publisher.units import format_bytes

if TYPE_CHECKING:
    from publisher.checkpoint.difference import Difference, FileChange, Group, ValueGroup
    from publisher.checkpoint.keys import KeyChange

ROWS = 12  # of a table on a screen
RECIPES = (".yaml", ".yml")


@click.command(
    "diff",
    epilog="Examples: publisher diff ./mine hf://org/name --level scales   publisher diff before.yaml after.yaml",
)
@parameters(
    click.argument("before", metavar="A"),
    click.argument("after", metavar="B"),
    click.option(
        "--level",
        type=click.Choice(["headers", "scales", "full"]),
        default="headers",
        show_default=True,
        help="Compare the bits of no tensor, of the scales, or of all.",
    ),
    click.option("--all", "every", is_flag=True, help="List every group instead of one screen."),
    format_option,
)
def command(before: str, after: str, level: str, every: bool, form: str) -> None:
    """Say what differs between A and B: folders, hf://org/name[@revision], or two recipe files.

    Documents key by key, side files, tensors, and modules stored differently, grouped by class and layers. Ends with
    0 when nothing that was compared differs and with 1 when something does.
    """
    output = Output(form)
    recipes = [_is_recipe(place) for place in (before, after)]
    if any(recipes):
        if not all(recipes):
            raise PublisherError("A recipe and a checkpoint cannot be compared.", hint="Name two of one kind.")
        same = _recipes(output, Path(before), Path(after))
    else:
        same = _checkpoints(output, before, after, level, every)
    raise click.exceptions.Exit(0 if same else 1)


def _is_recipe(place: str) -> bool:
    return "://" not in place and place.endswith(RECIPES) and not Path(place).is_dir()


def _recipes(output: Output, before: Path, after: Path) -> bool:
    from publisher.checkpoint.keys import changes
    from publisher.plan.recipe import load_recipe

    found = changes(*(load_recipe(path).to_json() for path in (before, after)))
    output.data({"same": not found, "recipe": [_key_json(change) for change in found]})
    _keys(output, "with every default written out", found, every=True)
    output.say("different" if found else "the same", "bold red" if found else "bold green")
    return not found


def _checkpoints(output: Output, before: str, after: str, level: str, every: bool) -> bool:
    from publisher.checkpoint.difference import difference
    from publisher.cli.reading import Reading

    with Display(output) as display:
        reading = Reading(display, "diff")
        (one, first), (other, second) = reading.open(before), reading.open(after)
        with reading.interruptible():
            found = difference(first, second, level=level, progress=reading.progress)
    labels = [place if source.folder else source.label for place, source in ((before, one), (after, other))]
    output.data({"a": labels[0], "b": labels[1], "level": level, **found.to_json()})
    if output.human:
        _show(output, labels, found, level, every)
    return found.same


def _show(output: Output, labels: Sequence[str], found: Difference, level: str, every: bool) -> None:
    for name, label in zip("AB", labels, strict=True):
        output.say(f"{name}  {label}", "bold")
    _keys(output, "declared", found.declared, every=True)
    for name, changed in found.documents.items():
        _keys(output, name, changed, every=every)
    _keys(output, "index", found.index, every=every)
    _table(output, ("side files", "", "A", "B"), [_file(item) for item in found.files], every)
    _table(output, ("modules stored differently", "layers", "count", "A", "B"), [*map(_group, found.modules)], every)
    _table(output, ("tensors", "layers", "count", "A", "B"), [*map(_group, found.tensors)], every)
    columns = ("tensors whose bits differ", "layers", "differ", "elements", "first place")
    _table(output, columns, [*map(_value, found.values)], every)
    output.say("")
    different = "; ".join(_counted(found))
    output.say(f"different: {different}" if different else "the same, as far as compared", _style(found))
    for note in _not_compared(found, level):
        output.say(note, "dim")


def _style(found: Difference) -> str:
    return "bold green" if found.same else "bold red"


def _keys(output: Output, title: str, found: Sequence[KeyChange], *, every: bool) -> None:
    marks = {"added": "+", "removed": "−", "changed": "~"}
    rows = [
        (
            f"{marks[change.kind]} {change.key}" + (f" ×{change.count:,}" if change.count > 1 else ""),
            change.before,
            change.after,
        )
        for change in found
    ]
    _table(output, (title, "A", "B"), rows, every)


def _table(output: Output, columns: Sequence[str], rows: Sequence[Sequence[str]], every: bool) -> None:
    if not rows:
        return
    output.say("")
    output.table(columns, rows if every else rows[:ROWS])
    if len(rows) > ROWS and not every:
        output.say(f"… and {len(rows) - ROWS:,} more (--all)", "dim")


def _file(item: FileChange) -> tuple[str, ...]:
    sizes = ["–" if size is None else format_bytes(size) for size in (item.before, item.after)]
    return item.name, item.kind, *sizes


def _group(item: Group) -> tuple[str, ...]:
    name = item.example if item.count == 1 else item.pattern
    return name, item.layers, f"{item.count:,}", item.before or "–", item.after or "–"


def _value(item: ValueGroup) -> tuple[str, ...]:
    where = "unreadable" if item.first.first is None else str(list(item.first.first))
    place = f"{item.first.name} {where}" if item.count > 1 or item.first.first is None else where
    name = item.pattern if item.count > 1 else item.first.name
    return name, item.layers, f"{item.count:,} of {item.of:,}", f"{item.elements:,}", place


def _counted(found: Difference) -> Iterator[str]:
    """Each kind of difference with its number."""
    keys = sum(change.count for own in found.documents.values() for change in own)
    counts = (
        (len(found.declared), "declared field", "declared fields"),
        (keys, "configuration key", "configuration keys"),
        (len(found.index), "key of the index", "keys of the index"),
        (len(found.files), "side file", "side files"),
        (sum(group.count for group in found.modules), "module stored differently", "modules stored differently"),
        (sum(group.count for group in found.tensors), "tensor besides", "tensors besides"),
        (sum(group.count for group in found.values), "tensor whose bits differ", "tensors whose bits differ"),
        (found.moved, "tensor in another shard", "tensors in another shard"),
    )
    yield from (f"{count:,} {one if count == 1 else more}" for count, one, more in counts if count)
    if found.shards[0] != found.shards[1]:
        yield f"{found.shards[0]:,} and {found.shards[1]:,} shards"


def _not_compared(found: Difference, level: str) -> Iterator[str]:
    if level != "full":
        left = found.alike - found.compared
        yield f"not compared: the bits of {left:,} tensors of equal dtype and shape (--level full)"
    if found.by_size:
        yield f"compared by size alone: {', '.join(found.by_size[:6])}" + (" …" if len(found.by_size) > 6 else "")


def _key_json(change: KeyChange) -> dict[str, object]:
    return {"key": change.key, "kind": change.kind, "before": change.before, "after": change.after}
