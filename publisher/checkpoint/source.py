"""A source is a folder or `hf://org/name[@revision]`; a Hub source is pinned to a commit before anything is read.

Looking at a Hub source reads JSON files and shard headers by ranges. Fetching it goes through the Hub client's own
cache, so a download that was cut goes on where it stopped and a second run downloads nothing. What the Hub refuses is
explained: not logged in, terms not accepted, no such repository, no such revision.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm

from publisher.checkpoint import refusal
from publisher.checkpoint.cache import CommitCache, cache_root
from publisher.checkpoint.files import Files, LocalFiles
from publisher.checkpoint.remote import SCHEME as SCHEME
from publisher.checkpoint.remote import HubFiles, pin
from publisher.checkpoint.wire import Wire, is_transport, unreachable
from publisher.errors import CheckpointError, HubError, PublisherError

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
        private: whether the Hub shows it to its owners only; None for a folder.
    """

    label: str
    repo: str | None
    commit: str | None
    files: Files
    gated: str | bool | None = None
    private: bool | None = None

    @property
    def gate(self) -> str | None:
        """auto, manual or off; None for a folder."""
        return None if self.gated is None else str(self.gated or "off")

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, where the source is one."""
        return self.files.root if isinstance(self.files, LocalFiles) else None

    @property
    def remote(self) -> HubFiles | None:
        """The files as those of a repository, where the source is one."""
        return self.files if isinstance(self.files, HubFiles) else None


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


def resolve(
    spec: str,
    *,
    endpoint: str | None = None,
    token: str | bool | None = None,
    tell: Callable[[str], None] | None = None,
) -> Source:
    """Pin a source: a folder as it is, a Hub repository to the commit its revision names now.

    Args:
        spec: a path or `hf://org/name[@revision]`.
        endpoint: another Hub than the one huggingface_hub is set to.
        token: as huggingface_hub takes it; None uses the stored login or `HF_TOKEN`.
        tell: called with a sentence when the Hub makes reading wait.

    Raises:
        CheckpointError: no such folder or revision.
        AccessError: the Hub refuses.
        HubError: the Hub cannot be reached.
    """
    if not spec.startswith(SCHEME):
        path = Path(spec).expanduser().absolute()
        if not path.exists() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", spec):
            raise CheckpointError(f"There is no folder {spec}.", hint=f"For the Hub repository write hf://{spec}.")
        return Source(label=str(path), repo=None, commit=None, files=LocalFiles(path))
    repo, revision = parse_spec(spec)
    wire = Wire(repo, endpoint=endpoint, token=token, tell=tell)
    pinned = pin(wire, revision)
    cache = CommitCache(cache_root(Path(constants.HF_HOME)), wire.endpoint, repo, pinned.commit)
    files = HubFiles(wire, pinned.commit, cache)
    return Source(
        label=files.label,
        repo=repo,
        commit=pinned.commit,
        files=files,
        gated=pinned.gated,
        private=pinned.private,
    )


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
        raise refusal.gated(repo) from None
    except RevisionNotFoundError:
        raise refusal.no_revision(repo, revision) from None
    except RepositoryNotFoundError:
        raise refusal.missing(repo) from None
    except HFValidationError as error:
        raise PublisherError(f"{repo} is no repository name: {error}.", hint="Write it as hf://org/name.") from None
    except LocalEntryNotFoundError:
        raise HubError(
            f"{repo} could not be downloaded.", hint="Check the network and run again; finished files are kept."
        ) from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise refusal.by_status(repo, status, (error.server_message or "").strip()[:300]) from None
    except (ValueError, KeyError, TypeError) as error:  # a proxy's page, or another service at that address
        raise refusal.foreign(repo, type(error).__name__) from None
    except (OSError, RuntimeError) as error:
        raise HubError(
            f"Reading {repo} failed: {type(error).__name__}: {str(error)[:300]}.",
            hint="Check the network and run again.",
        ) from None
    except Exception as error:
        if not is_transport(error):
            raise
        raise unreachable(repo, error) from None


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
