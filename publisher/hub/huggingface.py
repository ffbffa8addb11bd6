"""A model repository on the Hugging Face Hub as a publishing target.

The real client does the talking, through `client`. Write permission is asked for by name, because the client's
`create_repo(exist_ok=True)` succeeds without it; a repository is created without the client's own loop, which a busy
Hub keeps going for ever. A commit always names its parent, so that two pushes cannot interleave unseen.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.hf_api import RepoFile

from publisher.errors import HubError, PublisherError
from publisher.hub import permission
from publisher.hub.client import AbsentError, HubClient
from publisher.hub.patience import Patience
from publisher.hub.proposals import Proposals
from publisher.hub.target import (
    MAIN,
    MAX_DOCUMENT,
    Commit,
    Draft,
    Gate,
    Publication,
    Settings,
    StoredFile,
    Uploaded,
    repo_problem,
)
from publisher.manifest import hash_file

Result = TypeVar("Result")
BATCH_FILES = 5  # transferred side by side
BATCH_BYTES = 16 * 1024**3
READ_LIMIT = 16 * 1024 * 1024
HISTORY = 100  # commits looked through for who moved a revision


class HuggingFaceTarget:
    """A model repository on a Hub.

    Args:
        repo: `owner/name`.
        endpoint: the Hub's address; by default as huggingface_hub reads it (`HF_ENDPOINT`).
        token: by default as huggingface_hub finds it (`HF_TOKEN`, the stored login).
        revision: the branch, tag, commit or `refs/pr/N` that is looked at.
        sleep: waits between attempts, in seconds.
        read_limit: files up to this many bytes are downloaded and hashed when digests are read; of larger ones the
            sha256 that the Hub records for its storage is taken. None downloads every file.

    Raises:
        PublisherError: `repo` is no repository name.
    """

    kind = "hf"
    keeps_revisions = True

    def __init__(
        self,
        repo: str,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        revision: str = MAIN,
        sleep: Callable[[float], None] = time.sleep,
        read_limit: int | None = READ_LIMIT,
    ) -> None:
        problem = repo_problem(repo)
        if problem is not None:
            raise problem
        self.repo, self.revision = repo, revision
        self._hub = HubClient(repo, endpoint, token, Patience(sleep=sleep))
        self._read_limit = read_limit
        self._digests: dict[tuple[str, str], str] = {}  # by path and the Hub's object id, of every revision
        self._objects: dict[str, str] = {}  # the object id of every file when the tree was last listed

    @property
    def url(self) -> str:
        """The repository's page, or the revision's."""
        return self._hub.url if self.revision == MAIN else f"{self._hub.url}/tree/{self.revision}"

    @property
    def passes(self) -> int:
        """Once over Xet; the older transport reads a file for its digest before it sends it."""
        return 2 if constants.HF_HUB_DISABLE_XET or find_spec("hf_xet") is None else 1

    def at(self, revision: str) -> HuggingFaceTarget:
        """The same repository at another revision; digests that were read stay known."""
        other = HuggingFaceTarget.__new__(HuggingFaceTarget)
        other.repo, other.revision = self.repo, revision
        other._hub, other._read_limit, other._digests, other._objects = self._hub, self._read_limit, self._digests, {}
        return other

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Nothing to hold: a commit that names its parent is refused when somebody else was faster."""
        return contextlib.nullcontext()

    def require_access(self) -> None:
        """Refuse no token, a read-only one, and a login that may neither write to the repository nor create it."""
        permission.require_write(self._hub, exists=self.settings)

    def preflight(self, publication: Publication) -> list[PublisherError]:
        """No token, no permission to write or create, metadata the Hub refuses."""
        return permission.problems(self._hub, publication, exists=self.settings)

    def private_room(self) -> int | None:
        """What the account's plan includes for private repositories, by the Hub's published table."""
        return permission.private_room(self._hub)

    # --- the repository --------------------------------------------------------------------------------------------

    def settings(self) -> Settings | None:
        """Visibility and gate as the Hub reports them now."""
        try:
            info = self._hub.call("read the settings", lambda api: api.model_info(self.repo))
        except AbsentError:
            return None
        gate: Gate = info.gated if info.gated in ("auto", "manual") else "off"
        return Settings(private=bool(info.private), gate=gate)

    def create_private(self) -> None:
        """Create the repository private; an existing one stays as it is."""
        owner, name = self.repo.split("/")
        who = permission.whoami(self._hub)
        body = {"name": name, "organization": None if owner == who["name"] else owner, "visibility": "private"}
        status, said = self._hub.post("create it", "/api/repos/create", body, expect=(409,))
        if status == 409 and self.settings() is None:
            raise self._hub.busy("create it", said)

    def hide(self) -> None:
        """One settings call: private."""
        self._hub.call("make it private", lambda api: api.update_repo_settings(self.repo, private=True))

    def release(self, settings: Settings) -> None:
        """One settings call: gate and visibility together."""
        gated: Any = False if settings.gate == "off" else settings.gate
        self._hub.call(
            "set gate and visibility",
            lambda api: api.update_repo_settings(self.repo, gated=gated, private=settings.private),
        )

    # --- what is stored --------------------------------------------------------------------------------------------

    def tree(self) -> dict[str, StoredFile]:
        """Every file of the revision; large ones with the digest the Hub records for them."""
        listed = self._hub.call(
            "list its files",
            lambda api: list(api.list_repo_tree(self.repo, recursive=True, revision=self.revision)),
        )
        files = [item for item in listed if isinstance(item, RepoFile)]
        self._objects = {f.path: f.blob_id for f in files}
        return {f.path: StoredFile(size=f.size, sha256=self._listed_digest(f)) for f in files}

    def objects(self) -> dict[str, str]:
        """The Hub's object id of every file."""
        self.tree()
        return dict(self._objects)

    def read_digests(self, paths: Iterable[str]) -> dict[str, str]:
        """sha256 of the stored bytes, downloaded once for every object id the Hub gives them."""
        found: dict[str, str] = {}
        for path in paths:
            identity = self._objects.get(path, "")
            digest = self._digests.get((path, identity))
            if digest is None:
                try:
                    digest = self._downloaded(path, lambda local: hash_file(local)[1])
                except AbsentError:
                    continue
                if identity:
                    self._digests[path, identity] = digest
            found[path] = digest
        return found

    def read(self, path: str) -> bytes:
        """Download a document."""

        def document(local: Path) -> bytes:
            size = local.stat().st_size
            if size > MAX_DOCUMENT:
                raise HubError(
                    f"{path} has {size:,} bytes, more than a document of {MAX_DOCUMENT:,}.",
                    hint="Look at it on the Hub.",
                )
            return local.read_bytes()

        return self._downloaded(path, document)

    def _downloaded(self, path: str, use: Callable[[Path], Result]) -> Result:
        """What a function makes of a stored file, downloaded past every cache to the disk and removed again."""

        def download(api: HfApi) -> Result:
            with tempfile.TemporaryDirectory(prefix="publisher-") as folder:
                local = api.hf_hub_download(
                    self.repo, path, local_dir=folder, force_download=True, revision=self.revision
                )
                return use(Path(local))

        return self._hub.call(f"read {path}", download)

    def head(self) -> str | None:
        """The commit of the revision now."""
        try:
            return self._hub.call("read its commit", lambda api: api.model_info(self.repo, revision=self.revision).sha)
        except AbsentError:
            return None

    def history(self, since: str | None) -> list[Commit]:
        """Commits after `since`, newest first."""

        def read(api: HfApi) -> list[Commit]:
            listed = api.list_repo_commits(self.repo, revision=self.revision)
            later = itertools.takewhile(lambda item: item.commit_id != since, listed[:HISTORY])
            return [
                Commit(id=item.commit_id, title=item.title, message=item.message or "", author=", ".join(item.authors))
                for item in later
            ]

        return self._hub.call("list its commits", read)

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
        """Transfer contents a few at a time, then name them all in one commit.

        The client computes each sha256 itself while it reads: handing it the manifest's would make the Hub record what
        we claim instead of what was sent. Contents that an interrupted push transferred are not sent again.
        """
        added = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(source)) for path, source in files.items()]
        for batch in _batches(added):
            names = ", ".join(item.path_in_repo for item in batch)
            with self._hub.errors(f"transfer {names[:200]}"):
                self._hub.api.preupload_lfs_files(self.repo, batch, free_memory=False, revision=self.revision)
            for item in batch:
                progress(item.path_in_repo, item.upload_info.size)
        removed = [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in remove]
        with self._hub.errors(f"commit {len(added) + len(removed)} file(s)"):
            self._hub.api.create_commit(
                self.repo,
                [*added, *removed],
                commit_message=message,
                commit_description=mark,
                parent_commit=parent,
                revision=self.revision,
            )

    # --- drafts, branches, tags ------------------------------------------------------------------------------------

    def find_draft(self, publication: Publication) -> Draft | None:
        """Our open pull request of the same files, or the staging branch of the same files."""
        return self._proposals.find(publication)

    def open_draft(self, publication: Publication) -> Draft:
        """A pull request towards the default branch, a staging branch towards another."""
        return self._proposals.open(publication)

    def close_draft(self, draft: Draft, *, reason: str) -> None:
        """Close the pull request, or remove the staging branch."""
        self._proposals.close(draft, reason=reason)

    def land(self, draft: Draft, *, message: str) -> None:
        """Merge the pull request; or put the branch where the staging branch is."""
        self._proposals.land(draft, message=message)

    def branches(self) -> dict[str, str]:
        """The commit of every branch."""
        found = self._hub.call("list its branches", lambda api: api.list_repo_refs(self.repo))
        return {item.name: item.target_commit for item in found.branches}

    def create_branch(self, name: str, commit: str | None) -> None:
        """Create a branch at a commit."""
        self._hub.call(
            f"create the branch {name}",
            lambda api: api.create_branch(self.repo, branch=name, revision=commit, exist_ok=True),
        )

    def tags(self) -> dict[str, str]:
        """The commit of every tag."""
        found = self._hub.call("list its tags", lambda api: api.list_repo_refs(self.repo))
        return {item.name: item.target_commit for item in found.tags}

    def set_tag(self, name: str, commit: str, *, message: str, move: bool) -> None:
        """Tag a commit."""
        there = self.tags().get(name)
        if there == commit:
            return
        if there is not None and move:
            self._hub.call(f"remove the tag {name}", lambda api: api.delete_tag(self.repo, tag=name))
        self._hub.call(
            f"set the tag {name}",
            lambda api: api.create_tag(self.repo, tag=name, tag_message=message, revision=commit, exist_ok=True),
        )

    def ask(self, action: str, call: Callable[[HfApi], Result]) -> Result:
        """Any other call of the client about this repository, repeated after failures that may pass.

        Args:
            action: completes "the Hub would not …".
            call: gets the client, logged in as this target is.

        Raises:
            AccessError: the Hub refuses.
            HubError: it cannot be reached, or fails.
        """
        return self._hub.call(action, call)

    @property
    def _proposals(self) -> Proposals:
        return Proposals(self._hub, self)

    def _listed_digest(self, file: RepoFile) -> str | None:
        """The digest the listing settles: only that of files too large to download and hash."""
        if file.lfs is None or self._read_limit is None or file.size <= self._read_limit:
            return None
        return file.lfs.sha256


def _batches(operations: list[Any]) -> Iterable[list[Any]]:
    """A few operations at a time, by number and by bytes."""
    batch: list[Any] = []
    size = 0
    for item in operations:
        if batch and (len(batch) >= BATCH_FILES or size + item.upload_info.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.upload_info.size
    if batch:
        yield batch
