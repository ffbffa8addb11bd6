"""What a Hub that says no means, and what to do about it: gated, private, missing, the token, the rate, an outage.

The same sentences whether the refusal was read off a reply or raised by the Hub client's own download.
"""

from __future__ import annotations

from collections.abc import Mapping

from publisher.errors import AccessError, CheckpointError, HubError, PublisherError

FOREIGN_HINT = "Check HF_ENDPOINT, and whether a proxy or a login page stands between, then run again."


def gated(repo: str, *, login: bool | None = None, detail: str = "") -> AccessError:
    """Refused by a gate; `login` says whether a token was sent, None when unknown."""
    page = f"Accept its terms, or ask for access, in a browser at the page of {repo}"
    if login is False:
        return AccessError(
            f"{repo} is gated and there is no login here.",
            hint=f"{page}, then log in here with `hf auth login` or set HF_TOKEN.",
        )
    return AccessError(
        f"{repo} is gated and this login has no access{_after(detail)}.",
        hint=f"{page} as the account of this login (`hf auth whoami`), wait until it is granted, then run again; "
        "a fine-grained token also needs the permission to read gated repositories.",
    )


def missing(repo: str) -> AccessError:
    """No such repository, or one that does not show itself to this login."""
    return AccessError(
        f"There is no repository {repo}, or it is private and this login may not see it.",
        hint="Check the name; for a private repository set HF_TOKEN or run `hf auth login`.",
    )


def no_revision(repo: str, revision: str | None) -> CheckpointError:
    """The repository has no such branch, tag or commit."""
    return CheckpointError(f"{repo} has no revision {revision}.", hint="Name a branch, tag or commit.")


def foreign(repo: str, what: str) -> HubError:
    """What answered is not a Hub; `what` says how it showed."""
    return HubError(f"What answered for {repo} does not speak as the Hub does ({what}).", hint=FOREIGN_HINT)


def by_status(repo: str, status: int | None, detail: str = "") -> PublisherError:
    """A refusal with nothing but a status to go by."""
    if status in (401, 403):
        return AccessError(
            f"The Hub refuses access to {repo} ({status}{': ' + detail if detail else ''}).",
            hint="Check the token's scopes with `hf auth whoami`.",
        )
    return HubError(f"The Hub answered {status} for {repo}{': ' + detail if detail else ''}.", hint="Run again later.")


def from_reply(
    repo: str, revision: str | None, status: int, headers: Mapping[str, str], detail: str, *, login: bool
) -> PublisherError:
    """The error a reply stands for, by the `X-Error-Code` and `X-Error-Message` of the Hub.

    Args:
        repo: `org/name`.
        revision: what was asked for.
        status: 400 or more.
        headers: the reply's.
        detail: what its body says.
        login: whether a token was sent.
    """
    code, message = headers.get("X-Error-Code"), headers.get("X-Error-Message") or detail
    detail = " ".join(message.split())[:300]
    if code == "GatedRepo":
        return gated(repo, login=login, detail=detail)
    if code == "RevisionNotFound":
        return no_revision(repo, revision)
    if message == "Access to this resource is disabled.":
        return AccessError(f"The Hub has disabled {repo}.", hint=f"The page of {repo} says why.")
    if "Invalid credentials" in message or (status == 401 and login):
        return AccessError(
            f"The Hub does not know this token ({status}{': ' + detail if detail else ''}).",
            hint="Log in again with `hf auth login`, or correct HF_TOKEN; public repositories need neither.",
        )
    if code == "RepoNotFound" or status == 401 or (status == 404 and code != "EntryNotFound"):
        return missing(repo)
    if code == "EntryNotFound":
        return HubError(
            f"The Hub lists a file of {repo} that it does not have: {detail}.", hint="Run again; ask the owner."
        )
    return by_status(repo, status, detail)


def _after(detail: str) -> str:
    return f" ({detail.rstrip('.')})" if detail else ""
