"""The files of a Hub repository at one commit, looked at by range requests, several at a time.

Every reading begins with the question whether this login may read the repository, also when everything wanted is in
the cache. The listing, documents, shard headers and ranges of tensors are kept by commit; a second reading of the same
makes that one request (two where the repository is gated). The Hub also offers the headers of all shards in one reply,
but parsed, of the default branch only, and without the bytes that repeated keys, lengths and offsets are judged by; so
each shard's own start is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from publisher.checkpoint import refusal
from publisher.checkpoint.cache import CommitCache
from publisher.checkpoint.files import MAX_FILES, safe_name
from publisher.checkpoint.wire import Wire
from publisher.errors import CheckpointError, HubError

SCHEME = "hf://"
MAX_READ = 512 << 20  # bytes of one read; the largest document is half of it
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LISTING = ""  # the cache's name for the list of files; no file has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What a revision names now, and the repository's settings.

    Args:
        commit: the commit sha.
        gated: auto, manual or False.
        private: whether only its owners see it.
    """

    commit: str
    gated: str | bool
    private: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a reading will ask for.

    Args:
        requests: range requests, those that the cache answers left out.
        size: their bytes.
        cached: ranges that the cache has.
    """

    requests: int
    size: int
    cached: int


def pin(wire: Wire, revision: str | None) -> Pinned:
    """Ask the Hub what a revision is, and whether this login may read it.

    Raises:
        AccessError: gated, private or missing.
        CheckpointError: no such revision.
        HubError: the Hub cannot be reached, or is none.
    """
    at = f"/revision/{quote(revision, safe='')}" if revision else ""
    wanted = "?expand=sha&expand=gated&expand=private"
    info, _ = wire.json(f"/api/models/{wire.repo}{at}{wanted}", revision=revision)
    commit = info.get("sha") if isinstance(info, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise refusal.foreign(wire.repo, "no commit")
    gated = info.get("gated") or False
    if not isinstance(gated, str | bool):
        raise refusal.foreign(wire.repo, "no gate")
    if gated:  # a gated repository shows its settings to everybody, its files to those it admits
        wire.allowed()
    return Pinned(commit=commit, gated=gated, private=bool(info.get("private")))


class HubFiles:
    """The files of a Hub repository at one commit, read by ranges; may be used from several threads.

    Args:
        wire: requests about the repository; it has been asked whether this login may read it.
        commit: the commit sha.
        cache: what has been read before.

    Raises:
        AccessError: the Hub refuses.
        CheckpointError: more files than a repository may hold.
        HubError: the Hub cannot be reached, or is none.
    """

    def __init__(self, wire: Wire, commit: str, cache: CommitCache) -> None:
        self.repo, self.commit = wire.repo, commit
        self._wire, self._cache = wire, cache
        self._sizes = self._listing()

    @property
    def label(self) -> str:
        """`hf://org/name@commit`."""
        return f"{SCHEME}{self.repo}@{self.commit}"

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size of every file of the commit."""
        return self._sizes

    @property
    def repository_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self._sizes.values())

    @property
    def bytes_fetched(self) -> int:
        """Bytes of files that came over the network."""
        return self._wire.bytes_fetched

    @property
    def requests(self) -> int:
        """Range requests that were answered."""
        return self._wire.requests

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes of one file by one range request, or from the cache; see `Files.read`."""
        size = self._sizes.get(path)
        if size is None:
            raise CheckpointError(
                f"{self.label} has no file {path[:200]!r}.", hint="Check the repository's files on the Hub."
            )
        end = size if end is None else min(end, size)
        if end <= begin:
            return b""
        if end - begin > MAX_READ:
            raise CheckpointError(
                f"{path} of {self.label} has {end - begin:,} bytes; at most {MAX_READ:,} are read at once.",
                hint="Download the repository and validate the folder.",
            )
        data = self._cache.get(path, begin, end)
        if data is None:
            data = self._wire.read(path, self.commit, begin, end, size)
            self._cache.put(path, begin, data)
        return data

    def local(self, path: str) -> Path | None:
        """None: nothing of a Hub repository is on this machine."""
        return None

    def outlook(self, reads: Iterable[tuple[str, int, int]]) -> Outlook:
        """What these reads (file, begin, end) will ask of the Hub."""
        requests, size, cached = 0, 0, 0
        for path, begin, end in reads:
            if self._cache.has(path, begin, end):
                cached += 1
            else:
                requests, size = requests + 1, size + end - begin
        return Outlook(requests=requests, size=size, cached=cached)

    def stop(self) -> None:
        """End reads that wait for the Hub, in any thread; for an interrupt."""
        self._wire.pace.stop()

    def _listing(self) -> dict[str, int]:
        known = self._cache.get(_LISTING, 0)
        if known is not None:
            listed: dict[str, int] = json.loads(known)
            return listed
        found = dict(sorted(self._pages().items()))
        self._cache.put(_LISTING, 0, json.dumps(found).encode())
        return found

    def _pages(self) -> dict[str, int]:
        """The files of every page of the Hub's listing."""
        found: dict[str, int] = {}
        entries, address = 0, f"/api/models/{self.repo}/tree/{self.commit}?recursive=true&expand=false"
        seen: set[str] = set()
        while address:
            seen.add(address)
            page, following = self._wire.json(address, revision=self.commit)
            if not isinstance(page, list):
                raise refusal.foreign(self.repo, "no list of files")
            found.update(entry for item in page if (entry := self._entry(item)) is not None)
            entries += len(page)
            if len(found) > MAX_FILES or entries > 2 * MAX_FILES:
                raise CheckpointError(
                    f"{self.repo} holds more than {MAX_FILES:,} files; this is no checkpoint.", hint="Check the name."
                )
            address = following or ""
            if address in seen or (address and not page):
                raise refusal.foreign(self.repo, "a listing without end")
        return found

    def _entry(self, item: Any) -> tuple[str, int] | None:
        """Path and size of a listed file; None for folders and for names no file may have."""
        if not isinstance(item, dict) or not isinstance(item.get("path"), str):
            raise refusal.foreign(self.repo, "an entry without a path")
        if item.get("type") != "file":
            return None
        size = item.get("size")
        if type(size) is not int or not 0 <= size < 2**63:
            raise HubError(
                f"The Hub lists {item['path'][:200]!r} of {self.repo} with the size {str(size)[:40]!r}.",
                hint=refusal.FOREIGN_HINT,
            )
        return (item["path"], size) if safe_name(item["path"]) else None
