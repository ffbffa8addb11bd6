"""Where a checkpoint comes from: the digest of what it is made from, and what its manifest says of it."""

from __future__ import annotations

from publisher import __version__, jsonio
from publisher import manifest as manifests
from publisher.checkpoint.files import LocalFiles
from publisher.journal import RunDirectory
from publisher.pipeline.documents import digest_of, document, fingerprint
from publisher.pipeline.order import Prepared

FACTS = "facts.json"  # of the run directory: the card's values with their origins


def made_from(prepared: Prepared) -> str:
    """Digest of what the checkpoint is made from: the plan and the source's files."""
    source = prepared.source
    plan = prepared.plan.digest if prepared.plan else None
    place = prepared.order.checkpoint
    made = None if place is None else fingerprint(LocalFiles(place))
    origin = source.commit or fingerprint(source.files)
    recipe = prepared.order.recipe
    measured = [digest_of(recipe.statistics)] if recipe and recipe.statistics else []
    return jsonio.digest([plan, origin, made, *measured])


def provenance(prepared: Prepared, directory: RunDirectory) -> manifests.Provenance:
    """What the manifest says of source, recipe, engine, versions and report; the run directory knows the engine's."""
    """What the manifest says of source, recipe, engine, versions and report; the run directory knows the engine's."""
    made = (document(directory.quantize) or {}).get("versions") or {}
    versions = {name: version for name, version in made.items() if name != "publisher"}
    recipe, source = prepared.order.recipe, prepared.source
    report = jsonio.digest(jsonio.load_json(directory.report))
    return manifests.Provenance(
        source_repo=source.repo,
        source_commit=source.commit,
        recipe=recipe.name if recipe else None,
        recipe_digest=recipe.digest if recipe else None,
        engine=recipe.engine if recipe else None,
        engine_version=made.get(recipe.engine, made.get("publisher")) if recipe else None,
        versions={"fp4-publisher": __version__, **versions},
        report_digest=report,
        waivers=dict(prepared.order.waivers),
        gate=prepared.order.target.gate if prepared.order.target else None,
        facts=tuple((document(directory.path / FACTS) or {}).get("facts", ())),
    )
