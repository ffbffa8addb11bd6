"""Everything that would stop a push, looked for before its first byte is sent, all of it told at once.

The folder against its manifest, the Hub's limits on files, branch and tag names, options that contradict each other,
secrets, what the caller wants checked (report, licence), and last what the target itself says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from publisher import jsonio
from publisher.checkpoint.files import LocalFiles
from publisher.errors import AccessError, CheckpointError, HubError, PublisherError
from publisher.hub.comparison import CARD, everything, local_problems, verify
from publisher.hub.target import DERIVED, MAIN, Manner, Publication, Target, ref_problem
from publisher.subjects import Meter, read_card


def problems(target: Target, publication: Publication) -> list[PublisherError]:
    """Every reason not to begin."""
    found = [
        *local_problems(publication),
        *contradictions(target, publication, private=publication.private),
        *(_limits(publication) if target.kind == "hf" else ()),
        *_card(publication),
    ]
    for check in publication.checks:
        found += check()
    reachable = target.preflight(publication)
    found += reachable
    if target.keeps_revisions and not any(isinstance(item, AccessError | HubError) for item in reachable):
        found += _named(target, publication)
    return found


def require(target: Target, publication: Publication) -> None:
    """Refuse, with every reason, as the gravest kind of error among them.

    Raises:
        AccessError, HubError, CheckpointError, PublisherError: one or more reasons.
    """
    found = problems(target, publication)
    if found:
        worst = max(found, key=_weight)
        raise type(worst)(
            " ".join(problem.message for problem in found),
            hint=" ".join(dict.fromkeys(problem.hint for problem in found if problem.hint)),
        )


def _weight(problem: PublisherError) -> int:
    order: tuple[type[PublisherError], ...] = (PublisherError, CheckpointError, HubError, AccessError)
    return max(index for index, kind in enumerate(order) if isinstance(problem, kind))


def contradictions(target: Target, manner: Manner, *, private: bool) -> Iterator[PublisherError]:
    """Options that make no sense together or at this target; known before anything is prepared."""
    named = manner.tag not in (None, DERIVED)
    asked = {"--revision": manner.revision != MAIN, "--create-pr": manner.propose, "--tag": named}
    if not target.keeps_revisions:
        for option, given in asked.items():
            if given:
                yield PublisherError(f"{option} needs a Hub: a folder keeps no revisions.", hint=f"Leave out {option}.")
        return
    if manner.propose and manner.revision != MAIN:
        yield PublisherError(
            f"A pull request goes to {MAIN}, not to {manner.revision}.",
            hint="Give either --create-pr or --revision.",
        )
    if manner.propose and named:
        yield PublisherError(
            "A pull request that is not merged has no commit to tag.", hint="Give --tag when it is merged."
        )
    if manner.propose and private:
        yield PublisherError(
            "--create-pr changes nothing that users see, --private hides it.", hint="Give one of the two."
        )
    for what, name in (("branch", manner.revision), ("tag", manner.tag if named else None)):
        problem = ref_problem(name, what) if name is not None else None
        if problem is not None:
            yield problem


def _limits(publication: Publication) -> Iterator[PublisherError]:
    table = jsonio.data("hub/limits.json")
    entries = everything(publication.manifest)
    for entry in entries.values():
        if entry.size > table["file_hard"]:
            yield CheckpointError(
                f"{entry.path} has {entry.size:,} bytes, the Hub takes {table['file_hard']:,} a file.",
                hint="Split it into smaller shards.",
            )
    if len(entries) > table["repository_files"]:
        yield CheckpointError(
            f"{len(entries):,} files are more than the {table['repository_files']:,} of a repository on the Hub.",
            hint="Use larger shards.",
        )
    folders = Counter(path.rpartition("/")[0] for path in entries)
    for folder, count in folders.items():
        if count > table["folder_files"]:
            yield CheckpointError(
                f"The folder {folder or '(top)'} has {count:,} files, the Hub takes {table['folder_files']:,}.",
                hint="Use larger shards, or several folders.",
            )


def _card(publication: Publication) -> Iterator[PublisherError]:
    """A card whose metadata nobody could read, told without asking the Hub."""
    folder = publication.folder
    if not (folder / CARD).is_file():
        return  # which is told already
    size, largest = (folder / CARD).stat().st_size, jsonio.data("hub/limits.json")["card"]
    if size > largest:
        yield PublisherError(
            f"{folder / CARD} has {size:,} bytes; above {largest:,} the Hub stores it apart and reads no metadata.",
            hint="Move what makes it long into files of its own.",
        )
        return
    flaw = read_card(LocalFiles(folder), Meter()).flaw
    if flaw is not None:
        yield PublisherError(f"{folder}: {flaw}", hint="Run `publisher card`, or correct its front matter.")


def _named(target: Target, publication: Publication) -> Iterator[PublisherError]:
    """Branch and tag names that mean something else there already."""
    there = target.settings() is not None
    if publication.propose and not there:
        yield PublisherError(
            f"{target.url} does not exist, so there is nothing to propose a change to.", hint="Leave out --create-pr."
        )
    if not there:
        return
    tags = target.tags()
    if publication.revision in tags:
        yield PublisherError(f"{publication.revision} is a tag of {target.repo}.", hint="Name a branch.")
    name = publication.tag
    if name and name in tags and not _points_at_this(target, tags[name], publication):
        yield PublisherError(
            f"The tag {name} of {target.repo} points at commit {tags[name][:12]}, which holds other files.",
            hint="Name another tag, or remove that one first.",
        )


def _points_at_this(target: Target, commit: str, publication: Publication) -> bool:
    return not verify(target.at(commit), publication.manifest)
