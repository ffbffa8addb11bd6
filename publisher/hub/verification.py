"""Whether a published repository is what its publisher says: for anybody who can read it.

Compared are the stored files with the manifest, the files of terms with those of the source commit that the manifest
names, the gate with the one that was asked for, and the card's metadata with what licence and Hub ask. What could not
be looked at is told with the reason, never counted as right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher import licence, rules
from publisher.checkpoint.files import Files
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.source import Source, resolve
from publisher.errors import CheckpointError, PublisherError
from publisher.findings import ERROR, WARNING
from publisher.hub import comparison
from publisher.hub.target import Settings, Target
from publisher.manifest import Difference, Manifest
from publisher.subjects import Evidence, Meter, read_card

ELSEWHERE = ("LC01", "LC14")  # the comparisons here go further than these rules
LICENCE, GATE, CARD, TAG = "licence", "gate", "card", "tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One sentence about one check: licence, gate, card or tag."""

    check: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """The remark as a JSON object."""
        return {"check": self.check, "message": self.message}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The outcome.

    Args:
        manifest: what was compared with.
        settings: as read back; None where there is no repository.
        differences: between the stored files and the manifest.
        problems: what is wrong with licence, gate and card.
        warnings: what is worth a look.
        unchecked: what could not be looked at, and why.
        tag: the tag that was set when these files were released, where it points at them.
    """

    manifest: Manifest
    settings: Settings | None
    differences: tuple[Difference, ...] = ()
    problems: tuple[Remark, ...] = ()
    warnings: tuple[Remark, ...] = ()
    unchecked: tuple[Remark, ...] = ()
    tag: str | None = None

    @property
    def verified(self) -> bool:
        """Whether nothing differs."""
        return not self.differences and not self.problems and self.settings is not None

    @property
    def bytes(self) -> int:
        """Bytes of all files, the manifest's own among them."""
        return self.manifest.size + len(self.manifest.encoded())

    def to_json(self) -> dict[str, Any]:
        """The outcome as a JSON object."""
        settings = self.settings
        return {
            "verified": self.verified,
            "differences": [difference.to_json() for difference in self.differences],
            "problems": [remark.to_json() for remark in self.problems],
            "warnings": [remark.to_json() for remark in self.warnings],
            "not_checked": [remark.to_json() for remark in self.unchecked],
            "files": len(self.manifest.files) + 1,
            "bytes": self.bytes,
            "root_digest": self.manifest.root_digest,
            "tag": self.tag,
            "settings": {"visibility": settings.visibility, "gate": settings.gate} if settings else None,
        }


def verify(
    target: Target,
    published: Callable[[], Files],
    *,
    manifest: Manifest | None = None,
    source: str | None = None,
    resolve: Callable[[str], Source] = resolve,
) -> Verification:
    """Compare what a target stores with what it should be.

    Args:
        target: where it is published.
        published: opens the published files.
        manifest: what to compare with; None takes the one the target stores.
        source: what it was made from, a folder or `hf://org/name@commit`; None takes what the manifest names.
        resolve: opens a source.

    Raises:
        HubError: the target cannot be read, or stores no manifest.
        AccessError: the target may not be read.
        DocumentError, CheckpointError: its manifest is none.
    """
    settings = target.settings()
    manifest = manifest or comparison.read_manifest(target)
    differences = tuple(comparison.verify(target, manifest))
    if settings is None:
        return Verification(manifest=manifest, settings=None, differences=differences)
    files = published()
    original, unchecked = _source(manifest, source, resolve)
    problems = [*_gate(manifest, settings, files), *_licence(original, files)]
    gate_told = any(remark.check == GATE for remark in problems)
    try:
        findings = list(_findings(manifest, settings, files, original, target.repo))
    except CheckpointError as error:
        findings = []
        unchecked.append(Remark(check=CARD, message=f"The card was not judged: {error.message}"))
    told = [row for row in findings if not (gate_told and row[1].check == GATE)]
    tag, elsewhere, untold = _tag(target, manifest)
    return Verification(
        manifest=manifest,
        settings=settings,
        differences=differences,
        problems=(*problems, *(remark for severity, remark in told if severity is ERROR)),
        warnings=(*(remark for severity, remark in told if severity is WARNING), *elsewhere),
        unchecked=(*unchecked, *untold),
        tag=tag,
    )


