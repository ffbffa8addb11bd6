"""`publisher verify`: a published repository against what its publisher says; anybody can run it."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.cli import parameters
from publisher.cli.output import Output, format_option
from publisher.errors import PublisherError
from publisher.units import format_bytes


@click.command(
    "verify",
    epilog="Examples: publisher verify hf://org/name   publisher verify hf://org/name@refs/pr/3   "
    "publisher verify folder:./out/org/name",
)
@parameters(
    click.argument("place"),
    click.option("--manifest", type=click.Path(path_type=Path), help="Compare with this publish.json instead."),
    click.option(
        "--source", metavar="SOURCE", help="Compare the licence with this folder or hf://org/name[@revision]."
    ),
    click.option("--bytes", "every_byte", is_flag=True, help="Download and hash large files too; needs room for one."),
    format_option,
)
def command(place: str, manifest: Path | None, source: str | None, every_byte: bool, form: str) -> None:
    """Compare PLACE, hf://org/name[@revision] or folder:ROOT/org/name, with what its manifest says.

    Every file, small ones by their bytes, large ones by the digest the Hub records for them; the licence files with
    those of the source commit; the gate with the one that was asked for; the card's metadata with what the licence
    and the Hub ask. Ends with 1 when anything differs. What could not be looked at, such as the licence of a source
    that is gone, is told and does not change the exit code.
    """
    from publisher import manifest as manifests
    from publisher import pipeline
    from publisher.hub.verification import verify

    output = Output(form)
    target = pipeline.target_at(place, every_byte=every_byte)
    given = manifests.read(manifest) if manifest is not None else None
    found = verify(target, lambda: pipeline.files_at(place), manifest=given, source=source)
    output.data({"place": target.url, **found.to_json()})
    if found.settings is None:
        raise PublisherError(
            f"There is no repository at {target.url}.", hint="Check the name; `publisher push` makes it."
        )
    for difference in found.differences:
        output.say(str(difference), "red")
    for problem in found.problems:
        output.say(f"{problem.check}: {problem.message}", "red")
    for remark in (*found.warnings, *found.unchecked):
        output.say(f"{remark.check}: {remark.message}", "yellow")
    if not found.verified:
        told = [
            f"differs from its manifest in {len(found.differences)} file(s)" if found.differences else "",
            f"has {len(found.problems)} problem(s) with licence, gate or card" if found.problems else "",
        ]
        output.say(f"{target.url} {' and '.join(filter(None, told))}", "bold red")
        raise click.exceptions.Exit(1)
    output.say(
        f"{target.url} equals its manifest: {len(found.manifest.files) + 1} files, "
        f"{format_bytes(found.bytes)}, {found.settings}; root digest {found.manifest.root_digest}"
        + (f", tag {found.tag}" if found.tag else ""),
        "bold green",
    )
