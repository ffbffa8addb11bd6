"""The Hub's client with what it leaves open closed: time-outs, repetition, and errors in a person's words.

Every call goes through `call` or `errors`. The client's many exceptions (one library's HTTP errors or another's,
builtin ones from the Xet transport, those of a reply that is no JSON or JSON of another shape) become `AccessError`,
`HubError`, `TransientHubError`, `OvertakenError` or `QuotaError` with a next step. Only calls that huggingface_hub
1.33 and 2.4 share are used. No message carries an address with a signature or anything that looks like a token.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

# An upload that was killed goes on from the last remembered part: the transport reads these when it is first used.
os.environ.setdefault("HF_XET_DATA_SESSION_XORB_METADATA_FLUSH_MAX_COUNT", "1")
os.environ.setdefault("HF_XET_DATA_SESSION_XORB_METADATA_FLUSH_INTERVAL", "1s")

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, disable_progress_bars, get_session, hf_raise_for_status

from publisher import __version__
from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub.patience import Patience, asked_to_wait
from publisher.hub.target import OvertakenError, QuotaError, TransientHubError
from publisher.hub.work import DAMAGED
from publisher.journal import mask

Result = TypeVar("Result")
TIMEOUT = 300.0  # seconds without a byte; the client's own default is to wait for ever
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
# httpx in one major version, httpx2 in the next; the client's own error derives from either.
TRANSPORT_ERROR: type[Exception] = next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
MISSHAPEN: tuple[type[Exception], ...] = (LookupError, TypeError, AttributeError)  # of replies that are not the Hub's
FAILURES: tuple[type[Exception], ...] = (TRANSPORT_ERROR, OSError, RuntimeError, ValueError, *MISSHAPEN)
AGAIN = "Run the same command again; it goes on from here."
LOGIN = "Log in with `hf auth login`, or set HF_TOKEN, with a token that may write to this repository."
SIGN_IN = "Log in with `hf auth login`, or set HF_TOKEN, with a token that is valid and may do this."
FIND = "Check the name; if it is private, log in with `hf auth login`, or set HF_TOKEN, with a token that may see it."
ROOM = "Make room or pay for storage in the account's settings, then run the same command again."
_EXPIRED = re.compile(r"\bexpired\b|SignatureDoesNotMatch|RequestTimeTooSkewed", re.IGNORECASE)  # of an address
_UNLIKE = re.compile(r"\bsha-?256\b|\bhash\b.*\b(?:mismatch|match|differ)", re.IGNORECASE)
_DISK = re.compile(r"IO Error: .*\(os error \d+\)|No space left on device")  # as the Xet transport tells it
_NO_ROOM = re.compile(r"\bstorage\b|\bquota\b|payload too large|insufficient space", re.IGNORECASE)

# The Xet transport tells a refusal in words only. Of its addresses those of the services are refused for good; those
# with a signature expire, and are given out anew with the next attempt.
_REFUSED = re.compile(
    r"HTTP status \w+ error \((\d{3})[^)]*\), domain: \S+?//[^/\s]+(?P<service>/api/|/.*?/v\d/|/v\d/)?"
)


class AbsentError(AccessError):
    """There is no such repository, revision or file, as far as this token can see."""


class HubClient:
    """The client of one repository, logged in.

    Args:
        repo: `owner/name`, for messages.
        endpoint: the Hub's address; by default as huggingface_hub reads it (`HF_ENDPOINT`).
        token: by default as huggingface_hub finds it (`HF_TOKEN`, the stored login).
        patience: how calls are repeated.
    """

    def __init__(self, repo: str, endpoint: str | None, token: str | None, patience: Patience) -> None:
        disable_progress_bars()  # the push tells its own progress, in the journal's words
        self.repo = repo
        self.token = token or get_token()
        self.api = HfApi(endpoint=endpoint, token=self.token, library_name="fp4-publisher", library_version=__version__)
        self.patience = patience

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"{self.api.endpoint}/{self.repo}"

    def call(self, action: str, call: Callable[[HfApi], Result]) -> Result:
        """One call that may be repeated, repeated after failures that may pass.

        Args:
            action: completes "the Hub would not …".
            call: gets the client.

        Raises:
            AccessError: the Hub refuses.
            HubError: it cannot be reached, or fails.
        """

        def once() -> Result:
            with self.errors(action):
                return call(self.api)

        return self.patience.repeat(once)

    def post(self, action: str, path: str, body: dict[str, Any], *, expect: tuple[int, ...] = ()) -> tuple[int, Any]:
        """POST a JSON body: status and parsed reply. Statuses in `expect` are no errors; the client has no such call.

        Raises:
            AccessError, HubError: as `call`.
        """

        def send(api: HfApi) -> tuple[int, Any]:
            response = get_session().post(
                f"{api.endpoint}{path}", json=body, headers=build_hf_headers(token=self.token)
            )
            if response.status_code not in expect:
                hf_raise_for_status(response)
            return response.status_code, response.json()

        return self.call(action, send)

    @contextlib.contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """Turn what goes wrong inside into the project's errors."""
        _bound_waits(get_session())
        try:
            yield
        except PublisherError:
            raise
        except FAILURES as error:
            raise self._explain(action, error) from None
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # how the Xet transport tells that it fell over
                raise
            raise self._explain_transport(f"{self.api.endpoint} would not {action} for {self.repo}", error) from None

    def busy(self, action: str, said: Any) -> TransientHubError:
        """The error of a Hub that is busy with another change of the same thing."""
        text = said.get("error") if isinstance(said, dict) else None
        return TransientHubError(
            f"{self.api.endpoint} would not {action} for {self.repo}: {self.clean(str(text or 'it is busy'))}.",
            hint=AGAIN,
        )

    # --- errors ----------------------------------------------------------------------------------------------------

    def _explain(self, action: str, error: Exception) -> PublisherError:
        """The project's error for one of the client's, by what lies at its bottom."""
        place = f"{self.api.endpoint} would not {action} for {self.repo}"
        found = _http_error(error)
        if found is None:
            return self._explain_transport(place, error)
        if isinstance(found, GatedRepoError):
            return AccessError(
                f"{place}: the repository is gated.", hint=f"Ask for access at {self.url}, then try again."
            )
        status = found.response.status_code
        said = self.clean(found.server_message or "") or f"HTTP {status}"
        if isinstance(found, EntryNotFoundError | RevisionNotFoundError):
            return AbsentError(f"{place}: {said}.", hint="Check the name, or run the same command again.")
        return self._explain_status(place, status, said, found)

    def _explain_status(self, place: str, status: int, said: str, error: Any) -> PublisherError:
        unsaid = said in ("", f"HTTP {status}")
        told = f"{place} (HTTP {status})" + ("." if unsaid else f": {said}.")
        if status == 401 and unsaid:
            told = f"{place} (HTTP 401): it does not know this token."
        if status in (402, 413, 507) or (status == 403 and _NO_ROOM.search(said)):
            return QuotaError(told, hint=ROOM)
        if status == 403 and _EXPIRED.search(said):  # a signed address, not the login: the next attempt gets another
            return TransientHubError(told, hint=AGAIN)
        if status in (401, 403):
            return AccessError(told, hint=SIGN_IN)
        if isinstance(error, RepositoryNotFoundError):
            return AbsentError(f"{place}: it does not exist, or the token may not see it.", hint=FIND)
        if status == 412:
            return OvertakenError(told, hint=AGAIN)
        if status in TRANSIENT or (
            status == 404 and " would not transfer " in place
        ):  # sent, as was said, and not there
            return TransientHubError(told, hint=AGAIN, wait=asked_to_wait(error.response.headers))
        return HubError(told, hint="Mend what the Hub names, then run again.")

    def _explain_transport(self, place: str, error: BaseException) -> PublisherError:
        root = _root(error)
        said = self.clean(f"{type(root).__name__}: {root}")
        if isinstance(root, OfflineModeIsEnabled):
            return HubError(f"{place}: HF_HUB_OFFLINE is set.", hint="Unset it, then run the same command again.")
        refused = _REFUSED.search(str(root))
        status = int(refused[1]) if refused else 0
        if status in (402, 413, 507) or (status in (401, 403) and refused and refused["service"]):
            return self._explain_refusal(place, status, said)
        if isinstance(root, PermissionError) and not root.errno:  # the Xet transport's, of its tokens
            return AccessError(f"{place}: {said}.", hint=SIGN_IN)
        on_disk = isinstance(root, OSError) and root.errno and not isinstance(root, ConnectionError | TimeoutError)
        if on_disk or _DISK.search(said):
            return HubError(f"{place}: {said}.", hint="Check this machine's disk, then run the same command again.")
        if re.search(r"\b(402|403|413|507)\b", said) and _NO_ROOM.search(said):
            return QuotaError(f"{place}: {said}.", hint=ROOM)
        if _UNLIKE.search(said):
            return TransientHubError(f"{place}: {said}.", hint=DAMAGED)
        if type(root) is ValueError:
            return HubError(f"{place}: {said}.", hint="Mend what is named, then run the same command again.")
        if isinstance(root, (*MISSHAPEN, json.JSONDecodeError)):
            return TransientHubError(f"{place}: its answer cannot be read ({said}).", hint=AGAIN)
        return TransientHubError(f"{place}: {said}.", hint="Check the network. " + AGAIN)

    def _explain_refusal(self, place: str, status: int, said: str) -> PublisherError:
        """What the Xet transport was refused, of which it tells the status and the address but not the reason."""
        if status in (401, 403) and f"{self.api.endpoint}/api/" not in said:  # a pass that the Hub had given
            return TransientHubError(f"{place} (HTTP {status}): {said}.", hint=AGAIN)
        found = self._explain_status(place, status, said, None)
        if type(found) is AccessError:
            found.hint = f"The transport does not say why. {SIGN_IN} Or {ROOM[0].lower()}{ROOM[1:]}"
        return found

    def clean(self, text: str) -> str:
        """One line without tokens and without the query part of addresses, where signatures are."""
        if self.token:
            text = text.replace(self.token, "***")
        words = (word.split("?")[0] if "://" in word else word for word in mask(text).split())
        return " ".join(words).rstrip(".")[:300]


def token_state() -> str | None:
    """Where the login comes from, for `publisher doctor`; None without one. The token itself is not shown."""
    if get_token() is None:
        return None
    return "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "logged in"


def _bound_waits(session: Any) -> None:
    """Give every request of the client a time-out: some of its calls ask for none whatever its session says."""
    session.timeout = TIMEOUT
    hooks = session.event_hooks["request"]
    if _bounded not in hooks:
        hooks.append(_bounded)


def _bounded(request: Any) -> None:
    given = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        kind: TIMEOUT if given.get(kind) is None else given[kind] for kind in ("connect", "read", "write", "pool")
    }


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _http_error(error: Exception) -> Any:
    """The reply of the Hub that an error comes from, however the client wrapped it; None without one."""
    return next((item for item in _chain(error) if isinstance(item, HfHubHTTPError)), None)


def _root(error: BaseException) -> BaseException:
    """The cause the client named last: uploads wrap it in a RuntimeError, forced downloads in a ValueError."""
    wraps = (item for item in _chain(error) if type(item) in (RuntimeError, ValueError) and item.__cause__ is not None)
    outer = {id(item) for item in wraps}
    return next((i for i in _chain(error) if id(i) not in outer and type(i) is not RuntimeError), error)
