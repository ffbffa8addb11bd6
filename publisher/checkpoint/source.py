"""A source is a folder or `hf://org/name[@revision]`; a Hub source is pinned to a commit before anything is read.

Looking at a Hub source reads JSON files and shard headers by ranges. Fetching it goes through the Hub client's own
cache, so a download that was cut goes on where it stopped and a second run downloads nothing. What the Hub refuses is
explained: not logged in, terms not accepted, no such repository, no such revision.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff
from tqdm.auto import tqdm

from publisher.checkpoint.files import MAX_FILES, Files, LocalFiles, safe_name
from publisher.errors import AccessError, CheckpointError, HubError, PublisherError

SCHEME = "hf://"
READ_AHEAD = 128 * 1024  # one request for the header of a shard of common size
TIMEOUT = 60.0  # seconds without a byte; the client's own default is to wait for ever
_SPEC = re.compile(r"hf://([A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96})(?:@([A-Za-z0-9][\w./-]{0,254}))?", re.ASCII)
# Weights in other formats and caches; a checkpoint is its safetensors shards.
IGNORED = ("*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "consolidated*", "original/*", ".cache/*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the weights come from.

    Args:
        label: the folder, or `hf://org/name@commit`.
        repo: `org/name` of a Hub source, None for a folder.
        commit: the commit sha a Hub source is pinned to, None for a folder.
        files: its files, to look at.
        gated: auto, manual or False as the Hub says; None for a folder.
    """

    label: str
    repo: str | None
    commit: str | None
    files: Files
    gated: str | bool | None = None

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, where the source is one."""
        return self.files.root if isinstance(self.files, LocalFiles) else None


def parse_spec(spec: str) -> tuple[str, str | None]:
    """Repository and revision of `hf://org/name[@revision]`.

    Raises:
        PublisherError: not of that form.
    """
    match = _SPEC.fullmatch(spec)
    if not match:
        raise PublisherError(
            f"{spec[:200]!r} is no Hub repository.", hint="Write hf://org/name or hf://org/name@revision."
        )
    return match.group(1), match.group(2)


def resolve(spec: str, *, endpoint: str | None = None, token: str | bool | None = None) -> Source:
    """Pin a source: a folder as it is, a Hub repository to the commit its revision names now.

    Args:
        spec: a path or `hf://org/name[@revision]`.
        endpoint: another Hub than the one huggingface_hub is set to.
        token: as huggingface_hub takes it; None uses the stored login or `HF_TOKEN`.

    Raises:
        CheckpointError: no such folder.
        AccessError: the Hub refuses.
        HubError: the Hub cannot be reached.
    """
    if not spec.startswith(SCHEME):
        path = Path(spec).expanduser().absolute()
        if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", spec):
            raise CheckpointError(f"There is no folder {spec}.", hint=f"For the Hub repository write hf://{spec}.")
        return Source(label=str(path), repo=None, commit=None, files=LocalFiles(path))
    repo, revision = parse_spec(spec)
    with explained(repo, revision):
        info = HfApi(endpoint=endpoint, token=token).model_info(repo, revision=revision, timeout=TIMEOUT)
    if not info.sha:
        raise HubError(f"The Hub names no commit for {spec}.", hint="Try again, or name a commit after @.")
    files = HubFiles(repo, info.sha, endpoint=endpoint, token=token)
    return Source(label=files.label, repo=repo, commit=info.sha, files=files, gated=info.gated)


def fetch(
    source: Source, *, endpoint: str | None = None, token: str | bool | None = None, progress: Any = None
) -> Path:
    """The source as a folder on this machine, downloaded into the Hub client's cache where it is not one yet.

    Args:
        source: a pinned source.
        endpoint: as in `resolve`.
        token: as in `resolve`.
        progress: called with (bytes done, bytes in all).

    Raises:
        AccessError: the Hub refuses.
        HubError: the download failed; run again to go on with it.
    """
    if source.folder is not None:
        return source.folder
    repo = source.repo or ""
    with explained(repo, source.commit):
        folder = snapshot_download(
            repo,
            revision=source.commit,
            endpoint=endpoint,
            token=token,
            ignore_patterns=list(IGNORED),
            tqdm_class=_bar(progress) if progress else None,
        )
    return Path(folder)


class HubFiles:
    """The files of a Hub repository at one commit, read by ranges.

    Args:
        repo: `org/name`.
        commit: the commit sha.
        endpoint: another Hub than the one huggingface_hub is set to.
        token: as huggingface_hub takes it.

    Raises:
        AccessError: the Hub refuses.
        HubError: the Hub cannot be reached.
    """

    def __init__(self, repo: str, commit: str, *, endpoint: str | None = None, token: str | bool | None = None) -> None:
        self.repo, self.commit = repo, commit
        self._endpoint = endpoint
        self._headers = build_hf_headers(token=token, library_name="fp4-publisher")
        self._heads: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.bytes_fetched = 0
        self.requests = 0
        with explained(repo, commit):
            self._sizes = self._list(HfApi(endpoint=endpoint, token=token))

    @property
    def label(self) -> str:
        """`hf://org/name@commit`."""
        return f"{SCHEME}{self.repo}@{self.commit}"

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size of every file of the commit."""
        return self._sizes

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes of one file by one range request; see `Files.read`."""
        if path not in self._sizes:
            raise CheckpointError(
                f"{self.label} has no file {path[:200]!r}.", hint="Check the repository's files on the Hub."
            )
        size = self._sizes[path]
        end = size if end is None else min(end, size)
        head = self._heads.get(path)
        if head is not None and end <= len(head):
            return head[begin:end]
        if begin == 0 and end <= READ_AHEAD:
            head = self._range(path, 0, min(READ_AHEAD, size))
            with self._lock:
                self._heads[path] = head
            return head[begin:end]
        return self._range(path, begin, end)

    def local(self, path: str) -> Path | None:
        """None: nothing of a Hub repository is on this machine."""
        return None

    def _list(self, api: HfApi) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in api.list_repo_tree(self.repo, recursive=True, revision=self.commit):
            if isinstance(entry, RepoFile) and safe_name(entry.path):
                found[entry.path] = entry.size
            if len(found) > MAX_FILES:
                raise CheckpointError(
                    f"{self.repo} holds more than {MAX_FILES:,} files; this is no checkpoint.", hint="Check the name."
                )
        return dict(sorted(found.items()))

    def _range(self, path: str, begin: int, end: int) -> bytes:
        """Bytes `begin` to `end`; stops reading there even when the server ignores the range."""
        if end <= begin:
            return b""
        url = hf_hub_url(self.repo, path, revision=self.commit, endpoint=self._endpoint)
        headers = {**self._headers, "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        with (
            explained(self.repo, self.commit),
            http_stream_backoff("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response,
        ):
            hf_raise_for_status(response)
            skip = begin if response.status_code == 200 else 0
            data = _take(response.iter_bytes(), skip, end - begin)
        with self._lock:
            self.requests += 1
            self.bytes_fetched += len(data)
        return data


def _take(pieces: Iterator[bytes], skip: int, wanted: int) -> bytes:
    """`wanted` bytes after `skip`; a server that ignores ranges must not fill the memory."""
    if skip > 64 << 20:
        raise HubError("The server ignores range requests.", hint="Download the repository and validate the folder.")
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) >= skip + wanted:
            break
    return bytes(data[skip : skip + wanted])


@contextlib.contextmanager
def explained(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub client raises into an error that says what to do.

    Raises:
        AccessError: gated, private, missing, or the token is refused.
        HubError: anything else the Hub or the network did.
    """
    try:
        yield
    except PublisherError:
        raise
    except GatedRepoError:
        raise AccessError(
            f"{repo} is gated and this login has no access.",
            hint=f"Accept its terms in a browser at the page of {repo}, then log in here with `hf auth login`.",
        ) from None
    except RevisionNotFoundError:
        raise CheckpointError(f"{repo} has no revision {revision}.", hint="Name a branch, tag or commit.") from None
    except RepositoryNotFoundError:
        raise AccessError(
            f"There is no repository {repo}, or it is private and this login may not see it.",
            hint="Check the name; for a private repository set HF_TOKEN or run `hf auth login`.",
        ) from None
    except HFValidationError as error:
        raise PublisherError(f"{repo} is no repository name: {error}.", hint="Write it as hf://org/name.") from None
    except LocalEntryNotFoundError:
        raise HubError(
            f"{repo} could not be downloaded.", hint="Check the network and run again; finished files are kept."
        ) from None
    except HfHubHTTPError as error:
        raise _http(repo, error) from None
    except (ValueError, KeyError, TypeError) as error:  # a proxy's page, or another service at that address
        raise HubError(
            f"What answered for {repo} does not speak as the Hub does ({type(error).__name__}).",
            hint="Check HF_ENDPOINT, and whether a proxy or a login page stands between, then run again.",
        ) from None
    except (OSError, RuntimeError) as error:
        raise HubError(
            f"Reading {repo} failed: {type(error).__name__}: {str(error)[:300]}.",
            hint="Check the network and run again.",
        ) from None
    except Exception as error:
        # httpx (client 1.x) and httpx2 (client 2.x) share no base class that both can import.
        if type(error).__module__.partition(".")[0] not in {"httpx", "httpx2", "httpcore", "httpcore2"}:
            raise
        raise HubError(
            f"The Hub cannot be reached for {repo}: {type(error).__name__}.", hint="Check the network and run again."
        ) from None


def _http(repo: str, error: HfHubHTTPError) -> PublisherError:
    status = getattr(error.response, "status_code", None)
    detail = (error.server_message or "").strip()[:300]
    if status in (401, 403):
        return AccessError(
            f"The Hub refuses access to {repo} ({status}{': ' + detail if detail else ''}).",
            hint="Check the token's scopes with `hf auth whoami`.",
        )
    return HubError(f"The Hub answered {status} for {repo}{': ' + detail if detail else ''}.", hint="Run again later.")


def _bar(progress: Callable[[int, int], None]) -> type[Any]:
    """A tqdm class that reports bytes to `progress` and draws nothing."""

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = False
            kwargs["file"] = _Nowhere()
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self.unit == "B":
                progress(int(self.n), int(self.total or 0))
            return shown

    return Bar


class _Nowhere:
    """A file that swallows what tqdm draws."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing to flush."""
