"""What a push would do, found by reading only: the dry run.

It runs the same preflight and the same comparison as the push and takes the same route, so it names the problems that
would stop it, what an update changes, and every request that would change something, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub import preflight
from publisher.hub.changes import Changes, changes, sight
from publisher.hub.comparison import compare, everything, groups
from publisher.hub.staging import GATED, SHOWN, too_large_for_private
from publisher.hub.target import DERIVED, MAIN, Draft, Publication, Settings, Target, stricter
from publisher.hub.work import DIRECT, DRAFT, portions
from publisher.manifest import Difference
from publisher.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One request that would change something; `N` stands for the number of a pull request that is not open yet."""

    request: str
    does: str

    def to_json(self) -> dict[str, Any]:
        """The act as a JSON object."""
        return {"request": self.request, "does": self.does}


@dataclass(frozen=True, slots=True, kw_only=True)
class Intended:
    """What a push would do, found without changing anything.

    Args:
        problems: what would stop it.
        current: the settings now; None when the repository would be created.
        route: `direct`, or `draft` where it would be proven beside what users see.
        groups: step name to the files it would send, in order.
        remove: stale files it would delete.
        bytes: what would be sent.
        acts: every request that would change something.
        changes: what an update changes; None where there is nothing to compare with.
        seen: what differs now, line by line; a push that is given it as agreed stops where it finds anything else.
    """

    problems: tuple[PublisherError, ...]
    current: Settings | None
    wanted: Settings
    route: str
    groups: Mapping[str, tuple[str, ...]]
    remove: tuple[str, ...]
    bytes: int
    acts: tuple[Act, ...]
    changes: Changes | None
    seen: frozenset[str]

    def to_json(self) -> dict[str, Any]:
        """The intention as a JSON object."""
        return {
            "problems": [{"message": item.message, "hint": item.hint} for item in self.problems],
            "current": None if self.current is None else str(self.current),
            "wanted": str(self.wanted),
            "route": self.route,
            "groups": {name: list(paths) for name, paths in self.groups.items()},
            "remove": list(self.remove),
            "bytes": self.bytes,
            "requests": [act.to_json() for act in self.acts],
            "changes": None if self.changes is None else self.changes.to_json(),
            "changed": list(self.changes.lines()) if self.changes else [],
            "seen": sorted(self.seen),
        }


def intend(target: Target, publication: Publication) -> Intended:
    """What `push` would do now; it reads the target and changes nothing."""
    problems = preflight.problems(target, publication)
    unreachable = any(isinstance(problem, AccessError | HubError) for problem in problems)
    outlook = _Outlook(target, publication, None if unreachable else target.settings())
    acts = () if unreachable else tuple(outlook.acts())
    entries = everything(publication.manifest)
    return Intended(
        problems=tuple(problems),
        current=outlook.current,
        wanted=publication.settings,
        route=outlook.route,
        groups={
            name: tuple(entry.path for entry in group if entry.path in outlook.wrong)
            for name, group in groups(publication.manifest).items()
        },
        remove=tuple(outlook.stale),
        bytes=sum(entries[path].size for path in outlook.wrong),
        acts=acts,
        changes=changes(outlook.landing, publication, outlook.current) if outlook.there else None,
        seen=sight(outlook.landing if outlook.there else None, publication.manifest),
    )


