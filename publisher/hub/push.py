"""The push: one list of steps that fills a target, proves it and only then shows it.

The repository is private until the tree read back equals the manifest; then one call sets gate and visibility
together, so it is never public with an open gate that nobody asked for. What is sent is what the tree lacks, and what
counts as sent is what the tree shows: a reply that was lost and a success that was none are both settled by looking.
So a push that failed anywhere goes on when it is run again, and a push of what is already there writes nothing. A
repository that is public already and needs another file is hidden while it changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from publisher.errors import AccessError, CheckpointError, HubError, PublisherError
from publisher.hub.comparison import compare, everything, groups, local_problems, verify
from publisher.hub.target import Publication, Settings, Target, TransientHubError
from publisher.manifest import Difference, FileEntry, hash_file

Emit = Callable[[str, Mapping[str, Any]], None]
ATTEMPTS = 4
WAIT = 2.0  # seconds before the second attempt; doubled each time
TELL = 0.5  # seconds between two progress events of one file


def _silent(_kind: str, _payload: Mapping[str, Any]) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRecord:
    """What a push did and what it proved; `push.json` of the run directory.

    Args:
        target: `folder` or `hf`.
        steps: name, start (seconds since the epoch) and duration (seconds) of every step.
        sent: paths that were transferred by this run, in order; empty when everything was there.
        removed: stale paths that were deleted.
        verified: the tree read back equals the manifest and the settings are those asked for.
        verified_at: seconds since the epoch.
    """

    target: str
    repo: str
    url: str
    commit: str | None
    gate: str
    visibility: str
    files: int
    bytes: int
    root_digest: str
    sent: tuple[str, ...]
    removed: tuple[str, ...]
    steps: tuple[Mapping[str, Any], ...]
    verified: bool
    verified_at: float

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return found | {
            "sent": list(self.sent),
            "removed": list(self.removed),
            "steps": [dict(step) for step in self.steps],
        }


def push(
    target: Target,
    publication: Publication,
    *,
    emit: Emit = _silent,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> PushRecord:
    """Publish, or find out that it is published already.

    Args:
        target: where to.
        publication: what, and with which settings at the end.
        emit: told of every event as (kind, payload); kinds as in the journal.
        sleep: waits between attempts, in seconds.
        clock: seconds since the epoch.

    Raises:
        AccessError: no token, or no permission.
        HubError: the target failed, or does not hold what was sent; the repository is private then.
        CheckpointError: the folder is not what its manifest says.
    """
    run = _Push(target=target, publication=publication, emit=emit, sleep=sleep, clock=clock)
    for name, step in STEPS:
        run.perform(name, step)
    return run.record()


# --- the steps -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Push:
    target: Target
    publication: Publication
    emit: Emit
    sleep: Callable[[float], None]
    clock: Callable[[], float]
    done: list[dict[str, Any]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    step: str = ""

    def preflight(self) -> None:
        """Collect every problem, then refuse."""
        problems = local_problems(self.publication) + self.target.preflight(self.publication)
        if problems:
            worst = max(problems, key=_weight)
            raise type(worst)(
                " ".join(problem.message for problem in problems),
                hint=" ".join(dict.fromkeys(problem.hint for problem in problems if problem.hint)),
            )

    def private(self) -> None:
        """Have a repository that nobody sees before it changes."""
        if self.target.settings() is None:
            self.attempt(self.target.create_private)
        current = self._settings()
        if not current.private and self._all_differences():
            self._tell("warning", f"{self.target.repo} is public; it is made private while it changes.")
            self.attempt(self.target.hide)
            current = self._settled(Settings(private=True, gate=current.gate))
            if not current.private:
                raise HubError(
                    f"{self.target.url} is still {current} after it was made private; nothing was sent.",
                    hint="Make it private in its settings, then run the same command again.",
                )

    def weights(self) -> None:
        """Send what the tree lacks of the weights."""
        self._send("weights")

    def side_files(self) -> None:
        """Send configuration, index, tokenizer and licence."""
        self._send("side files")

    def read_digests(self) -> None:
        """Weights and side files are stored as the manifest says."""
        early = [e for name in ("weights", "side files") for e in groups(self.publication.manifest)[name]]
        self.attempt(lambda: self._require(self._lacking(early)))

    def card_and_manifest(self) -> None:
        """Send what speaks of the weights only after the weights are proven."""
        self._send("card and manifest")

    def remove_stale(self) -> None:
        """Remove what the manifest does not list."""

        def remove() -> None:
            stale = [item.path for item in self._all_differences() if item.kind == "unexpected"]
            if stale:
                self._tell("log", f"{len(stale)} stale file(s) are removed.", files=stale)
                self.removed += [path for path in stale if path not in self.removed]
                self.target.delete(stale, message="Remove files that are not in the manifest")

        self.attempt(remove)

    def read_back(self) -> None:
        """The whole tree equals the manifest."""
        self.attempt(lambda: self._require(self._all_differences()))

    def release(self) -> None:
        """Gate and show, in one call, unless that is how it is."""
        wanted = self.publication.settings
        if self._settings() != wanted:
            self.attempt(lambda: self.target.release(wanted))

    def settings_read_back(self) -> None:
        """The settings are those asked for; otherwise nobody sees the repository."""
        wanted = self.publication.settings
        found = self._settled(wanted)
        if found == wanted:
            return
        if not found.private:
            self.attempt(self.target.hide)
        raise HubError(
            f"{self.target.url} is {found} after {wanted} was asked for; it was left private.",
            hint="Look at the repository's settings, then run the same command again.",
        )

    def perform(self, name: str, step: Callable[[_Push], None]) -> None:
        """Run one step and note when and how long."""
        self.step, start = name, self.clock()
        self.emit("start", {"step": name})
        step(self)
        seconds = round(self.clock() - start, 3)
        self.done.append({"name": name, "time": start, "seconds": seconds})
        self.emit("done", {"step": name, "seconds": seconds})

    def record(self) -> PushRecord:
        """What was done and proved; only a run that passed every step gets here."""
        entries = everything(self.publication.manifest)
        return PushRecord(
            target=self.target.kind,
            repo=self.target.repo,
            url=self.target.url,
            commit=self.target.commit(),
            gate=self.publication.gate,
            visibility=self.publication.settings.visibility,
            files=len(entries),
            bytes=sum(entry.size for entry in entries.values()),
            root_digest=self.publication.manifest.root_digest,
            sent=tuple(self.sent),
            removed=tuple(self.removed),
            steps=tuple(self.done),
            verified=True,
            verified_at=self.clock(),
        )

    def attempt(self, action: Callable[[], None]) -> None:
        """Do what may be repeated, again after failures that may pass."""
        for number in range(1, ATTEMPTS + 1):
            try:
                action()
                return
            except TransientHubError as error:
                if number == ATTEMPTS:
                    raise
                self._tell("warning", f"{error.message} Attempt {number} of {ATTEMPTS}.")
                self.sleep(error.wait or WAIT * 2 ** (number - 1))

    # --- details ---------------------------------------------------------------------------------------------------

    def _send(self, name: str) -> None:
        group = groups(self.publication.manifest)[name]
        counted = _Counted(group, self.clock, lambda path, **more: self._tell("progress", path, **more))

        def send() -> None:
            # A reply can be lost and a success can be false, so every attempt begins and ends by looking.
            lacking = {item.path for item in self._lacking(group)}
            if lacking:
                files = {e.path: self.publication.folder / e.path for e in group if e.path in lacking}
                self.sent += [path for path in files if path not in self.sent]
                counted.skip(lacking)
                self.target.upload(files, message=f"Add {name}", progress=counted)
                self._look(group)

        self.attempt(send)

    def _look(self, group: Iterable[FileEntry]) -> None:
        lacking = self._lacking(group)
        for item in lacking:
            path = self.publication.folder / item.path
            local = {"size": path.stat().st_size, "sha256": item.kind == "sha256" and hash_file(path)[1]}
            if item.kind != "missing" and local[item.kind] == item.actual:
                raise CheckpointError(f"{path} changed after its manifest was built.", hint="Build it again.")
        if lacking:
            raise TransientHubError(_unlike(self.target, lacking), hint="Run the same command again.")

    def _lacking(self, group: Iterable[FileEntry]) -> list[Difference]:
        return [item for item in self._differences(group) if item.kind != "unexpected"]

    def _differences(self, group: Iterable[FileEntry]) -> list[Difference]:
        return compare(self.target, {entry.path: entry for entry in group})

    def _all_differences(self) -> list[Difference]:
        return verify(self.target, self.publication.manifest)

    def _require(self, differences: list[Difference]) -> None:
        if differences:
            raise TransientHubError(
                _unlike(self.target, differences),
                hint="It is not shown to anybody. Run the same command again; it sends what is wrong.",
            )

    def _settings(self) -> Settings:
        found = self.target.settings()
        if found is None:
            raise HubError(
                f"{self.target.url} does not exist after it was created.", hint="Run the same command again."
            )
        return found

    def _settled(self, wanted: Settings) -> Settings:
        """The settings once they are those asked for; a Hub may answer with older ones for a moment."""
        for number in range(1, ATTEMPTS):
            found = self._settings()
            if found == wanted or found.open:  # an open repository is no state to wait in
                return found
            self.sleep(WAIT * 2 ** (number - 1))
        return self._settings()

    def _tell(self, kind: str, message: str, **more: Any) -> None:
        self.emit(kind, {"step": self.step, "message": message, **more})


@dataclass(slots=True)
class _Counted:
    """Adds up what was transferred of a group and tells it now and then."""

    group: Iterable[FileEntry]
    clock: Callable[[], float]
    tell: Callable[..., None]
    files: dict[str, int] = field(default_factory=dict)
    last: float = 0.0

    def skip(self, lacking: set[str]) -> None:
        """Count what is stored already."""
        self.files = {entry.path: entry.size for entry in self.group if entry.path not in lacking}

    def __call__(self, path: str, transferred: int) -> None:
        sizes = {entry.path: entry.size for entry in self.group}
        self.files[path] = transferred
        if transferred == sizes[path] or self.clock() - self.last >= TELL:
            self.last = self.clock()
            self.tell(path, done=sum(self.files.values()), total=sum(sizes.values()), unit="bytes")


STEPS: tuple[tuple[str, Callable[[_Push], None]], ...] = (
    ("preflight", _Push.preflight),
    ("private", _Push.private),
    ("weights", _Push.weights),
    ("side files", _Push.side_files),
    ("digests", _Push.read_digests),
    ("card and manifest", _Push.card_and_manifest),
    ("stale files", _Push.remove_stale),
    ("read back", _Push.read_back),
    ("release", _Push.release),
    ("settings", _Push.settings_read_back),
)


def _weight(problem: PublisherError) -> int:
    order: tuple[type[PublisherError], ...] = (PublisherError, CheckpointError, HubError, AccessError)
    return max(index for index, kind in enumerate(order) if isinstance(problem, kind))


def _unlike(target: Target, differences: list[Difference]) -> str:
    shown = "; ".join(str(item) for item in differences[:5])
    more = f" and {len(differences) - 5:,} more" if len(differences) > 5 else ""
    return f"{target.url} does not hold what was sent: {shown}{more}."
