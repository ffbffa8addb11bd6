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
of two pushes one is refused and told who was faster: a person agreed to change what was there, and to nothing that
came later. A step that has nothing to do on a route says so, with the reason. A push that failed anywhere goes on when
it is run again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from publisher.errors import HubError, PublisherError
from publisher.hub import preflight
from publisher.hub.comparison import everything
from publisher.hub.patience import Patience
from publisher.hub.record import PushRecord
from publisher.hub.routes import Routes
from publisher.hub.staging import stage_publicly, too_large_for_private
from publisher.hub.target import DERIVED, Publication, QuotaError, Settings, Target, TransientHubError
from publisher.hub.work import AGAIN, DIRECT, Emit, portions, unlike

WAIT = 2.0  # seconds before the second attempt; doubled each time
LEFT_OUT = "left out by --create-pr"


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
        MovedError: somebody else changed the repository meanwhile, or after a person was asked.
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
class _Push(Routes):
    """The steps; each tells why it has nothing to do, where it has not.

    Args:
        staged: this push made an empty repository public behind a gate, because private storage is too small.
        shown: users see what was proven.
        tagged: the tag that was set, or was there.
    """

    staged: bool = False
    shown: bool = False
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
        self.choose(current)

    def weights(self) -> str | None:
        """Send what the place lacks of the weights, in portions that are a commit each."""
        before, wanted = self.commits, self.group("weights")
        for portion in portions(wanted):
            self.send(portion, message="Add weights")
        return f"all {len(wanted):,} file(s) are there already" if self.commits == before else None

    def digests(self) -> None:
        """The weights are stored as the manifest says."""

        def look() -> None:
            self.adopt()
            wanted = {entry.path: entry for entry in self.group("weights")}
            wrong, _ = self.lacking(wanted)
            self.require([item for item in self.differences(self.place) if item.path in wrong])

        self.attempt(look)

    def last_commit(self) -> str | None:
        """Send everything that makes the weights loadable, and remove what is stale, in one commit."""
        before = self.commits
        self.send(self.group("last commit"), message=f"Publish {self.publication.key}", clean=True)
        return "everything else is there already, and nothing is stale" if self.commits == before else None

    def read_back(self) -> None:
        """The whole tree equals the manifest."""

        def look() -> None:
            self.adopt()
            self.require(self.differences(self.place))

        self.attempt(look)

    def merge(self) -> str | None:
        """Land the draft and look at what users see now; a proposal waits to be merged."""
        draft = self.draft
        if self.publication.propose:
            if draft is not None:
                self.tell("log", f"{draft.url} holds everything, proven; it waits to be merged.", url=draft.url)
            return LEFT_OUT
        if draft is None:
            hidden = self.closed is None or self.closed.private
            why = "the repository was private while it was filled" if hidden else "users see these files already"
            return f"nothing to merge: {why}"
        self.land()
        self.shown = True
        self.attempt(lambda: self.landing.close_draft(draft, reason="It has landed."))
        return None

    def release(self) -> str | None:
        """Gate and show, in one call, unless that is how it is."""
        wanted = self.publication.settings
        if self.publication.propose:
            return LEFT_OUT
        if self.settings() == wanted:
            return f"it is {wanted} already"
        if self.route == DIRECT:
            self.adopt()
            self.require(self.differences(self.place))
        self.shown = True
        self.attempt(lambda: self.target.release(wanted))
        return None

    def settings_read_back(self) -> str | None:
        """Settings, tree and card are those asked for; otherwise nobody sees them."""
        if self.publication.propose:
            return LEFT_OUT
        wanted = self.publication.settings
        found = self.settled(wanted)
        if found != wanted:
            raise self._hidden(f"{self.target.url} is {found} after {wanted} was asked for")
        different = self.differences(self.landing)
        if different:
            self.adopt()  # whoever changed what was proven is named; what they made is not this push's to hide
            raise self._hidden(unlike(self.landing, different).rstrip("."))
        return None

    def tag(self) -> str | None:
        """Tag the commit that was released, and see that the tag points at it."""
        if self.publication.propose:
            return LEFT_OUT
        if not self.target.keeps_revisions:
            return "a folder keeps no tags"
        if self.publication.tag_name is None:
            return "left out by --no-tag"
        self.attempt(self._tag)
        return None

    # --- the order -------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """The steps in order; once more from the first one where private storage turned out to be too small."""
        try:
            try:
                self._take_steps()
            except QuotaError as error:
                self.staged = stage_publicly(self, error.message, error)
                self._take_steps()
        except PublisherError:
            if not self.shown:  # nobody sees what was not proven
                self.secure()
            if self.vanished():
                raise self.gone() from None
            raise

    def _take_steps(self) -> None:
        for name, step in STEPS[1:]:
            self.perform(name, step)

    def perform(self, name: str, step: Callable[[_Push], str | None]) -> None:
        """Run one step and note when, how long, and why it had nothing to do."""
        self.step, start = name, self.clock()
        self.emit("start", {"step": name})
        nothing = step(self)
        seconds = round(self.clock() - start, 3)
        skipped = {} if nothing is None else {"skipped": nothing}
        self.done.append({"name": name, "time": start, "seconds": seconds, **skipped})
        if nothing is None:
            self.emit("done", {"step": name, "seconds": seconds})
        else:
            self.emit("skip", {"step": name, "message": f"{name}: {nothing}", "reason": nothing})

    def record(self) -> PushRecord:
        """What was done and proved; only a run that passed every step gets here."""
        entries = everything(self.manifest)
        settings = self.settings() if self.publication.propose else self.publication.settings
        return PushRecord(
            target=self.target.kind,
            repo=self.target.repo,
            url=self.target.url if self.publication.propose else self.landing.url,
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


STEPS: tuple[tuple[str, Callable[[_Push], str | None]], ...] = (
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
