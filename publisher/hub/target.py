"""What a push needs of the place it publishes to.

A target stores the files of one repository and its two settings, visibility and gate. Its methods do one thing each
and may be repeated; none of them decides an order, which is `push`'s. What a target reports about stored files is
read back, never remembered from what was sent. A target looks at one revision; `at` looks at another. A draft is a
revision beside the one that users see: it is filled and proven there, and landed in one step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from publisher.errors import AccessError, HubError, PublisherError
from publisher.manifest import Manifest

Gate = Literal["auto", "manual", "off"]
GATES: tuple[Gate, ...] = ("auto", "manual", "off")
STRICTNESS: Mapping[Gate, int] = {"off": 0, "auto": 1, "manual": 2}
Uploaded = Callable[[str, int], None]
Check = Callable[[], "list[PublisherError]"]
MAX_DOCUMENT = 64 * 1024 * 1024
HUBS_OWN = frozenset({".gitattributes"})  # written by the Hub; never ours to send, list or delete
MAIN = "main"
DERIVED = ""  # a tag named after the root digest

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]*")


class TransientHubError(HubError):
    """A failure that the same call, repeated, may not meet again: a dropped connection, a busy or broken server.

    Args:
        message: as for every error.
        hint: as for every error.
        wait: seconds the target asked to wait before the next attempt.
    """

    def __init__(self, message: str, *, hint: str = "", wait: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait = wait


class OvertakenError(TransientHubError):
    """A commit was refused because the revision is not at its parent; looking tells whether somebody moved it."""


class MovedError(HubError):
    """Somebody else changed what this push builds on."""


class QuotaError(AccessError):
    """The account has no room for these files in a private repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Who may see a repository and who may download from it."""

    private: bool
    gate: Gate

    @property
    def visibility(self) -> str:
        """`private` or `public`."""
        return "private" if self.private else "public"

    @property
    def open(self) -> bool:
        """True where anybody may download."""
        return not self.private and self.gate == "off"

    def __str__(self) -> str:
        return f"{self.visibility}, gate {self.gate}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file as the target lists it; the digest is None where only reading the file would tell."""

    size: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit of a revision's history: its id, title, description and who made it."""

    id: str
    title: str
    message: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A revision beside the one that users see.

    Args:
        revision: what `Target.at` takes.
        url: where a person finds it.
        base: the commit it starts from; None where the target keeps no commits.
        number: of the pull request; None where it is none.
        reused: it was opened by an earlier push of the same files.
    """

    revision: str
    url: str
    base: str | None = None
    number: int | None = None
    reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a push goes about it; nothing of it is in the published files.

    Args:
        tag: the name of the tag; `DERIVED` takes one from the root digest, None sets none.
        revision: the branch to publish to.
        propose: stop before a pull request is merged.
        public_staging: where private storage is too small, stage in a public repository behind a manual gate.
        agreed: what a person was shown of the place before they agreed (`changes.sight`); None where nobody was asked.
    """

    tag: str | None = DERIVED
    revision: str = MAIN
    propose: bool = False
    public_staging: bool = True
    agreed: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication(Manner):
    """What shall be published and how.

    Args:
        folder: the finished checkpoint with its card and `publish.json`.
        manifest: what `publish.json` says.
        gate: who approves downloads: nobody (`off`), the Hub (`auto`), a person (`manual`).
        private: keep the repository private at the end.
        checks: what else must be in order before anything is sent: report, licence, secrets; each tells problems.
    """

    folder: Path
    manifest: Manifest
    gate: Gate = "manual"
    private: bool = False
    checks: tuple[Check, ...] = ()

    @property
    def settings(self) -> Settings:
        """The settings the push must end with."""
        return Settings(private=self.private, gate=self.gate)

    @property
    def key(self) -> str:
        """What names this content in commits, pull requests and tags: twelve digits of the root digest."""
        return self.manifest.root_digest[:12]

    @property
    def tag_name(self) -> str | None:
        """The tag to set, None for none."""
        return f"publisher-{self.key}" if self.tag == DERIVED else self.tag

    @property
    def mark(self) -> str:
        """The line by which a commit or pull request is known to carry this content."""
        return f"publisher root digest {self.manifest.root_digest}"


