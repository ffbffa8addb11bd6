"""A model repository on the Hugging Face Hub as a publishing target.

The real client does the talking, through calls that huggingface_hub 1.33 and 2.4 share. What the client leaves open is
closed here: calls it does not retry are retried, a bounded number of times; its many exceptions (one library's HTTP
errors or another's, builtin ones from the Xet transport) become `AccessError`, `HubError` or `TransientHubError` with
a next step; and write permission is asked for by name, because `create_repo(exist_ok=True)` succeeds without it. No
message carries an address with a signature or anything that looks like a token.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, disable_progress_bars, get_session, hf_raise_for_status

from publisher import __version__
from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub.target import (
    MAX_DOCUMENT,
    Gate,
    Publication,
    Settings,
    StoredFile,
    TransientHubError,
    Uploaded,
    repo_problem,
)
from publisher.journal import mask

Result = TypeVar("Result")
ATTEMPTS = 4
TIMEOUT = 300.0  # seconds without a byte; the client's own default is to wait for ever
BATCH = 5  # files transferred side by side between two progress events
TRANSIENT = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504})
# httpx in one major version, httpx2 in the next; the client's own error derives from either.
TRANSPORT_ERROR: type[Exception] = next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
FAILURES: tuple[type[Exception], ...] = (TRANSPORT_ERROR, OSError, RuntimeError, ValueError)
AGAIN = "Run the same command again; it goes on from here."
LOGIN = "Log in with `hf auth login`, or set HF_TOKEN, with a token that may write to this repository."


class HuggingFaceTarget:
    """A model repository on a Hub.

    Args:
        repo: `owner/name`.
        endpoint: the Hub's address; by default as huggingface_hub reads it (`HF_ENDPOINT`).
        token: by default as huggingface_hub finds it (`HF_TOKEN`, the stored login).
        sleep: waits between attempts, in seconds.
        read_limit: files up to this many bytes are downloaded and hashed when digests are read; of larger ones the
            sha256 that the Hub records for its storage is taken.

    Raises:
        PublisherError: `repo` is no repository name.
    """

    kind = "hf"

    def __init__(
        self,
        repo: str,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        read_limit: int = 16 * 1024 * 1024,
    ) -> None:
        problem = repo_problem(repo)
        if problem is not None:
            raise problem
        self.repo = repo
        disable_progress_bars()  # the push tells its own progress, in the journal's words
        self._token = token or get_token()
        self._api = HfApi(
            endpoint=endpoint, token=self._token, library_name="fp4-publisher", library_version=__version__
        )
        self._sleep = sleep
        self._read_limit = read_limit
        self._digests: dict[tuple[str, str], str] = {}  # by path and the Hub's object id
        self._objects: dict[str, str] = {}  # the object id of every file when the tree was last listed

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"{self._api.endpoint}/{self.repo}"

    def require_access(self) -> None:
        """Refuse no token, a read-only one, and a login that may neither write to the repository nor create it."""
        self._may_write()

    def preflight(self, publication: Publication) -> list[PublisherError]:
        """No token, no permission to write or create, metadata the Hub refuses."""
        problems: list[PublisherError] = []
        for check in (self.require_access, lambda: self._metadata(publication.folder / "README.md")):
            try:
                check()
            except PublisherError as problem:
                problems.append(problem)
                if isinstance(problem, TransientHubError):
                    break
        return problems

    def settings(self) -> Settings | None:
        """Visibility and gate as the Hub reports them now."""
        try:
            info = self._call("read the settings", lambda: self._api.model_info(self.repo))
        except _Absent:
            return None
        gate: Gate = info.gated if info.gated in ("auto", "manual") else "off"
        return Settings(private=bool(info.private), gate=gate)

    def create_private(self) -> None:
        """Create the repository private; an existing one stays as it is."""
        self._call("create it", lambda: self._api.create_repo(self.repo, private=True, exist_ok=True))

    def hide(self) -> None:
        """One settings call: private."""
        self._call("make it private", lambda: self._api.update_repo_settings(self.repo, private=True))

    def release(self, settings: Settings) -> None:
        """One settings call: gate and visibility together."""
        self._call(
            "set gate and visibility",
            lambda: self._api.update_repo_settings(
                self.repo, gated=False if settings.gate == "off" else settings.gate, private=settings.private
            ),
        )

    def tree(self) -> dict[str, StoredFile]:
        """Every file of the default branch; large ones with the digest the Hub records for them."""
        with self._errors("list its files"):  # which the client repeats by itself
            listed = list(self._api.list_repo_tree(self.repo, recursive=True))
        files = [item for item in listed if isinstance(item, RepoFile)]
        self._objects = {f.path: f.blob_id for f in files}
        return {f.path: StoredFile(size=f.size, sha256=self._listed_digest(f)) for f in files}

    def read_digests(self, paths: Iterable[str]) -> dict[str, str]:
        """sha256 of the stored bytes, downloaded once for every object id the Hub gives them."""
        found: dict[str, str] = {}
        for path in paths:
            identity = self._objects.get(path, "")
            digest = self._digests.get((path, identity))
            if digest is None:
                try:
                    digest = hashlib.sha256(self.read(path)).hexdigest()
                except _Absent:
                    continue
                if identity:
                    self._digests[path, identity] = digest
            found[path] = digest
        return found

    def read(self, path: str) -> bytes:
        """Download a document, past every cache."""

        def download() -> bytes:
            with tempfile.TemporaryDirectory(prefix="publisher-") as folder:
                local = self._api.hf_hub_download(
                    self.repo, path, local_dir=folder, force_download=True, revision="main"
                )
                size = Path(local).stat().st_size
                if size > MAX_DOCUMENT:
                    raise HubError(
                        f"{path} has {size:,} bytes, more than a document of {MAX_DOCUMENT:,}.",
                        hint="Look at it on the Hub.",
                    )
                return Path(local).read_bytes()

        return self._call(f"read {path}", download)

    def upload(self, files: Mapping[str, Path], *, message: str, progress: Uploaded) -> None:
        """Transfer contents a few at a time, then name them all in one commit.

        The client computes each sha256 itself while it reads: handing it the manifest's would make the Hub record what
        we claim instead of what was sent. Contents that an interrupted push transferred are not sent again.
        """
        operations = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(source)) for path, source in files.items()
        ]
        for start in range(0, len(operations), BATCH):
            batch = operations[start : start + BATCH]
            names = ", ".join(item.path_in_repo for item in batch)
            with self._errors(f"transfer {names[:200]}"):
                self._api.preupload_lfs_files(self.repo, batch, free_memory=False)
            for item in batch:
                progress(item.path_in_repo, item.upload_info.size)
        with self._errors(f"commit {len(operations)} file(s)"):
            self._api.create_commit(self.repo, operations, commit_message=message)

    def delete(self, paths: Iterable[str], *, message: str) -> None:
        """Remove files in one commit."""
        operations = [CommitOperationDelete(path_in_repo=path) for path in paths]
        with self._errors(f"remove {len(operations)} file(s)"):
            self._api.create_commit(self.repo, operations, commit_message=message)

    def commit(self) -> str | None:
        """The commit at the head of the default branch."""
        return self._call("read its commit", lambda: self._api.model_info(self.repo).sha)

    def ask(self, action: str, call: Callable[[HfApi], Result]) -> Result:
        """Any other call of the client about this repository, repeated after failures that may pass.

        Args:
            action: completes "the Hub would not …".
            call: gets the client, logged in as this target is.

        Raises:
            AccessError: the Hub refuses.
            HubError: it cannot be reached, or fails.
        """
        return self._call(action, lambda: call(self._api))

    # --- preflight -------------------------------------------------------------------------------------------------

    def _may_write(self) -> None:
        if not self._token:
            raise AccessError("There is no Hub token.", hint=LOGIN)
        who = self._call("ask who the token belongs to", self._api.whoami)
        role = (who.get("auth") or {}).get("accessToken", {}).get("role")
        if role == "read":
            raise AccessError(f"The token of {who['name']} may only read.", hint=LOGIN)
        if self.settings() is not None:
            self._call("check for permission to write", lambda: self._api.auth_check(self.repo, write=True))
            return
        owner = self.repo.split("/")[0]
        mine = {who["name"]} | {
            org["name"] for org in who.get("orgs", []) if org.get("roleInOrg") not in ("read", "no_access")
        }
        if owner.casefold() not in {name.casefold() for name in mine}:
            raise AccessError(
                f"{who['name']} may not create repositories for {owner}.",
                hint=f"Publish under one of {', '.join(sorted(mine))}, or ask {owner} for a role that may write.",
            )

    def _metadata(self, card: Path) -> None:
        try:
            content = card.read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            raise PublisherError(f"{card} is missing or not UTF-8.", hint="Run `publisher card`.") from None

        def validate() -> list[str]:
            response = get_session().post(
                f"{self._api.endpoint}/api/validate-yaml",
                json={"content": content, "repoType": "model"},
                headers=build_hf_headers(token=self._token),
            )
            if response.status_code == 400:
                return [str(error.get("message")) for error in response.json().get("errors", [])] or ["no reason"]
            hf_raise_for_status(response)
            return []

        found = self._call("check the card's metadata", validate)
        if found:
            raise PublisherError(
                f"The Hub refuses the metadata of {card}: {'; '.join(found)[:500]}.",
                hint="Correct the card's front matter, then run the same command again.",
            )

    # --- calls and their errors ------------------------------------------------------------------------------------

    def _listed_digest(self, file: RepoFile) -> str | None:
        """The digest the listing settles: only that of files too large to download and hash."""
        return file.lfs.sha256 if file.lfs and file.size > self._read_limit else None

    def _call(self, action: str, call: Callable[[], Result]) -> Result:
        """One call that may be repeated, repeated after failures that may pass."""
        for number in range(1, ATTEMPTS):
            try:
                with self._errors(action):
                    return call()
            except TransientHubError as error:
                self._sleep(error.wait or 2.0 ** (number - 1))
        with self._errors(action):
            return call()

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        get_session().timeout = TIMEOUT
        try:
            yield
        except PublisherError:
            raise
        except FAILURES as error:
            raise self._explain(action, error) from None

    def _explain(self, action: str, error: Exception) -> PublisherError:
        """The project's error for one of the client's, by what lies at its bottom."""
        place = f"{self._api.endpoint} would not {action} for {self.repo}"
        found = _http_error(error)
        if isinstance(found, GatedRepoError):
            return AccessError(
                f"{place}: the repository is gated.", hint=f"Ask for access at {self.url}, then try again."
            )
        if found is None:
            return self._explain_transport(place, error)
        status = found.response.status_code
        said = self._clean(found.server_message or "") or f"HTTP {status}"
        if isinstance(found, EntryNotFoundError):
            return _Absent(f"{place}: {said}.", hint=AGAIN)
        if status in (401, 402, 403):
            hint = "Make room or pay for storage in the account's settings." if status == 402 else LOGIN
            return AccessError(f"{place} (HTTP {status}): {said}.", hint=hint)
        if isinstance(found, RepositoryNotFoundError):
            return _Absent(f"{place}: it does not exist, or the token may not see it.", hint=LOGIN)
        if status in TRANSIENT:
            return TransientHubError(f"{place} (HTTP {status}): {said}.", hint=AGAIN, wait=_retry_after(found))
        return HubError(f"{place} (HTTP {status}): {said}.", hint="Mend what the Hub names, then run again.")

    def _explain_transport(self, place: str, error: Exception) -> PublisherError:
        root = _root(error)
        said = self._clean(f"{type(root).__name__}: {root}")
        if isinstance(root, OfflineModeIsEnabled):
            return HubError(f"{place}: HF_HUB_OFFLINE is set.", hint="Unset it, then run the same command again.")
        if isinstance(root, OSError) and root.errno and not isinstance(root, ConnectionError | TimeoutError):
            return HubError(f"{place}: {said}.", hint="Check this machine's disk, then run the same command again.")
        if type(root) is ValueError:
            return HubError(f"{place}: {said}.", hint="Mend what is named, then run the same command again.")
        return TransientHubError(f"{place}: {said}.", hint="Check the network. " + AGAIN)

    def _clean(self, text: str) -> str:
        """One line without tokens and without the query part of addresses, where signatures are."""
        if self._token:
            text = text.replace(self._token, "***")
        words = (word.split("?")[0] if "://" in word else word for word in mask(text).split())
        return " ".join(words).rstrip(".")[:300]


def token_state() -> str | None:
    """Where the login comes from, for `publisher doctor`; None without one. The token itself is not shown."""
    if get_token() is None:
        return None
    return "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "logged in"


class _Absent(AccessError):
    """There is no such repository, or no such file in it, as far as this token can see."""


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _http_error(error: Exception) -> Any:
    """The reply of the Hub that an error comes from, however the client wrapped it; None without one."""
    return next((item for item in _chain(error) if isinstance(item, HfHubHTTPError)), None)


def _root(error: Exception) -> BaseException:
    """The cause the client named last: the upload paths wrap it in a RuntimeError."""
    return next((item for item in _chain(error) if not isinstance(item, RuntimeError)), error)


def _retry_after(error: Any) -> float | None:
    """Seconds a busy Hub asks to wait, at most five minutes."""
    value = str(error.response.headers.get("Retry-After", ""))
    return min(float(value), 300.0) if value.isdigit() else None
