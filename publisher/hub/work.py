"""What every step of a push is made of: attempts that look before and after, commits on a known parent, settings.

Nothing here decides an order. A commit is made only while the repository is as closed as the push needs it; what was
committed is what the tree and the history show, not what a reply said; and a commit that is neither ours nor known
ends the attempt with the name of who made it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from publisher.errors import CheckpointError, HubError, PublisherError
from publisher.hub.comparison import compare, everything, groups, is_weight
from publisher.hub.patience import Patience
from publisher.hub.progress import Meter
from publisher.hub.target import (
    STRICTNESS,
    Draft,
    MovedError,
    OvertakenError,
    Publication,
    Settings,
    Target,
    TransientHubError,
)
from publisher.manifest import Difference, FileEntry, Manifest, hash_file

Emit = Callable[[str, Mapping[str, Any]], None]
DIRECT, DRAFT = "direct", "draft"
PORTION = 200 * 10**9  # bytes of weights in one commit: what is committed is not even read again
AGAIN = "Run the same command again; it goes on from here."
DAMAGED = (
    "Run the same command again. If that ends here too, damaged contents are kept under the right name and the right "
    "ones are not taken: delete that file for good in the repository's settings, or the repository, and run again."
)


@dataclass(slots=True, kw_only=True)
class Work:
    """One push at work.

    Args:
        place: where it works: the branch itself, or the draft.
        landing: what users see, or will see.
        route: `direct` or `draft`.
        found: the repository was there when this push began to work in it.
        closed: how closed the repository must stay while this push works; None before that is decided.
        head: the commit that the next one goes on top of.
        commits: how many this push has tried to make.
    """

    target: Target
    publication: Publication
    emit: Emit
    patience: Patience
    clock: Callable[[], float]
    place: Target = field(init=False)
    landing: Target = field(init=False)
    meter: Meter = field(init=False)
    route: str = DIRECT
    found: bool = False
    closed: Settings | None = None
    draft: Draft | None = None
    head: str | None = None
    step: str = ""
    commits: int = 0
    done: list[dict[str, Any]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place = self.landing = self.target.at(self.publication.revision)
        entries = everything(self.manifest)
        self.meter = Meter(entries=entries, tell=self.tell_progress, clock=self.clock, passes=self.target.passes)

    @property
    def manifest(self) -> Manifest:
        """What shall be stored."""
        return self.publication.manifest

    def group(self, name: str) -> tuple[FileEntry, ...]:
        """The files of one step."""
        return groups(self.manifest)[name]

    # --- telling ---------------------------------------------------------------------------------------------------

    def tell(self, kind: str, message: str, **more: Any) -> None:
        """An event of the step that is running."""
        self.emit(kind, {"step": self.step, "message": message, **more})

    def tell_progress(self, counts: Mapping[str, Any]) -> None:
        """How far everything is."""
        self.emit("progress", {"step": self.step, **counts})

    def attempt(self, action: Callable[[], None]) -> None:
        """Do what may be repeated, again after failures that may pass."""
        self.patience.repeat(
            action,
            lambda error, number: self.tell(
                "warning", f"{error.message} Attempt {number} of {self.patience.attempts}."
            ),
        )

    # --- sending ---------------------------------------------------------------------------------------------------

    def send(self, entries: Iterable[FileEntry], *, message: str, clean: bool = False) -> None:
        """Make the place hold these files, and with `clean` no others, by one commit; none where it does."""
        wanted = {entry.path: entry for entry in entries}

        def once() -> None:
            # A reply can be lost and a success can be false, so every attempt begins and ends by looking.
            self.adopt()
            lacking, stale = self.lacking(wanted, clean=clean)
            self.meter.found(wanted.keys() - lacking)
            if lacking or stale:
                if self.route == DIRECT and self.closed is not None and not self.closed.private:
                    raise self.moved(self.place, "it held these files a moment ago", self.head)
                self.guard()
                self._commit({path: wanted[path] for path in wanted if path in lacking}, stale, message)
                self.adopt()
                self._look(wanted)
            self.meter.found(set(wanted))
            self.meter.say()

        self.attempt(once)

    def _commit(self, entries: Mapping[str, FileEntry], stale: list[str], message: str) -> None:
        files = {path: self.publication.folder / path for path in entries}
        self.commits += 1
        self.sent += [path for path in files if path not in self.sent]
        if stale:
            self.tell("log", f"{len(stale):,} stale file(s) are removed: {first_of(stale, 5, ', ')}.", files=stale)
            self.removed += [path for path in stale if path not in self.removed]
        try:
            with self.meter.watching(files):
                self.place.commit(
                    files,
                    stale,
                    message=message,
                    mark=self.publication.mark,
                    parent=self.head,
                    progress=self.meter,
                )
        except OvertakenError as error:
            self.adopt()  # tells who it was, if it was somebody
            raise TransientHubError(error.message, hint=error.hint, wait=error.wait) from None

    def adopt(self) -> None:
        """Go on from where the place is now, if nobody but a push of these files moved it.

        Raises:
            MovedError: somebody did.
        """
        now = self.place.head()
        if now == self.head:
            return
        if now is None:
            self.settings()  # tells where the whole repository is gone
            raise self.moved(self.place, "somebody removed it", now)
        for commit in self.place.history(self.head):
            if self.publication.mark not in commit.message:
                raise self.moved(self.place, f"{commit.author or 'somebody'} committed {commit.title!r}", now)
        self.head = now

    def moved(self, place: Target, what: str, now: str | None) -> MovedError:
        """The error of a push that was overtaken."""
        return MovedError(
            f"{place.url} was changed while this push was running: {what} ({str(now)[:12]}). "
            "Nothing of this push is visible that was not proven.",
            hint="See what was changed; the same command, run again, tells first what it would change now.",
        )

    def lacking(self, wanted: Mapping[str, FileEntry], *, clean: bool = False) -> tuple[set[str], list[str]]:
        """Paths that the place does not hold as they should be; with `clean`, stale ones of the whole tree."""
        found = compare(self.place, wanted)
        wrong = {item.path for item in found if item.kind != "unexpected"}
        known = everything(self.manifest)
        return wrong, [item.path for item in found if clean and item.path not in known]

    def _look(self, wanted: Mapping[str, FileEntry]) -> None:
        different = [item for item in compare(self.place, wanted) if item.kind != "unexpected"]
        for item in different:
            path = self.publication.folder / item.path
            local = {"size": path.stat().st_size, "sha256": item.kind == "sha256" and hash_file(path)[1]}
            if item.kind != "missing" and local[item.kind] == item.actual:
                raise CheckpointError(f"{path} changed after its manifest was built.", hint="Build it again.")
        if different:
            raise TransientHubError(unlike(self.place, different), hint=next_step(different))

    def require(self, differences: list[Difference]) -> None:
        """Refuse a place that is not as it should be."""
        if differences:
            raise TransientHubError(
                unlike(self.place, differences),
                hint=f"Nothing of it is shown to anybody. {next_step(differences)}",
            )

    # --- settings --------------------------------------------------------------------------------------------------

    def settings(self) -> Settings:
        """The settings now, of a repository that must be there.

        Raises:
            HubError: it is gone.
        """
        found = self.target.settings()
        if found is None:
            raise self.gone()
        return found

    def gone(self) -> HubError:
        """The error of a push whose repository was removed under it."""
        return HubError(
            f"{self.target.url} is gone: it was there when this push began to fill it.",
            hint="Ask who removed it; run the same command again to make it anew.",
        )

    def vanished(self) -> bool:
        """Whether the repository that this push works on is there no more, as far as the target can be asked."""
        with contextlib.suppress(PublisherError):
            return self.found and self.target.settings() is None
        return False

    def settled(self, wanted: Settings) -> Settings:
        """The settings once they are those asked for; a Hub may answer with older ones for a moment."""
        for number in range(1, self.patience.attempts):
            found = self.settings()
            if found == wanted or found.open:  # an open repository is no state to wait in
                return found
            self.patience.wait(number)
        return self.settings()

    def set(self, wanted: Settings) -> Settings:
        """Set gate and visibility, and see that they are set.

        Raises:
            HubError: they are not.
        """
        self.attempt(lambda: self.target.release(wanted))
        found = self.settled(wanted)
        if found != wanted:
            raise HubError(
                f"{self.target.url} is still {found} after {wanted} was asked for; nothing was sent.",
                hint="Change it in the repository's settings, then run the same command again.",
            )
        return found

    def guard(self) -> None:
        """Close the repository again where somebody opened it while it is not to be seen."""
        found = self.settings()
        if self.closed is None or found.private or found == self.closed:
            return
        if self.closed.private:
            self.tell("warning", f"Somebody made {self.target.repo} public before it was proven; it is hidden again.")
            self.attempt(self.target.hide)
            self.settled(Settings(private=True, gate=found.gate))
        elif STRICTNESS[found.gate] < STRICTNESS[self.closed.gate]:
            self.tell("warning", f"Somebody set the gate to {found.gate}; it is {self.closed.gate} again.")
            self.set(self.closed)

    def secure(self) -> None:
        """After a failure: see that nobody sees what was not proven, as far as the target can still be reached."""
        with contextlib.suppress(PublisherError):
            self.guard()


def portions(entries: Iterable[FileEntry], limit: int = PORTION) -> Iterator[list[FileEntry]]:
    """Files a commit each, as many as fit into `limit` bytes; at least one commit, empty without files."""
    portion: list[FileEntry] = []
    size = 0
    for entry in entries:
        if portion and size + entry.size > limit:
            yield portion
            portion, size = [], 0
        portion.append(entry)
        size += entry.size
    yield portion


def next_step(differences: list[Difference]) -> str:
    """What to do about contents that did not arrive; a store that names contents by digest does not replace them."""
    damaged = any(item.kind == "sha256" and is_weight(item.path) for item in differences)
    return DAMAGED if damaged else "Run the same command again; it sends what is wrong."


def unlike(target: Target, differences: list[Difference]) -> str:
    """What a place does not hold, in one sentence."""
    return f"{target.url} does not hold what was sent: {first_of(differences, 5)}."


def first_of(items: Sequence[object], limit: int, separator: str = "; ", what: str = "more") -> str:
    """The first few, and how many more there are."""
    rest = f" and {len(items) - limit:,} {what}" if len(items) > limit else ""
    return separator.join(str(item) for item in items[:limit]) + rest