class _Outlook:
    """The route of a push and what it would find on it, as the target is now."""

    def __init__(self, target: Target, publication: Publication, current: Settings | None) -> None:
        self.target, self.publication, self.current = target, publication, current
        self.landing = target.at(publication.revision)
        revision = publication.revision
        self.there = current is not None and (revision == MAIN or revision in target.branches())
        self.staged = current is None and too_large_for_private(target, publication)
        entries = everything(publication.manifest)
        self.wrong, self.stale = set(entries), list[str]()
        seen = self._see(self.landing) if self.there else None
        public = self.staged or (current is not None and not current.private and not publication.private)
        differs = seen is None or bool(seen)
        self.route = DRAFT if differs and (public or publication.propose) else DIRECT
        self.draft: Draft | None = None
        if self.route == DRAFT and current is not None:
            self.draft = self.landing.find_draft(publication)
            if self.draft is not None:
                self._see(target.at(self.draft.revision))

    def _see(self, place: Target) -> list[Difference]:
        found = compare(place, everything(self.publication.manifest))
        self.wrong = {item.path for item in found if item.kind != "unexpected"}
        self.stale = [item.path for item in found if item.kind == "unexpected"]
        return found

    # --- the acts, in the order of the push ------------------------------------------------------------------------

    def acts(self) -> Iterator[Act]:
        """Every request that would change something."""
        settings = self.current
        if settings is None:
            yield self._act("POST /api/repos/create", f"create {self.target.repo}, private")
            settings = Settings(private=True, gate="off")
        if self.staged:
            yield self._set(GATED, "gate it while it is private and empty, because private storage is too small")
            yield self._set(SHOWN, "show it, empty and gated")
            settings = SHOWN
        if not settings.private and self.publication.private:
            settings = Settings(private=True, gate=settings.gate)
            yield self._set(settings, "make it private, as asked, before it changes")
        if self.route == DRAFT:
            closed = Settings(private=settings.private, gate=stricter(settings.gate, self.publication.gate))
            if closed != settings and not settings.private:
                yield self._set(closed, "close the gate before anything is sent")
                settings = closed
            yield from self._drafted()
        else:
            yield from self._direct()
        if self.publication.propose:
            return
        if settings != self.publication.settings:
            yield self._set(self.publication.settings, f"from {settings}, in one call")
        yield from self._tag()

    def _direct(self) -> Iterator[Act]:
        revision = self.publication.revision
        if not self.there and revision != MAIN:
            yield self._act(f"POST {self._api}/branch/{quote(revision, safe='')}", f"create the branch {revision}")
        yield from self._commits(revision)

    def _drafted(self) -> Iterator[Act]:
        if not self.target.keeps_revisions:
            yield self._act("", "prepare a second tree beside the published one")
            yield from self._commits(MAIN)
            yield self._act("", "swap the two trees in one step")
            return
        branch = self.publication.revision != MAIN
        staging = quote(f"publisher-staging-{self.publication.key}", safe="")
        number = self.draft.number if self.draft is not None else "N"
        if self.draft is None:
            request = f"POST {self._api}/branch/{staging}" if branch else f"POST {self._api}/discussions"
            yield self._act(request, f"open {'a staging branch' if branch else 'a pull request'}")
        yield from self._commits(staging if branch else f"refs/pr/{number}")
        if self.publication.propose:
            return
        if branch:
            yield from self._land_branch(staging)
            return
        yield self._act(f"POST {self._api}/discussions/{number}/status", "open it for merging, when all is proven")
        yield self._act(f"POST {self._api}/discussions/{number}/merge", "merge: users see everything at once")

    def _land_branch(self, staging: str) -> Iterator[Act]:
        name = quote(self.publication.revision, safe="")
        what, how = ("commit", "make it what was proven") if self.there else ("branch", "create it, proven")
        yield self._act(f"POST {self._api}/{what}/{name}", how)
        yield self._act(f"DELETE {self._api}/branch/{staging}", "remove the staging branch")

    def _commits(self, revision: str) -> Iterator[Act]:
        """The commits of weights, then the last one."""
        name = quote(revision, safe="")
        for portion in portions(groups(self.publication.manifest)["weights"]):
            paths = [entry for entry in portion if entry.path in self.wrong]
            if paths:
                size = format_bytes(sum(entry.size for entry in paths))
                yield self._act(f"POST {self._api}/commit/{name}", f"{len(paths)} weight file(s), {size}")
        rest = [entry for entry in groups(self.publication.manifest)["last commit"] if entry.path in self.wrong]
        if rest or self.stale:
            size = format_bytes(sum(entry.size for entry in rest))
            gone = f", {len(self.stale)} stale file(s) removed" if self.stale else ""
            yield self._act(f"POST {self._api}/commit/{name}", f"{len(rest)} other file(s), {size}{gone}")

    def _tag(self) -> Iterator[Act]:
        name = self.publication.tag_name
        if name is None or not self.target.keeps_revisions:
            return
        found = self.target.tags().get(name) if self.current is not None else None
        unchanged = not self.wrong and not self.stale and self.there and self.route == DIRECT
        if found is not None and (self.publication.tag != DERIVED or (unchanged and found == self.landing.head())):
            return
        if found is not None:
            yield self._act(f"DELETE {self._api}/tag/{quote(name, safe='')}", "take the tag from an earlier commit")
        yield self._act(f"POST {self._api}/tag/COMMIT", f"tag the commit as {name}")

    @property
    def _api(self) -> str:
        return f"/api/models/{self.target.repo}"

    def _set(self, settings: Settings, why: str) -> Act:
        return self._act(f"PUT {self._api}/settings", f"{settings}: {why}")

    def _act(self, request: str, does: str) -> Act:
        return Act(request=request if self.target.kind == "hf" else "", does=does)
