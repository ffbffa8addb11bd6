"""`publisher convert`: NVFP4 in the other layout, or pruned FP4 weights stored sparsely and back again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from publisher.cli import parameters
from publisher.cli.options import ignore_option, parse_waivers
from publisher.cli.output import Display, Output, format_option, print_report
from publisher.units import format_bytes

Progress = Callable[[int, int], None]


@click.command(
    "convert",
    epilog="Examples: publisher convert ./checkpoint --layout compressed-tensors --out ./converted   "
    "publisher convert ./pruned --to sparse --out ./sparse",
)
@parameters(
    click.argument("path", type=click.Path(path_type=Path)),
    click.option("--layout", type=click.Choice(("modelopt", "compressed-tensors")), help="The layout to write."),
    click.option("--to", "storage", type=click.Choice(("sparse", "dense")), help="How pruned weights are stored."),
    click.option("--modules", multiple=True, help="With --to sparse: a glob over the pruned modules."),
    click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder."),
    click.option("--source", help="What it was quantized from: a folder or hf://org/name[@revision]."),
    ignore_option,
    format_option,
)
def command(
    path: Path,
    layout: str | None,
    storage: str | None,
    modules: tuple[str, ...],
    out: Path,
    source: str | None,
    waivers: tuple[str, ...],
    form: str,
) -> None:
    """Write the checkpoint in the folder PATH in another layout, or its pruned FP4 weights in another storage.

    With --layout, NVFP4 codes and block scales are copied byte for byte, global scales inverted, declarations made
    anew. With --to sparse, weights pruned 4 of 8 in pairs keep two pairs of four and say where they were, as CUTLASS
    orders it; no serving engine loads that today, and --to dense gives back every byte. A dense result is validated,
    and the command ends with 1 when there are errors. A card is not carried to another layout: write a new one.
    """
    if (layout is None) is (storage is None):
        raise click.UsageError("Give either --layout or --to.")
    if modules and storage != "sparse":
        raise click.UsageError("--modules goes with --to sparse.")
    kept, output = parse_waivers(waivers), Output(form)
    with Display(output) as display:
        from publisher.journal import Event

        def progress(done: int, total: int) -> None:
            display(Event(stage="convert", kind="progress", payload={"done": done, "total": total, "unit": "bytes"}))

        if layout is not None:
            folder, said = _relaid(path, layout, out, progress)
        else:
            folder, said = _restored(path, storage == "sparse", modules, out, progress)
    output.say(str(said.pop("message")))
    if storage == "sparse":
        output.data(said)
        return
    _validated(output, folder, source, kept, said)


def _relaid(path: Path, layout: str, out: Path, progress: Progress) -> tuple[Path, dict[str, object]]:
    from publisher.checkpoint.open import open_checkpoint
    from publisher.repair import layouts

    made = layouts.conversion(open_checkpoint(path), layout)
    folder = layouts.write(made, out, progress=progress)
    return folder, {
        "written": str(folder),
        "layout": layout,
        "renamed": len(made.moves),
        "inverted": len(made.inverted),
        "message": f"Written: {folder}, {len(made.moves):,} tensors renamed, {len(made.inverted):,} scales inverted.",
    }


def _restored(
    path: Path, to_sparse: bool, modules: tuple[str, ...], out: Path, progress: Progress
) -> tuple[Path, dict[str, object]]:
    from publisher.checkpoint.open import open_checkpoint
    from publisher.repair import sparse, storage

    checkpoint = open_checkpoint(path)
    made = sparse.to_sparse(checkpoint, modules) if to_sparse else sparse.to_dense(checkpoint)
    folder = storage.write(made, out, progress=progress)
    before, after = checkpoint.tensor_bytes, sum(spec.size for shard in made.layout for spec in shard.specs)
    return folder, {
        "written": str(folder),
        "to": made.to,
        "weights": len(made.pairs),
        "bytes_before": before,
        "bytes_after": after,
        "message": f"Written: {folder}, {len(made.pairs):,} weights stored {made.to}ly, {format_bytes(before)} → "
        f"{format_bytes(after)}." + (f" {sparse.SAID}" if to_sparse else " Every shard is what it was."),
    }


def _validated(
    output: Output, folder: Path, source: str | None, waivers: dict[str, str], said: dict[str, object]
) -> None:
    """Run the rules over what was written and end with their verdict."""
    from publisher import rules
    from publisher.checkpoint.open import open_checkpoint
    from publisher.checkpoint.source import resolve
    from publisher.subjects import Evidence

    original = resolve(source) if source else None
    evidence = Evidence(
        checkpoint=open_checkpoint(folder),
        source=open_checkpoint(original.files) if original else None,
        base_model=original.repo if original else None,
    )
    report = rules.run(evidence, level="full", ignore=("LC",), waivers=waivers)
    output.data({**said, "report": report.to_json()})
    print_report(output, report)
    raise click.exceptions.Exit(0 if report.publishable else 1)