def _tag(target: Target, manifest: Manifest) -> tuple[str | None, list[Remark], list[Remark]]:
    """The tag of these files where it points at them, what is worth a look, and what could not be looked at."""
    if not target.keeps_revisions:
        return None, [], []
    name = f"publisher-{manifest.root_digest[:12]}"
    try:
        tagged, head = target.tags().get(name), target.head()
    except PublisherError as error:
        return None, [], [Remark(check=TAG, message=f"The tag was not looked at: {error.message}")]
    if tagged is None or tagged == head:
        return (name if tagged else None), [], []
    text = f"The tag {name} points at {tagged[:12]}, {target.revision} is at {str(head)[:12]}."
    return None, [Remark(check=TAG, message=text)], []


def _source(
    manifest: Manifest, spec: str | None, resolve: Callable[[str], Source]
) -> tuple[Source | None, list[Remark]]:
    """The source, or why it is not at hand."""
    named = manifest.provenance
    if spec is None and named.source_repo and named.source_commit:
        spec = f"hf://{named.source_repo}@{named.source_commit}"
    try:
        if spec is None:
            raise CheckpointError("the manifest names no commit of the Hub; name the source with --source.")
        return resolve(spec), []
    except PublisherError as error:
        why = f"The files of terms were not compared with the source's: {error.message}"
        return None, [Remark(check=LICENCE, message=why)]


def _gate(manifest: Manifest, settings: Settings, files: Files) -> Iterator[Remark]:
    """The gate against the one that was asked for; older manifests do not say, their card's form does."""
    wanted = manifest.provenance.gate
    if wanted is not None and wanted != settings.gate:
        yield Remark(check=GATE, message=f"The gate is {settings.gate}, the manifest says {wanted}.")
    elif wanted is None and settings.gate == "off":
        forms = [key for key in read_card(files, Meter()).metadata if key.startswith("extra_gated_")]
        if forms:
            yield Remark(check=GATE, message=f"The gate is off, the card has its form ({forms[0]}).")


def _licence(source: Source | None, files: Files) -> Iterator[Remark]:
    if source is not None:
        for difference in licence.compare(source.files, files):
            yield Remark(check=LICENCE, message=f"{difference} ({source.label}).")


def _findings(
    manifest: Manifest, settings: Settings, files: Files, source: Source | None, repo: str
) -> Iterator[tuple[object, Remark]]:
    """What the publication rules say; findings whose waiver was published do not count."""
    known = rules.load_rules()
    asked = manifest.provenance
    evidence = Evidence(
        checkpoint=open_checkpoint(files),
        source=_documents(source),
        base_model=asked.source_repo,
        card=True,
        settings={"gated": False if settings.gate == "off" else settings.gate, "private": settings.private},
        repo=repo,
        source_gate="off" if settings.private else source.gate if source else None,  # what nobody sees needs no gate
    )
    waivers = {code: reason for code, reason in asked.waivers.items() if code in known and reason.strip()}
    report = rules.run(evidence, level="headers", select=("LC",), ignore=ELSEWHERE, waivers=waivers)
    for finding in report.findings:
        if finding.waived is None:
            check = GATE if finding.code in ("LC06", "LC24") else CARD
            yield finding.severity, Remark(check=check, message=f"{finding.code} {finding.slug}: {finding.message}")


def _documents(source: Source | None) -> Checkpoint | None:
    """The source without its weights: nothing here asks for their headers."""
    try:
        return open_checkpoint(Documents(source.files)) if source is not None else None
    except PublisherError:
        return None


class Documents:
    """Files without the shards among them."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._sizes = {path: size for path, size in files.sizes.items() if not path.endswith(".safetensors")}

    @property
    def label(self) -> str:
        """As the files are called."""
        return self._files.label

    @property
    def sizes(self) -> Mapping[str, int]:
        """Sizes of all but the shards."""
        return self._sizes

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes of a file."""
        return self._files.read(path, begin, end)

    def local(self, path: str) -> Path | None:
        """The file on this machine, where there is one."""
        return self._files.local(path)
