"""A folder as a publishing target: `<root>/<owner>/<name>/{tree/,settings.json,log.jsonl}`.

It keeps the promises of a Hub repository on a disk: files appear under their names complete or not at all, the
settings are one file replaced at once, and `log.jsonl` says what changed when, with the settings in force at that
moment. Files are copied, never linked, because a link would change with its source after the push proved it. A digest
is always that of the bytes on the disk; it is taken once per state of a file (inode, size, time of change). A public
repository changes in a second tree beside the first, `draft/`, which takes its place in one step. A folder knows no
commits: one push at a time holds its lock, which ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub import disk, site
from publisher.hub.target import (
    GATES,
    MAIN,
    MAX_DOCUMENT,
    Commit,
    Draft,
    MovedError,
    Publication,
    Settings,
    StoredFile,
    Uploaded,
    repo_problem,
)
from publisher.hub.trees import DRAFT, KEY, Trees
from publisher.manifest import hash_file, name_problem

STAGING = ".incoming"


class FolderTarget:
    """A repository in a folder.

    Args:
        root: the folder that holds the repositories; created when missing.
        repo: `owner/name`.
        clock: seconds since the epoch, for the log.

    Raises:
        PublisherError: `repo` is no repository name.
    """

    kind = "folder"
    keeps_revisions = False

    def __init__(self, root: Path, repo: str, *, clock: Callable[[], float] = time.time) -> None:
        problem = repo_problem(repo)
        if problem is not None:
            raise problem
        self.repo = repo
        self.revision = MAIN
        self.base = root.absolute() / repo
        self._trees = Trees(self.base)
        self.files = self._trees.published
        self._clock = clock
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}

    @property
    def url(self) -> str:
        """The `file://` address of the files."""
        return self.files.as_uri()

    @property
    def passes(self) -> int:
        """A file is copied while it is read."""
        return 1

    def at(self, revision: str) -> FolderTarget:
        """The published tree, or the draft of the next one.

        Raises:
            PublisherError: a folder has no other revisions.
        """
        if revision not in (MAIN, DRAFT):
            raise PublisherError(f"{self.base} keeps no revisions, so there is no {revision!r}.")
        other = FolderTarget(self.base.parent.parent, self.repo, clock=self._clock)
        other.revision, other._digests = revision, self._digests
        other.files = self._trees.published if revision == MAIN else self._trees.draft
        return other

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the repository's lock, `.<name>.lock` beside it.

        Raises:
            HubError: another push holds it.
        """
        with disk.locked(self.base.parent / f".{self.base.name}.lock", self.base):
            self._trees.sweep()
            yield

    def private_room(self) -> int | None:
        """A disk makes no difference between private and public."""
        return None

    def require_access(self) -> None:
        """Refuse a foreign folder under that name."""
        if (problem := site.foreign(self.base, self.files)) is not None:
            raise problem

    def preflight(self, publication: Publication) -> list[PublisherError]:
        """No room, no permission, a foreign folder under that name, or a checkpoint inside the target."""
        present = {path: item.size for path, item in self.tree().items()}
        found = (
            site.foreign(self.base, self.files),
            site.nested(self.base, publication.folder),
            site.cramped(self.base, present, publication),
        )
        return [problem for problem in found if problem is not None]

    def settings(self) -> Settings | None:
        """What `settings.json` says; None when there is no repository."""
        path = self.base / "settings.json"
        if not path.exists():
            return None
        found = jsonio.load_json(path)
        if not isinstance(found, dict) or found.get("gate") not in GATES:
            raise HubError(f"{path} holds no settings.", hint="Remove the folder or restore the file.")
        return Settings(private=found.get("visibility") != "public", gate=found["gate"])

    def create_private(self) -> None:
        """Create the folder with private settings; an existing repository stays as it is."""
        if self.settings() is None:
            with disk.told(self.base):
                self.files.mkdir(parents=True, exist_ok=True)
                self._set(Settings(private=True, gate="off"), "create")

    def hide(self) -> None:
        """Make the repository private."""
        settings = self.settings()
        if settings is None:
            raise AccessError(f"{self.base} holds no repository to hide.", hint="Run the push again.")
        with disk.told(self.base):
            self._set(Settings(private=True, gate=settings.gate), "settings")

    def tree(self) -> dict[str, StoredFile]:
        """Every file below `tree/`, digests left to `read_digests`."""
        with disk.told(self.files):
            return {
                path.relative_to(self.files).as_posix(): StoredFile(size=path.lstat().st_size)
                for path in disk.files(self.files)
                if path != self.files / KEY
            }

    def read_digests(self, paths: Iterable[str]) -> dict[str, str]:
        """sha256 of the bytes on the disk; of a link, which a push never makes, that of its text."""
        return {path: self._digest(path) for path in paths if disk.is_entry(self._path(path))}

    def read(self, path: str) -> bytes:
        """The bytes of a stored document."""
        if self._path(path).is_symlink():
            raise HubError(f"{self._path(path)} is a link.", hint="Run the push again; it replaces it by a file.")
        return jsonio.read_bytes(self._path(path), MAX_DOCUMENT)

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
        """Copy files, each one staged, flushed to the disk and renamed; then remove others."""
        staging = self.base / STAGING
        with disk.told(self.base):
            try:
                staging.mkdir(parents=True, exist_ok=True)
                for path, source in files.items():
                    self._store(path, source, staging, partial(progress, path))
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            if files:
                self._log("upload", revision=self.revision, message=message, files=sorted(files))
            self._remove(sorted(remove), message)

    def release(self, settings: Settings) -> None:
        """Replace the settings file."""
        with disk.told(self.base):
            self._set(settings, "settings")

    def head(self) -> str | None:
        """A folder keeps no commits."""
        return None

    def history(self, since: str | None) -> list[Commit]:
        """A folder keeps no commits."""
        return []

    # --- drafts ----------------------------------------------------------------------------------------------------

    def find_draft(self, publication: Publication) -> Draft | None:
        """The second tree that an interrupted push of the same files left; nothing is changed."""
        return self._draft(reused=True) if self._trees.key() == publication.manifest.root_digest else None

    def open_draft(self, publication: Publication) -> Draft:
        """A second tree with the files of the first, which share their bytes with it until they are replaced."""
        with disk.told(self._trees.draft):
            self._trees.begin(publication.manifest.root_digest)
            self._log("draft", message=f"next to {self.files.name}")
        return self._draft(reused=False)

    def close_draft(self, draft: Draft, *, reason: str) -> None:
        """Remove the second tree."""
        with disk.told(self.base):
            self._trees.give_up()

    def land(self, draft: Draft, *, message: str) -> None:
        """Swap the two trees in one step; where the file system cannot, hide the repository for the two steps."""
        if not self._trees.draft.is_dir():
            raise MovedError(f"{self._trees.draft} is gone.", hint="Run the same command again.")
        with disk.told(self.base):
            if self._trees.swap():
                self._log("land", message=message)
            else:
                self._land_hidden(message)
            self._trees.retire()

    def branches(self) -> dict[str, str]:
        """A folder keeps no branches."""
        return {}

    def create_branch(self, name: str, commit: str | None) -> None:
        """A folder keeps no branches."""
        raise PublisherError(f"{self.base} keeps no branches.", hint="Leave out --revision.")

    def tags(self) -> dict[str, str]:
        """A folder keeps no tags."""
        return {}

    def set_tag(self, name: str, commit: str, *, message: str, move: bool) -> None:
        """A folder keeps no tags."""
        raise PublisherError(f"{self.base} keeps no tags.", hint="Leave out --tag.")

    # --- details ---------------------------------------------------------------------------------------------------

    def _draft(self, *, reused: bool) -> Draft:
        return Draft(revision=DRAFT, url=self._trees.draft.as_uri(), reused=reused)

    def _land_hidden(self, message: str) -> None:
        settings = self.settings()
        self.hide()
        self._trees.replace()
        self._log("land", message=message)
        if settings is not None:
            self._set(settings, "settings")

    def _remove(self, names: list[str], message: str) -> None:
        for name in names:
            path = self._path(name)
            path.unlink(missing_ok=True)
            for parent in list(path.relative_to(self.files).parents)[:-1]:
                with contextlib.suppress(OSError):  # not empty
                    (self.files / parent).rmdir()
        if names:
            self._log("delete", revision=self.revision, message=message, files=names)

    def _path(self, name: str) -> Path:
        problem = name_problem(name) if name not in ("publish.json", ".gitattributes") else None
        if problem is not None:
            raise HubError(f"{name[:200]!r} {problem}.", hint="Rename the file.")
        return self.files / name

    def _store(self, name: str, source: Path, staging: Path, advance: Callable[[int], None]) -> None:
        final = self._path(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=staging)
        with os.fdopen(descriptor, "wb", buffering=0) as out:
            sent = disk.copy(source, out.fileno(), advance)
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
            if hasattr(os, "posix_fadvise"):  # so that reading back reads the disk, not the cache
                os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        stored = hash_file(Path(temporary))[1]
        if stored != sent:
            raise HubError(
                f"{final} came back from the disk with sha256 {stored}, {sent} was written.",
                hint="Check the disk, then run the same command again.",
            )
        os.replace(temporary, final)
        self._digests[name] = (disk.state(final), stored)

    def _digest(self, name: str) -> str:
        path = self._path(name)
        if path.is_symlink():
            return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
        known = self._digests.get(name)
        if known is None or known[0] != disk.state(path):
            state = disk.state(path)
            known = self._digests[name] = (state, hash_file(path)[1])
        return known[1]

    def _set(self, settings: Settings, action: str) -> None:
        document = {"visibility": settings.visibility, "gate": settings.gate}
        jsonio.write_atomic(self.base / "settings.json", jsonio.dump_json(document))
        self._log(action)

    def _log(self, action: str, **more: Any) -> None:
        settings = self.settings()
        state = {"visibility": settings.visibility, "gate": settings.gate} if settings else {}
        line = json.dumps({"time": self._clock(), "action": action, **state, **more}, ensure_ascii=False) + "\n"
        with (self.base / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)
