"""What a push would do, found by reading only: the dry run.

It runs the same preflight and the same comparison as the push, so it names the problems that would stop it, the files
that each step would send, what would be removed, and whether a public repository would be hidden meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub.comparison import compare, everything, groups, local_problems
from publisher.hub.target import Publication, Settings, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Intended:
    """What a push would do, found without changing anything.

    Args:
        problems: what would stop it.
        current: the settings now; None when the repository would be created.
        hide: the repository is public and would be private while it changes.
        groups: step name to the files it would send, in order.
        remove: stale files it would delete.
        bytes: what would be sent.
    """

    problems: tuple[PublisherError, ...]
    current: Settings | None
    wanted: Settings
    hide: bool
    groups: Mapping[str, tuple[str, ...]]
    remove: tuple[str, ...]
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The intention as a JSON object."""
        return {
            "problems": [{"message": item.message, "hint": item.hint} for item in self.problems],
            "current": None if self.current is None else str(self.current),
            "wanted": str(self.wanted),
            "hide": self.hide,
            "groups": {name: list(paths) for name, paths in self.groups.items()},
            "remove": list(self.remove),
            "bytes": self.bytes,
        }


def intend(target: Target, publication: Publication) -> Intended:
    """What `push` would do now; it reads the target and changes nothing."""
    problems = local_problems(publication) + target.preflight(publication)
    unreachable = any(isinstance(problem, AccessError | HubError) for problem in problems)
    current = None if unreachable else target.settings()
    found = compare(target, everything(publication.manifest)) if current else None
    entries = everything(publication.manifest)
    wrong = {item.path for item in found if item.kind != "unexpected"} if found is not None else set(entries)
    stale = tuple(item.path for item in found or () if item.kind == "unexpected")
    return Intended(
        problems=tuple(problems),
        current=current,
        wanted=publication.settings,
        hide=current is not None and not current.private and bool(wrong or stale),
        groups={
            name: tuple(entry.path for entry in group if entry.path in wrong)
            for name, group in groups(publication.manifest).items()
        },
        remove=stale,
        bytes=sum(entries[path].size for path in wrong),
    )