class Target(Protocol):
    """One revision of one repository somewhere; every method may raise `AccessError` or `HubError`."""

    kind: str
    repo: str
    revision: str
    keeps_revisions: bool

    @property
    def url(self) -> str:
        """Where a person finds the repository."""

    @property
    def passes(self) -> int:
        """How often the transport reads a file that it sends."""

    def at(self, revision: str) -> Target:
        """The same repository at another revision: a draft's, a branch, a tag, a commit."""

    def hold(self) -> AbstractContextManager[None]:
        """Keep other pushes out where the target itself cannot tell two of them apart."""

    def require_access(self) -> None:
        """Refuse a login that may not write here, before there is anything to publish; nothing is changed.

        Raises:
            AccessError: no token, or no permission.
            PublisherError: something else is in the way.
        """

    def preflight(self, publication: Publication) -> list[PublisherError]:
        """Everything that would stop a push, found without changing anything."""

    def private_room(self) -> int | None:
        """Bytes that the account can keep in private repositories, as far as the target tells; None if unknown."""

    def settings(self) -> Settings | None:
        """The settings read now; None when there is no such repository."""

    def create_private(self) -> None:
        """Create the repository, private from its first moment; an existing one stays as it is."""

    def hide(self) -> None:
        """Make an existing repository private in one call; its gate stays as it is."""

    def release(self, settings: Settings) -> None:
        """Set gate and visibility together, in one call."""

    def tree(self) -> dict[str, StoredFile]:
        """Every stored file by its path."""

    def read_digests(self, paths: Iterable[str]) -> dict[str, str]:
        """sha256 (hex) of stored files, from their stored bytes; a missing file has none."""

    def read(self, path: str) -> bytes:
        """The bytes of a small stored document, at most 64 MiB."""

    def head(self) -> str | None:
        """The commit of this revision now; None where there is none, or the target keeps no commits."""

    def history(self, since: str | None) -> list[Commit]:
        """Commits of this revision after `since`, newest first, at most a hundred."""

    def commit(
        self,
        files: Mapping[str, Path],
        remove: Iterable[str] = (),
        *,
        message: str,
        mark: str,
        parent: str | None,
        progress: Uploaded,
    ) -> None:
        """Transfer files' contents, then name them and remove others, all in one commit on top of `parent`.

        `progress` is called with a path and the bytes of it transferred so far, at the latest when it is complete.

        Raises:
            OvertakenError: the revision is not at `parent`.
            QuotaError: there is no room.
        """

    def find_draft(self, publication: Publication) -> Draft | None:
        """The draft that an interrupted push of the same files left, if it still starts from this revision."""

    def open_draft(self, publication: Publication) -> Draft:
        """A new draft that starts from this revision."""

    def close_draft(self, draft: Draft, *, reason: str) -> None:
        """Give a draft up."""

    def land(self, draft: Draft, *, message: str) -> None:
        """Make a draft this revision's content, in one step; one that has landed stays so."""

    def branches(self) -> dict[str, str]:
        """The commit of every branch."""

    def create_branch(self, name: str, commit: str | None) -> None:
        """Create a branch at a commit; an existing one stays as it is."""

    def tags(self) -> dict[str, str]:
        """The commit of every tag."""

    def set_tag(self, name: str, commit: str, *, message: str, move: bool) -> None:
        """Tag a commit; `move` takes the tag from another commit."""


def repo_problem(repo: str) -> PublisherError | None:
    """Why a string cannot name a repository, by the Hub's rules, or None when it can."""
    if (
        _REPO.fullmatch(repo)
        and len(repo) <= 96
        and "--" not in repo
        and ".." not in repo
        and not any(part.endswith((".git", ".ipynb", "-", ".")) for part in repo.split("/"))
    ):
        return None
    return PublisherError(
        f"{repo[:120]!r} is no repository name.",
        hint="Write owner/name with letters, digits, '-', '_' and '.', 96 characters at most, no '--' or '..'.",
    )


def ref_problem(name: str, what: str) -> PublisherError | None:
    """Why a string cannot name a branch or a tag (`what`), or None when it can; after `git check-ref-format`."""
    parts = name.split("/")
    if (
        _REF.fullmatch(name)
        and len(name) <= 96
        and ".." not in name
        and not re.fullmatch(r"[0-9a-f]{7,40}", name)  # would be taken for a commit
        and parts[0] != "refs"
        and not any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in parts)
    ):
        return None
    return PublisherError(
        f"{name[:120]!r} cannot name a {what}.",
        hint="Use letters, digits, '-', '_', '.' and '/', nothing that looks like a commit and nothing below refs/.",
    )


def stricter(first: Gate, second: Gate) -> Gate:
    """The gate of the two that lets fewer people through."""
    return max(first, second, key=lambda gate: STRICTNESS[gate])
