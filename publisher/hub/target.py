"""What a push needs of the place it publishes to.

A target stores the files of one repository and its two settings, visibility and gate. Its methods do one thing each
and may be repeated; none of them decides an order, which is `push`'s. What a target reports about stored files is
read back, never remembered from what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from publisher.errors import HubError, PublisherError
from publisher.manifest import Manifest

Gate = Literal["auto", "manual", "off"]
GATES: tuple[Gate, ...] = ("auto", "manual", "off")
Uploaded = Callable[[str, int], None]
MAX_DOCUMENT = 64 * 1024 * 1024
HUBS_OWN = frozenset({".gitattributes"})  # written by the Hub; never ours to send, list or delete

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


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
class Publication:
    """What shall be published and how.

    Args:
        folder: the finished checkpoint with its card and `publish.json`.
        manifest: what `publish.json` says.
        gate: who approves downloads: nobody (`off`), the Hub (`auto`), a person (`manual`).
        private: keep the repository private at the end.
    """

    folder: Path
    manifest: Manifest
    gate: Gate = "manual"
    private: bool = False

    @property
    def settings(self) -> Settings:
        """The settings the push must end with."""
        return Settings(private=self.private, gate=self.gate)


class Target(Protocol):
    """One repository somewhere; every method may raise `AccessError` or `HubError`."""

    kind: str
    repo: str

    @property
    def url(self) -> str:
        """Where a person finds the repository."""

    def require_access(self) -> None:
        """Refuse a login that may not write here, before there is anything to publish; nothing is changed.

        Raises:
            AccessError: no token, or no permission.
            PublisherError: something else is in the way.
        """

    def preflight(self, publication: Publication) -> list[PublisherError]:
        """Everything that would stop a push, found without changing anything."""

    def settings(self) -> Settings | None:
        """The settings read now; None when there is no such repository."""

    def create_private(self) -> None:
        """Create the repository, private from its first moment; an existing one stays as it is."""

    def hide(self) -> None:
        """Make an existing repository private in one call; its gate stays as it is."""

    def tree(self) -> dict[str, StoredFile]:
        """Every stored file by its path."""

    def read_digests(self, paths: Iterable[str]) -> dict[str, str]:
        """sha256 (hex) of stored files, from their stored bytes; a missing file has none."""

    def read(self, path: str) -> bytes:
        """The bytes of a small stored document, at most 64 MiB."""

    def upload(self, files: Mapping[str, Path], *, message: str, progress: Uploaded) -> None:
        """Store files under their repository paths, all in one commit where the target has commits.

        `progress` is called with a path and the bytes of it transferred so far, at the latest when it is complete.
        """

    def delete(self, paths: Iterable[str], *, message: str) -> None:
        """Remove stored files."""

    def release(self, settings: Settings) -> None:
        """Set gate and visibility together, in one call."""

    def commit(self) -> str | None:
        """The revision that is stored now; None where the target keeps no revisions."""


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
