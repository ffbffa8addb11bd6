"""The push: one list of steps that fills a target, proves it and only then shows it.

There are two routes. *Direct*: the repository is private, is filled on its own branch, is proven, and then one call
sets gate and visibility together. *Draft*: the repository is public; a pull request (or a staging branch, or a second
tree) beside what users see is filled and proven there, and then lands in one step. A public repository is never
hidden because it changes, unless `--private` was asked for. A new repository for which private storage is too small
takes the second route from an empty, gated start. A gate that becomes stricter is set before anything is sent, one
that becomes looser after everything is proven. So no state is public and partial, and none is public and ungated.

What is sent is what the tree lacks, weights first; everything that makes them loadable comes in one last commit,
which also removes what is stale. What counts as sent is what the tree shows: a reply that was lost and a success that
was none are both settled by looking, at the tree and at who made the commits since. Every commit names its parent, so
of two pushes one is refused and told who was faster. A push that failed anywhere goes on when it is run again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from publisher.errors import HubError, PublisherError
from publisher.hub import preflight
from publisher.hub.changes import changes
from publisher.hub.comparison import everything, verify
from publisher.hub.patience import Patience
from publisher.hub.record import PushRecord
from publisher.hub.staging import stage_publicly, too_large_for_private
from publisher.hub.target import (
    DERIVED,
    HUBS_OWN,
    MAIN,
    MovedError,
    Publication,
    QuotaError,
    Settings,
    Target,
    TransientHubError,
    stricter,
)
from publisher.hub.work import AGAIN, DIRECT, DRAFT, Emit, Work, portions, unlike
from publisher.manifest import Difference

WAIT = 2.0  # seconds before the second attempt; doubled each time
LEFT_OUT = frozenset({"merge", "release", "settings", "tag"})  # steps that a proposal does not take
ROUNDS = 3  # times a push begins again because somebody else moved what it builds on


def _silent(_kind: str, _payload: Mapping[str, object]) -> None:
    """Tell nobody."""


def push(
    target: Target,
    publication: Publication,
    *,
    emit: Emit = _silent,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
    chance: Callable[[], float] = random.random,
) -> PushRecord:
    """Publish, or find out that it is published already.

    Args:
        target: where to, looking at its default branch.
        publication: what, and with which settings at the end.
        emit: told of every event as (kind, payload); kinds as in the journal.
        sleep: waits between attempts, in seconds.
        clock: seconds since the epoch.
        chance: a number from 0 to 1, to spread the waits.

    Raises:
        AccessError: no token, or no permission.
        MovedError: somebody else changed the repository meanwhile.
        HubError: the target failed, or does not hold what was sent; nobody sees it then.
        CheckpointError: the folder is not what its manifest says.
    """
    patience = Patience(sleep=sleep, first=WAIT, chance=chance)
    run = _Push(target=target, publication=publication, emit=emit, patience=patience, clock=clock)
    run.perform("preflight", _Push.preflight)
    with target.hold():
        run.work()
    return run.record()


@dataclass(slots=True, kw_only=True)
class _Push(Work):
    """The steps.

    Args:
        told: what the update changes was written into the log.
        staged: this push made an empty repository public behind a gate, because private storage is too small.
        shown: users see what was proven.
        tagged: the tag that was set, or was there.
    """

    staged: bool = False
    told: bool = False
    shown: bool = False
    landed: bool = False
    tagged: str | None = None

    def preflight(self) -> None:
        """Collect every problem, then refuse."""
        preflight.require(self.target, self.publication)

    def repository(self) -> None:
        """Have a place to work at that nobody is harmed by: a private repository, or a draft in a public one."""
        if self.target.settings() is None:
            self.attempt(self.target.create_private)
            if too_large_for_private(self.target, self.publication):
                self.staged = stage_publicly(self, "These files are more than the account's private storage.")
        current = self.settings()
        self.found = True
        if not current.private and self.publication.private:
            self.tell("warning", f"{self.target.repo} is public; it becomes private, as asked, before it changes.")
            current = self.set(Settings(private=True, gate=current.gate))
        self._tell_changes(current)
        if self._needs_draft(current):
            self._open_draft(current)
        else:
            self._open_branch(current)
        self.head = self.place.head()

    def weights(self) -> None:
        """Send what the place lacks of the weights, in portions that are a commit each."""
        for portion in portions(self.group("weights")):
            self.send(portion, message="Add weights")

    def digests(self) -> None:
        """The weights are stored as the manifest says."""

        def look() -> None:
            self.adopt()
            wanted = {entry.path: entry for entry in self.group("weights")}
            wrong, _ = self.lacking(wanted)
            self.require([item for item in self.differences(self.place) if item.path in wrong])

        self.attempt(look)

    def last_commit(self) -> None:
        """Send everything that makes the weights loadable, and remove what is stale, in one commit."""
        self.send(self.group("last commit"), message=f"Publish {self.publication.key}", clean=True)

    def read_back(self) -> None:
        """The whole tree equals the manifest."""

        def look() -> None:
            self.adopt()
            self.require(self.differences(self.place))

        self.attempt(look)

    def merge(self) -> None:
        """Land the draft and look at what users see now; a proposal waits to be merged."""
        if self.draft is None:
            return
        draft = self.draft
        if self.publication.propose:
            self.tell("log", f"{draft.url} holds everything, proven; it waits to be merged.", url=draft.url)
            return
        try:
            self.attempt(self._land)
        except TransientHubError as error:
            if self.landed and self.landing.head() != self.head:
                raise self.moved(self.landing, error.message, self.landing.head()) from None
            raise
        self.place, self.head, self.shown = self.landing, self.landing.head(), True
        self.attempt(lambda: self.landing.close_draft(draft, reason="It has landed."))

    def release(self) -> None:
        """Gate and show, in one call, unless that is how it is."""
        wanted = self.publication.settings
        if self.publication.propose or self.settings() == wanted:
            return
        if self.route == DIRECT:
            self.adopt()
            self.require(self.differences(self.place))
        self.shown = True
        self.attempt(lambda: self.target.release(wanted))

    def settings_read_back(self) -> None:
        """Settings, tree and card are those asked for; otherwise nobody sees them."""
        if self.publication.propose:
            return
        wanted = self.publication.settings
        found = self.settled(wanted)
        if found != wanted:
            raise self._hidden(f"{self.target.url} is {found} after {wanted} was asked for")
        different = self.differences(self.landing)
        if different:
            self.adopt()  # whoever changed what was proven is named; what they made is not this push's to hide
            raise self._hidden(unlike(self.landing, different).rstrip("."))

    def tag(self) -> None:
        """Tag the commit that was released, and see that the tag points at it."""
        if self.publication.tag_name is not None and not self.publication.propose and self.target.keeps_revisions:
            self.attempt(self._tag)

    # --- the order -------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """The steps in order; again from the first one where somebody else moved a public repository's branch."""
        for number in range(1, ROUNDS + 1):
            try:
                for name, step in STEPS[1:]:
                    self.perform(name, step)
                return
            except QuotaError as error:
                self.staged = stage_publicly(self, error.message, error)
            except MovedError as error:
                if self.shown or self.closed is None or self.closed.private or number == ROUNDS:
                    self.fail()
                    raise
                self.told = False  # what it changes is another thing now
                self.tell("warning", f"{error.message} Round {number + 1} of {ROUNDS} begins from there.")
            except PublisherError:
                self.fail()
                if self.vanished():
                    raise self.gone() from None
                raise

    def fail(self) -> None:
        """After a failure: nobody sees what was not proven."""
        if not self.shown:
            self.secure()

    def perform(self, name: str, step: Callable[[_Push], None]) -> None:
        """Run one step and note when and how long."""
        self.step, start = name, self.clock()
        self.emit("start", {"step": name})
        step(self)
        seconds = round(self.clock() - start, 3)
        self.done.append({"name": name, "time": start, "seconds": seconds})
        if self.publication.propose and name in LEFT_OUT:
            self.emit("skip", {"step": name, "message": f"{name}: left out by --create-pr"})
        else:
            self.emit("done", {"step": name, "seconds": seconds})

    def record(self) -> PushRecord:
        """What was done and proved; only a run that passed every step gets here."""
        entries = everything(self.manifest)
        settings = self.settings() if self.publication.propose else self.publication.settings
        return PushRecord(
            target=self.target.kind,
            repo=self.target.repo,
            url=self.target.url,
            route=self.route,
            commit=self.head,
            revision=self.place.revision,
            tag=self.tagged,
            pull_request=self.draft.url if self.draft and self.draft.number else None,
            released=not (self.publication.propose and self.draft),
            gate=settings.gate,
            visibility=settings.visibility,
            files=len(entries),
            bytes=sum(entry.size for entry in entries.values()),
            root_digest=self.manifest.root_digest,
            sent=tuple(self.sent),
            removed=tuple(self.removed),
            steps=tuple(self.done),
            verified=True,
            verified_at=self.clock(),
        )

    # --- details ---------------------------------------------------------------------------------------------------

    def differences(self, place: Target) -> list[Difference]:
        """Every way in which a place is not the manifest."""
        return verify(place, self.manifest)

    def _tell_changes(self, current: Settings) -> None:
        """Write into the log what an update changes of what is there."""
        if self.told or not self._branch_exists() or not self.landing.tree().keys() - HUBS_OWN:
            return
        self.told = True
        found = changes(self.landing, self.publication, current)
        if found:
            names = [str(item) for item in found.files[:3]]
            rest = f" and {len(found.files) - 3:,} more file(s)" if len(found.files) > 3 else ""
            self.tell("log", f"This update: {', '.join(names) or 'settings'}{rest}.", changes=list(found.lines()))

    def _needs_draft(self, current: Settings) -> bool:
        """Whether the change must be proven beside what users see."""
        if current.private and not self.publication.propose:
            return False
        return not self._branch_exists() or bool(self.differences(self.landing))

    def _branch_exists(self) -> bool:
        return self.landing.revision == MAIN or self.landing.revision in self.target.branches()

    def _open_draft(self, current: Settings) -> None:
        closed = Settings(private=current.private, gate=stricter(current.gate, self.publication.gate))
        if closed != current and not current.private:
            self.tell("log", f"The gate becomes {closed.gate} before anything is sent; it was {current.gate}.")
            self.set(closed)
        self.route, self.closed, self.landed = DRAFT, closed, False

        def take() -> None:
            self.draft = self.landing.find_draft(self.publication) or self.landing.open_draft(self.publication)

        self.attempt(take)
        if self.draft is not None:
            how = "goes on in" if self.draft.reused else "is prepared in"
            self.tell("log", f"The change {how} {self.draft.url}; users see it when it is proven.", url=self.draft.url)
            self.place = self.target.at(self.draft.revision)

    def _open_branch(self, current: Settings) -> None:
        self.route, self.closed, self.draft, self.place = DIRECT, current, None, self.landing
        if not self._branch_exists():
            start = self.target.at(MAIN).head()
            self.attempt(lambda: self.target.create_branch(self.landing.revision, start))

    def _land(self) -> None:
        if self.draft is None or (self._branch_exists() and not self.differences(self.landing)):
            return
        if not self.landed:
            now = self.landing.head()
            if self.draft.base is not None and now not in (self.draft.base, None):
                raise self._overtaken(self.draft.base, now)
            self.guard()
            self.landing.land(self.draft, message=f"Publish {self.publication.key}")
            self.landed = True
        self.require(self.differences(self.landing))

    def _overtaken(self, base: str, now: str | None) -> MovedError:
        later = self.landing.history(base)
        who = "; ".join(f"{commit.author or 'somebody'} committed {commit.title!r}" for commit in later[:3])
        return self.moved(self.landing, who or "its branch was moved", now)

    def _tag(self) -> None:
        name, commit = self.publication.tag_name or "", self.head  # what was proven, whatever came after it
        move = self.publication.tag == DERIVED
        if commit is None:
            raise TransientHubError(f"{self.landing.url} has no commit to tag.", hint=AGAIN)
        found = self.target.tags().get(name)
        if found not in (None, commit) and not move and not self.differences(self.target.at(found or "")):
            self.tagged = name  # given to an earlier commit of the same files
            return
        self.target.set_tag(name, commit, message=self.publication.mark, move=move)
        found = self.target.tags().get(name)
        if found != commit:
            raise TransientHubError(
                f"{self.target.url} is published; its tag {name} points at {found}, not at {commit}.", hint=AGAIN
            )
        self.tagged = name

    def _hidden(self, what: str) -> HubError:
        """The error of a repository that did not end as it should; where it was hidden before, it is hidden again."""
        found = self.settings()
        if not found.private and (self.route == DIRECT or (found.open and not self.publication.settings.open)):
            self.attempt(self.target.hide)
        state = "left private" if self.settings().private else f"left {self.settings()}"
        return HubError(f"{what}; it was {state}.", hint="Look at the repository, then run the same command again.")


STEPS: tuple[tuple[str, Callable[[_Push], None]], ...] = (
    ("preflight", _Push.preflight),
    ("repository", _Push.repository),
    ("weights", _Push.weights),
    ("digests", _Push.digests),
    ("last commit", _Push.last_commit),
    ("read back", _Push.read_back),
    ("merge", _Push.merge),
    ("release", _Push.release),
    ("settings", _Push.settings_read_back),
    ("tag", _Push.tag),
)
