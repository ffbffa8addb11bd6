"""Drafts on the Hub: a pull request towards the default branch, a staging branch towards any other.

A draft belongs to one content and one starting point, and both stand where a later push finds them: the title and the
root digest in a pull request's description, the name and the marks of the commits of a staging branch. Only what the
same user opened is taken up again: nobody else's pull request can make itself part of a push. Landing is one step, a
merge or one commit that names contents already stored, and is never repeated without looking.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

from huggingface_hub import CommitOperationCopy, CommitOperationDelete, HfApi

from publisher.hub import permission
from publisher.hub.client import AGAIN, HubClient
from publisher.hub.target import MAIN, Commit, Draft, MovedError, Publication, TransientHubError

LOOKED_AT = 500  # pull requests of one user
PENDING = ("draft", "open")


class Place(Protocol):
    """What is asked of the revision that a draft lands on."""

    revision: str

    def at(self, revision: str) -> Place:
        """Another revision."""

    def head(self) -> str | None:
        """Its commit."""

    def history(self, since: str | None) -> list[Commit]:
        """Its commits."""

    def objects(self) -> dict[str, str]:
        """The object id of every file."""

    def branches(self) -> dict[str, str]:
        """Every branch."""

    def create_branch(self, name: str, commit: str | None) -> None:
        """A new branch."""


class Proposals:
    """The drafts towards one revision of one repository."""

    def __init__(self, hub: HubClient, place: Place) -> None:
        self._hub, self._place = hub, place

    def find(self, publication: Publication) -> Draft | None:
        """Our pending draft of these files that starts where the revision is now; nothing is changed."""
        if self._place.revision != MAIN:
            return self._find_staging(publication)
        head = self._place.head()
        for details in self._ours(publication):
            if f"base {head}" in _description(details):
                return _draft(details, head, reused=True)
        return None

    def open(self, publication: Publication) -> Draft:
        """A new draft; older ones of the same files, which start elsewhere, are closed."""
        if self._place.revision != MAIN:
            return self._open_staging(publication)
        for details in self._ours(publication):
            self._close(details.num, f"{MAIN} has moved since; a new pull request starts from where it is.")
        head = self._place.head()
        description = (
            f"Prepared by publisher: every file is compared with its manifest before this is merged.\n\n"
            f"{publication.mark}\nbase {head}"
        )
        with self._hub.errors("open a pull request"):  # whoever repeats this looks for it first
            details = self._hub.api.create_pull_request(
                self._hub.repo, title=_title(publication), description=description
            )
            return _draft(details, head, reused=False)

    def close(self, draft: Draft, *, reason: str) -> None:
        """Close a pull request that was not merged, or remove a staging branch."""
        if draft.number is not None:
            if self._details(draft.number).status in PENDING:
                self._close(draft.number, reason)
            return
        if draft.revision in self._place.branches():
            self._hub.call(
                f"remove the branch {draft.revision}",
                lambda api: api.delete_branch(self._hub.repo, branch=draft.revision),
            )

    def land(self, draft: Draft, *, message: str) -> None:
        """Merge, or make the branch what the staging branch is; done at most once.

        Raises:
            MovedError: it does not fit what the revision has become.
        """
        if draft.number is None:
            self._land_branch(draft, message)
            return
        details = self._details(draft.number)
        if details.status == "merged":
            return
        if details.status not in PENDING:
            raise MovedError(f"{draft.url} was closed by somebody.", hint="Run the same command again.")
        if details.conflicting_files:
            raise MovedError(f"{draft.url} conflicts with what {MAIN} has become.", hint=AGAIN)
        if details.status == "draft":
            self._hub.call(
                "open the pull request for merging",
                lambda api: api.change_discussion_status(self._hub.repo, draft.number or 0, "open"),
            )
        with self._hub.errors("merge the pull request"):
            self._hub.api.merge_pull_request(self._hub.repo, draft.number, comment=message)

    # --- pull requests ---------------------------------------------------------------------------------------------

    def _ours(self, publication: Publication) -> Iterator[Any]:
        """Details of our pending pull requests that carry these files."""
        me = permission.whoami(self._hub)["name"]

        def read(api: HfApi) -> list[Any]:
            listed = api.get_repo_discussions(
                self._hub.repo, author=me, discussion_type="pull_request", discussion_status="all"
            )
            return list(itertools.islice(listed, LOOKED_AT))

        title = _title(publication)
        for item in self._hub.call("list its pull requests", read):
            if item.is_pull_request and item.author == me and item.title == title and item.status in PENDING:
                details = self._details(item.num)
                if publication.mark in _description(details):
                    yield details

    def _details(self, number: int) -> Any:
        return self._hub.call(
            f"show pull request {number}", lambda api: api.get_discussion_details(self._hub.repo, number)
        )

    def _close(self, number: int, reason: str) -> None:
        self._hub.call(
            f"close pull request {number}",
            lambda api: api.change_discussion_status(self._hub.repo, number, "closed", comment=reason),
        )

    # --- staging branches ------------------------------------------------------------------------------------------

    def _base(self) -> str | None:
        branches = self._place.branches()
        return branches.get(self._place.revision) or branches.get(MAIN)

    def _find_staging(self, publication: Publication) -> Draft | None:
        name, base = _staging(publication), self._base()
        if name not in self._place.branches():
            return None
        later = self._place.at(name).history(base)
        if not all(publication.mark in commit.message for commit in later):
            return None  # it starts elsewhere
        return Draft(revision=name, url=f"{self._hub.url}/tree/{name}", base=base, reused=True)

    def _open_staging(self, publication: Publication) -> Draft:
        name, base = _staging(publication), self._base()
        draft = Draft(revision=name, url=f"{self._hub.url}/tree/{name}", base=base)
        self.close(draft, reason="it starts elsewhere")
        self._place.create_branch(name, base)
        return draft

    def _land_branch(self, draft: Draft, message: str) -> None:
        branches = self._place.branches()
        there, proven = branches.get(self._place.revision), branches.get(draft.revision)
        if proven is None:
            raise MovedError(f"{draft.url} is gone.", hint="Run the same command again.")
        if there is None:
            self._place.create_branch(self._place.revision, proven)
            return
        wanted, found = self._place.at(proven).objects(), self._place.objects()
        copies = [
            CommitOperationCopy(src_path_in_repo=path, path_in_repo=path, src_revision=proven)
            for path, identity in wanted.items()
            if found.get(path) != identity
        ]
        stale = [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in found if path not in wanted]
        if copies or stale:
            with self._hub.errors(f"commit to {self._place.revision}"):
                self._hub.api.create_commit(
                    self._hub.repo,
                    [*copies, *stale],
                    commit_message=message,
                    parent_commit=draft.base,
                    revision=self._place.revision,
                )


def _title(publication: Publication) -> str:
    return f"Publish {publication.key}"


def _staging(publication: Publication) -> str:
    return f"publisher-staging-{publication.key}"


def _description(details: Any) -> str:
    """What was written when a pull request was opened."""
    first = next(iter(details.events), None)
    return str(getattr(first, "content", ""))


def _draft(details: Any, base: str | None, *, reused: bool) -> Draft:
    reference = details.git_reference
    if not reference:
        raise TransientHubError(f"{details.url} is no pull request.", hint=AGAIN)
    return Draft(revision=reference, url=details.url, base=base, number=details.num, reused=reused)
