"""`publisher verify`: a published repository against the manifest it carries; anybody can run it."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.cli import parameters
from publisher.cli.output import Output, format_option
from publisher.errors import PublisherError
from publisher.units import format_bytes


@click.command("verify", epilog="Examples: publisher verify hf://org/name   publisher verify folder:./out/org/name")
@parameters(
    click.argument("place"),
    click.option("--manifest", type=click.Path(path_type=Path), help="Compare with this publish.json instead."),
    format_option,
)
def command(place: str, manifest: Path | None, form: str) -> None:
    """Compare PLACE, hf://org/name or folder:ROOT/org/name, with its manifest, byte for byte.

    Ends with 1 when anything differs.
    """
    from publisher import manifest as manifests
    from publisher import pipeline
    from publisher.hub import comparison

    output = Output(form)
    target = pipeline.target_at(place)
    if manifest is not None:
        found = manifests.read(manifest)
        differences = comparison.verify(target, found)
    else:
        found, differences = pipeline.verify(target)
    settings = target.settings()
    output.data(
        {
            "place": target.url,
            "verified": not differences,
            "differences": [difference.to_json() for difference in differences],
            "files": len(found.files) + 1,
            "bytes": found.size,
            "root_digest": found.root_digest,
            "settings": {"visibility": settings.visibility, "gate": settings.gate} if settings else None,
        }
    )
    if settings is None:
        raise PublisherError(
            f"There is no repository at {target.url}.", hint="Check the name; `publisher push` makes it."
        )
    for difference in differences:
        output.say(str(difference), "red")
    if differences:
        output.say(f"{target.url} differs from its manifest in {len(differences)} file(s)", "bold red")
        raise click.exceptions.Exit(1)
    output.say(
        f"{target.url} equals its manifest: {len(found.files) + 1} files, {format_bytes(found.size)}, {settings}; "
        f"root digest {found.root_digest}",
        "bold green",
    )
