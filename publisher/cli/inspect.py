"""`publisher inspect`: what a checkpoint holds, in tables, by its headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from publisher.cli import parameters
from publisher.cli.output import Display, Output, format_option
from publisher.units import format_bytes, format_count

if TYPE_CHECKING:
    from publisher.checkpoint.census import Census, ClassCensus
    from publisher.checkpoint.open import Checkpoint
    from publisher.checkpoint.parallel import Split
    from publisher.checkpoint.quantconfig import QuantConfig

CLASSES = 24  # of a screen
LARGEST = 5
ROWS = 40  # of other tables; only a made-up checkpoint has more


@click.command(
    "inspect", epilog="Examples: publisher inspect ./checkpoint   publisher inspect hf://org/name@main --format json"
)
@parameters(
    click.argument("path"),
    click.option("--all", "every", is_flag=True, help="List every class of modules, norms and biases too."),
    format_option,
)
def command(path: str, every: bool, form: str) -> None:
    """Say what the checkpoint at PATH holds: dtypes, coverage by role and class, sizes, what it declares.

    PATH is a folder or hf://org/name[@revision]; of either only headers and JSON files are read.
    """
    from publisher.checkpoint import census
    from publisher.checkpoint.parallel import tensor_parallel
    from publisher.cli.reading import Reading

    output = Output(form)
    with Display(output) as display:
        place, checkpoint = Reading(display, "inspect").open(path)
    counted, splits = census.take(checkpoint), tensor_parallel(checkpoint)
    label = path if place.folder else place.label
    output.data(
        {
            "checkpoint": label,
            **counted.to_json(),
            "declarations": [_declaration(item) for item in checkpoint.declarations],
            "tensor_parallel": [_split_json(split) for split in splits],
            "side_files": dict(checkpoint.side_files),
        }
    )
    if output.human:
        _show(output, label, checkpoint, counted, splits, every)


def _show(
    output: Output, label: str, checkpoint: Checkpoint, census: Census, splits: Sequence[Split], every: bool
) -> None:
    output.say(label, "bold")
    output.table(("", ""), [*_facts(checkpoint, census), *_parallel(checkpoint, splits)])
    total = census.total.bytes
    dtypes = [(name, f"{t.count:,}", format_bytes(t.bytes), _part(t.bytes, total)) for name, t in census.dtypes.items()]
    output.say("")
    output.table(("dtype", "tensors", "bytes", "share"), dtypes[:ROWS])
    roles = [
        (
            r.replace("_", " "),
            f,
            f"{t.count:,}",
            format_count(t.parameters),
            format_bytes(t.bytes),
            _part(t.bytes, total),
        )
        for (r, f), t in census.roles.items()
    ]
    output.say("")
    output.table(("role", "stored as", "modules", "parameters", "bytes", "share"), roles[:ROWS])
    output.say("")
    _classes(output, census, every)
    output.say("")
    largest = [(ref.name, ref.dtype, _shape(ref.shape), format_bytes(ref.size)) for ref in census.largest[:LARGEST]]
    output.table(("largest tensors", "dtype", "shape", "bytes"), largest)


def _facts(checkpoint: Checkpoint, census: Census) -> Iterator[tuple[str, str]]:
    total = census.total
    bits = census.bits_per_parameter
    shards = sorted(census.shards.values())
    quantized = census.quantized_parameters
    yield "parameters", f"{total.parameters:,}, {_part(quantized, total.parameters)} of them quantized"
    yield (
        "tensors",
        f"{total.count:,} in {format_bytes(total.bytes)}"
        + ("" if bits is None else f", {bits:.3f} bits per parameter"),
    )
    if shards:
        sizes = (
            f"{format_bytes(shards[0])} to {format_bytes(shards[-1])}" if len(shards) > 1 else format_bytes(shards[0])
        )
        yield "shards", f"{len(shards):,} of {sizes}; headers {format_bytes(census.header_bytes)}"
    side = checkpoint.side_files
    yield "other files", f"{len(side):,} in {format_bytes(sum(side.values()))}"
    architectures = checkpoint.config.get("architectures")
    if isinstance(architectures, list) and architectures:
        yield "architecture", ", ".join(str(name)[:100] for name in architectures[:3])
    if not checkpoint.declarations:
        yield "declares", "no quantization"
    for item in checkpoint.declarations:
        yield "declares", _declared(item)
    for name, flaw in checkpoint.document_flaws.items():
        yield "unreadable", f"{name}: {flaw}"


def _declared(item: QuantConfig) -> str:
    parts = [f"{item.format or 'an unknown format'} in {item.dialect}" + (f" ({item.algo})" if item.algo else "")]
    parts += [f"blocks of {item.group_size}"] if item.group_size else []
    parts += [f"activations {item.activations}"] if item.activations else []
    parts += [f"KV cache {item.kv_cache}"] if item.kv_cache else []
    parts.append(f"{len(item.ignore):,} excluded" if item.ignore else "nothing excluded")
    parts += [f"{len(item.flaws)} flaws" if len(item.flaws) > 1 else item.flaws[0]] if item.flaws else []
    return f"{', '.join(parts)} — {item.origin}"


def _declaration(item: QuantConfig) -> dict[str, Any]:
    return {
        "origin": item.origin,
        "dialect": item.dialect,
        "format": item.format,
        "algo": item.algo,
        "group_size": item.group_size,
        "activations": item.activations,
        "kv_cache": item.kv_cache,
        "ignore": list(item.ignore),
        "flaws": list(item.flaws),
    }


def _parallel(checkpoint: Checkpoint, splits: Sequence[Split]) -> Iterator[tuple[str, str]]:
    """The sizes every engine can split the model into, and why the first refused one is refused."""
    from publisher.checkpoint.parallel import LOADERS

    if not checkpoint.modules:
        return
    fit = [split for split in splits if all(split.works(engine) for engine in LOADERS)]
    if fit:
        each = ", ".join(f"{split.size} ({format_bytes(split.bytes_per_gpu)})" for split in fit)
        yield "GPUs", f"weights split over {each} each"
    for split in splits:
        refusing = [engine for engine in LOADERS if not split.works(engine)]
        if refusing:
            limit = split.refused(refusing[0])[0]
            who = "every engine" if len(refusing) == len(LOADERS) else ", ".join(refusing)
            yield "", f"not over {split.size}, {who}: {limit.subject}: {limit.reason}"
            return


def _split_json(split: Split) -> dict[str, Any]:
    from publisher.checkpoint.parallel import LOADERS

    return {
        "size": split.size,
        "bytes_per_gpu": split.bytes_per_gpu,
        "engines": [engine for engine in LOADERS if split.works(engine)],
        "limits": [
            {"subject": limit.subject, "reason": limit.reason, "engines": list(limit.engines), "refuses": limit.refuses}
            for limit in split.limits
        ],
    }


def _classes(output: Output, census: Census, every: bool) -> None:
    """Classes of modules, the ones with the most bytes first; of a screen only those with a matrix."""
    listed = [item for item in census.classes if every or item.matrix]
    listed.sort(key=lambda item: -item.tally.bytes)
    shown = listed if every else listed[:CLASSES]
    output.table(("modules", "layers", "count", "stored as", "shape", "bytes"), map(_class, shown))
    rest = len(census.classes) - len(shown)
    if rest:
        output.say(f"… and {rest:,} more classes (--all)", "dim")


def _class(item: ClassCensus) -> Sequence[str]:
    from publisher.checkpoint.census import spans

    some = [form if len(item.forms) == 1 else f"{count:,} {form}" for form, count in item.forms.items()]
    forms = ", ".join(some[:4]) + (" …" if len(some) > 4 else "")
    layers = spans(sorted(layer for layer in item.cells if layer is not None))
    short = layers if len(layers) <= 24 else f"{layers[:22]} …"
    return item.pattern, short, f"{item.tally.count:,}", forms, _shape(item.shape), format_bytes(item.tally.bytes)


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) if shape else "scalar"


def _part(part: int, whole: int) -> str:
    return f"{part / whole:.1%}".replace("%", " %") if whole else "–"
