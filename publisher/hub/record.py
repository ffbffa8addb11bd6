"""What a push did and what it proved: `push.json` of the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRecord:
    """What a push did and what it proved.

    Args:
        target: `folder` or `hf`.
        route: `direct`, or `draft` where everything was proven beside what users see.
        commit: of the revision that was published; None where the target keeps no commits.
        revision: the branch; of a proposal, the pull request's.
        tag: the tag that points at the commit; None for none.
        pull_request: address of the pull request that was used; None for none.
        released: users see these files now; False for a pull request that waits to be merged.
        steps: name, start (seconds since the epoch) and duration (seconds) of every step.
        sent: paths that were transferred by this run, in order; empty when everything was there.
        removed: stale paths that were deleted.
        verified: the tree read back equals the manifest and the settings are those asked for.
        verified_at: seconds since the epoch.
    """

    target: str
    repo: str
    url: str
    route: str
    commit: str | None
    revision: str
    tag: str | None
    pull_request: str | None
    released: bool
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
