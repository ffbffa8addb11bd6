"""Who asked for a gated repository: listing, deciding, and a table for other programs.

Requests are read and decided through the Hub client, one by one. A decision is proven: when a call fails, the Hub may
have taken it all the same, so the list it should have ended in is read before it counts as failed. What people wrote
into the gate's form is theirs: it is never logged, and in a table no cell can start a formula in a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from publisher.errors import HubError, PublisherError
from publisher.hub.huggingface import HuggingFaceTarget

State = Literal["pending", "accepted", "rejected"]
STATES: tuple[State, ...] = ("pending", "accepted", "rejected")
COLUMNS = ("user", "request", "name", "email", "state", "time")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
# Spreadsheets take these, after any spaces, for the start of a formula; the wide ones in East Asian versions.
_FORMULA = re.compile(r"^\s*[=+\-@|%＝＋－＠]|^[\t\r\n]")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """One request.

    Args:
        user: who asks; None where the repository hides names.
        identity: the request's own id; empty where the client does not give it.
        name: the full name.
        email: None for access that was granted without asking.
        state: pending, accepted or rejected.
        time: when it was made, ISO 8601.
        form: what was filled in, by the field's label.
    """

    user: str | None
    identity: str = ""
    name: str | None = None
    email: str | None = None
    state: State = "pending"
    time: str = ""
    form: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What to call it: the user, else the request's id."""
        return self.user or self.identity

    def to_json(self) -> dict[str, Any]:
        """The request as a JSON object."""
        return {
            "user": self.user,
            "request": self.identity or None,
            "name": self.name,
            "email": self.email,
            "state": self.state,
            "time": self.time,
            "form": {str(label): _text(value) for label, value in self.form.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What became of one request: `error` is None where the Hub holds it now."""

    label: str
    state: State
    error: PublisherError | None = None

    def to_json(self) -> dict[str, Any]:
        """The decision as a JSON object."""
        return {"who": self.label, "state": self.state, "error": self.error.message if self.error else None}


def requests(target: HuggingFaceTarget, states: Iterable[State] = ("pending",)) -> list[AccessRequest]:
    """The requests in some states, oldest first within each.

    Raises:
        AccessError: no login that may write to the repository.
        HubError: the repository is not gated, or the Hub fails.
    """
    return [item for state in states for item in _listed(target, state)]


def find(target: HuggingFaceTarget, labels: Sequence[str]) -> tuple[list[AccessRequest], list[str]]:
    """The requests of users (or with request ids), and the labels of which nobody asked."""
    found: dict[str, AccessRequest] = {}
    for state in STATES:
        if len(found) < len(set(labels)):
            for item in _listed(target, state):
                for label in {item.user, item.identity} & set(labels):
                    found.setdefault(str(label), item)
    return list({found[label].label: found[label] for label in labels if label in found}.values()), [
        label for label in dict.fromkeys(labels) if label not in found
    ]


def decide(
    target: HuggingFaceTarget, asked: Iterable[AccessRequest], state: State, *, reason: str | None = None
) -> Iterator[Decision]:
    """Accept or reject requests, one after the other; one that fails does not stop the others.

    Args:
        target: the repository.
        asked: the requests, as listed.
        state: accepted or rejected.
        reason: what people who are rejected are told.
    """
    for item in asked:
        who = {"user": item.user} if item.user else {"user": None, "request_id": item.identity}
        more = {"rejection_reason": reason} if state == "rejected" and reason else {}

        def call(api: Any, who: Mapping[str, Any] = who, more: Mapping[str, Any] = more) -> None:
            act = api.accept_access_request if state == "accepted" else api.reject_access_request
            act(target.repo, **who, **more)

        yield _proven(target, item.label, state, call)


def grant(target: HuggingFaceTarget, users: Iterable[str]) -> Iterator[Decision]:
    """Let users in who did not ask."""
    for user in users:

        def call(api: Any, user: str = user) -> None:
            api.grant_access(target.repo, user)

        yield _proven(target, user, "accepted", call)


def user_problem(name: str) -> PublisherError | None:
    """Why a word cannot name a user or a request, or None when it can."""
    if _USER.fullmatch(name):
        return None
    return PublisherError(f"{name[:96]!r} is no user of the Hub.", hint="Write the name as in the user's address.")


def table(found: Sequence[AccessRequest]) -> str:
    """The requests as CSV (RFC 4180), a column for every field of the form; no cell starts a formula."""
    labels = sorted({str(label) for item in found for label in item.form})
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow([*COLUMNS, *(cell(f"form: {label}") for label in labels)])
    for item in found:
        row = (item.user, item.identity, item.name, item.email, item.state, item.time)
        form = {str(label): value for label, value in item.form.items()}
        writer.writerow([*map(cell, row), *(cell(form.get(label)) for label in labels)])
    return out.getvalue()


def cell(value: Any) -> str:
    """A value as a spreadsheet shows it and never computes it: an apostrophe goes before what would be a formula."""
    text = _text(value).replace("\0", "")
    return f"'{text}" if _FORMULA.match(text) else text


# --- details -------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _listed(target: HuggingFaceTarget, state: State) -> list[AccessRequest]:
    def read(api: Any) -> list[AccessRequest]:
        lists = {
            "pending": api.list_pending_access_requests,
            "accepted": api.list_accepted_access_requests,
            "rejected": api.list_rejected_access_requests,
        }
        return [_request(item, state) for item in lists[state](target.repo)]

    try:
        return sorted(target.ask(f"list the {state} access requests", read), key=lambda item: item.time)
    except (KeyError, TypeError, AttributeError) as error:
        raise HubError(
            f"The {state} access requests of {target.repo} cannot be read: {type(error).__name__}.",
            hint="A repository that hides names needs huggingface_hub 2.4 or newer.",
        ) from None


def _request(item: Any, state: State) -> AccessRequest:
    return AccessRequest(
        user=item.username,
        identity=str(getattr(item, "request_id", None) or ""),
        name=item.fullname,
        email=item.email,
        state=state,
        time=item.timestamp.isoformat(timespec="seconds"),
        form=item.fields if isinstance(item.fields, Mapping) else {},
    )


def _proven(target: HuggingFaceTarget, label: str, state: State, call: Callable[[Any], object]) -> Decision:
    """Ask; where the answer is an error, look whether it happened."""
    action = f"{'accept' if state == 'accepted' else 'reject'} {label}"
    try:
        target.ask(action, call)
    except TypeError:
        error = PublisherError(
            f"This huggingface_hub cannot {action} by the request's id.", hint="Install 2.4 or newer."
        )
        return Decision(label=label, state=state, error=error)
    except PublisherError as error:
        try:
            happened = any(label in (item.user, item.identity) for item in _listed(target, state))
        except PublisherError:
            happened = False
        return Decision(label=label, state=state, error=None if happened else error)
    return Decision(label=label, state=state)
