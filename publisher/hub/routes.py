"""The two routes of a push: where it works, and how what it proved comes to where users look.

*Direct*: the branch of a private repository itself. *Draft*: a pull request, a staging branch or a second tree beside
what users see, which lands in one step. What a person was shown before the push is what it may change: a commit of
somebody else on the way ends it by name, unless all that it did is in the manifest or was undone. Running again shows
what would change now.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from publisher.hub.changes import changes, sight
from publisher.hub.comparison import verify
from publisher.hub.target import (
    HUBS_OWN,
    MAIN,
    Draft,
    MovedError,
    Settings,
    Target,
    TransientHubError,
    stricter,
)
from publisher.hub.work import DIRECT, DRAFT, Work, first_of, next_step, unlike
from publisher.manifest import Difference


@dataclass(slots=True, kw_only=True)
class Routes(Work):
    """One push on its way.

    Args:
        told: what the update changes was written into the log.
        sighted: what differed where users look when this push first looked, which is what it may change.
        landed: the draft was merged.
    """

    told: bool = False
    landed: bool = False
    sighted: frozenset[str] = field(default_factory=frozenset)

    def choose(self, current: Settings) -> None:
        """Look at what users see, tell what changes, and take a route."""
        there = self._branch_exists()
        base = self.landing.head() if there else None
        self.sighted = self._sight(there)
        self._require_agreed()
        self._tell_changes(current)
        if self._needs_draft(current):
            self._open_draft(current)
            if self.draft is not None and self.draft.base is not None and base is not None:
                self._require_known(base, self.draft.base)
            self.head = self.place.head()
        else:
            self._open_branch(current)
            self.head = base or self.place.head()

    def differences(self, place: Target) -> list[Difference]:
        """Every way in which a place is not the manifest."""
        return verify(place, self.manifest)

    def land(self) -> None:
        """Bring the draft to where users look, once, and see that it is there; what is there already stays.

        Raises:
            MovedError: somebody else changed what they see.
            HubError: it did not land.
        """
        try:
            self.attempt(self._land)
        except TransientHubError as error:
            others = self._others(self.draft.base) if self.landed and self.draft is not None else ""
            if not others:
                raise
            raise MovedError(
                f"{self.landing.url} was changed in the moment in which this push landed: {others}. Users see both: "
                f"{error.message}",
                hint="See what was changed; the same command, run again, tells first what it would take away.",
            ) from None
        self.place, self.head = self.landing, self.landing.head()

    # --- details ---------------------------------------------------------------------------------------------------

    def _branch_exists(self) -> bool:
        return self.landing.revision == MAIN or self.landing.revision in self.target.branches()

    def _sight(self, there: bool) -> frozenset[str]:
        return sight(self.landing if there else None, self.manifest)

    def _require_agreed(self) -> None:
        """Refuse a place that is not what a person was shown before they agreed to change it."""
        agreed = self.publication.agreed
        later = sorted(self.sighted - agreed) if agreed is not None else []
        if later:
            raise MovedError(
                f"{self.landing.url} was changed after you were asked: {first_of(later, 3)}. This push sent nothing.",
                hint="Run the same command again; it shows what would change now.",
            )

    def _require_known(self, base: str, now: str | None) -> None:
        """Refuse what users see now, unless it differs from the manifest in nothing that was not there before."""
        if now == base:
            return
        later = sorted(self._sight(self._branch_exists()) - self.sighted)
        if later:
            who = self._others(base) or "its branch was moved"
            raise self.moved(self.landing, f"{who}: {first_of(later, 3)}", now)

    def _others(self, base: str | None) -> str:
        """Who committed what to where users look since a commit, but for pushes of these files."""
        later = self.landing.history(base)
        mark, title = self.publication.mark, f"Publish {self.publication.key}"
        theirs = [commit for commit in later if mark not in commit.message and not commit.title.startswith(title)]
        return "; ".join(f"{commit.author or 'somebody'} committed {commit.title!r}" for commit in theirs[:3])

    def _tell_changes(self, current: Settings) -> None:
        """Write into the log what an update changes of what is there."""
        if self.told or not self._branch_exists() or not self.landing.tree().keys() - HUBS_OWN:
            return
        self.told = True
        found = changes(self.landing, self.publication, current)
        if found:
            names = first_of(found.files, 3, ", ", "more file(s)") or "settings"
            self.tell("log", f"This update: {names}.", changes=list(found.lines()))

    def _needs_draft(self, current: Settings) -> bool:
        """Whether the change must be proven beside what users see."""
        if current.private and not self.publication.propose:
            return False
        return not self._branch_exists() or bool(self.differences(self.landing))

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
        if not self.landed or self._unmoved(self.draft):
            self.draft = self._still_fitting(self.draft)
            self.guard()
            self.landing.land(self.draft, message=f"Publish {self.publication.key}")
            self.landed = True
        different = self.differences(self.landing)
        if different:
            raise TransientHubError(unlike(self.landing, different), hint=next_step(different))

    def _unmoved(self, draft: Draft) -> bool:
        """Whether what users see is still what the draft starts from: a success that was none."""
        return draft.base is not None and self.landing.head() == draft.base

    def _still_fitting(self, draft: Draft) -> Draft:
        """The draft, if what users see is still what it starts from, or differs from that in nothing that matters."""
        now = self.landing.head()
        if draft.base is None or now in (draft.base, None):
            return draft
        self._require_known(draft.base, now)
        return replace(draft, base=now)
