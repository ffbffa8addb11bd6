"""Where private storage is too small: an empty repository, gated, made public, and filled through a pull request.

The order keeps the promises. The gate is set while the repository is private and its branch holds nothing; then one
call shows it with that gate; then everything is proven in a pull request, and the branch stays empty until the merge.
Only a repository whose whole history is this push's is shown: an older one may hold what nobody was meant to see.
"""

from __future__ import annotations

from publisher.hub.target import HUBS_OWN, MAIN, Publication, QuotaError, Settings, Target
from publisher.hub.work import Work
from publisher.units import format_bytes

GATED = Settings(private=True, gate="manual")
SHOWN = Settings(private=False, gate="manual")
LONG = 100  # a history of so many commits is not this push's


def too_large_for_private(target: Target, publication: Publication) -> bool:
    """Whether the target says that these files are more than the account may keep in private."""
    if publication.private or not publication.public_staging:
        return False
    room = target.private_room()
    return room is not None and publication.manifest.size > room


def stage_publicly(work: Work, reason: str, error: QuotaError | None = None) -> bool:
    """Empty, gate and show the repository, so that the push can go on through a pull request.

    Args:
        work: the push.
        reason: why, for the log.
        error: what the target refused, raised again where the repository must not be shown.

    Raises:
        QuotaError: it must not.
        HubError: the target failed.
    """
    why_not = _why_not(work)
    if why_not:
        message = error.message if error else reason
        raise QuotaError(
            f"{message} {why_not}",
            hint=error.hint if error else "Make room in the account, or leave out --no-public-staging.",
        )
    size = format_bytes(work.publication.manifest.size)
    work.tell(
        "warning",
        f"{reason} {work.target.repo} is prepared in public behind a manual gate: its branch stays empty until all "
        f"{size} are proven in a pull request.",
    )
    main = work.target.at(MAIN)
    work.place, work.head = main, main.head()
    work.attempt(lambda: _empty(work))
    work.set(GATED)
    work.set(SHOWN)
    return True


def _empty(work: Work) -> None:
    stale = [path for path in work.place.tree() if path not in HUBS_OWN]
    if stale:
        work.place.commit(
            {}, stale, message="Remove files until they are proven", mark=work.publication.mark, parent=work.head,
            progress=work.meter,
        )  # fmt: skip
        work.adopt()


def _why_not(work: Work) -> str:
    """Why the repository must not be shown before it is complete; empty when it may."""
    publication = work.publication
    if publication.private:
        return "It is to stay private, so it cannot be prepared in public."
    if not publication.public_staging:
        return "It could be prepared in public behind a manual gate; --no-public-staging forbids that."
    if not work.target.keeps_revisions:
        return "This target has no drafts that could be proven first."
    settings = work.target.settings()
    if settings is None:
        return "There is no repository yet."
    if not settings.private:
        return "It is public already."
    history = work.target.at(MAIN).history(None)
    ours = len(history) < LONG and all(publication.mark in commit.message for commit in history[:-1])
    if not ours or publication.revision != MAIN or publication.propose:
        return "It has a history of its own, which must not become public by this push."
    return ""
