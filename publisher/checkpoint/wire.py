"""One request to a Hub: paced, retried, redirected without the login, and never more bytes than were asked for.

A Hub answers the read of a large file with an address elsewhere, signed for a while; the login goes to the Hub's own
address only, and an https Hub cannot send anybody to an unencrypted one. A reply that breaks off is continued where it
ended. What a server says about lengths is held against the listing, its body is read no further than the request goes
whatever it sends, and a reply that trickles is given up. Of the Hub client this uses the login and the connections; its
own calls would read replies of any length and follow a page's next address with the login in hand.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session

from publisher.checkpoint import refusal
from publisher.checkpoint.pace import Pace, asked_wait
from publisher.errors import HubError, PublisherError

TIMEOUT = 30.0  # seconds without a byte
SLOWEST = 32 << 10  # bytes a second on average; below that a reply is given up
TRIES = 6
MAX_REDIRECTS = 5
MAX_JSON = 64 << 20  # bytes of one page of the Hub's API
MAX_SKIP = 64 << 20  # bytes read for nothing where a server ignores ranges
TARGET_LIFE = 300.0  # seconds a signed address is used again; the Hub signs for an hour
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_SPAN = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_NEXT = re.compile(r'<([^<>]{1,4096})>\s*;\s*rel="?next"?')
_HOPELESS = frozenset({"InvalidURL", "UnsupportedProtocol", "LocalProtocolError"})
_Taken = TypeVar("_Taken")


class _Again(Exception):
    """A reply that another attempt may better; `asked` says that the server named a time to wait."""

    def __init__(self, reason: str, *, asked: bool = False) -> None:
        super().__init__(reason)
        self.asked = asked


class Wire:
    """Requests about one repository.

    Args:
        repo: `org/name`.
        endpoint: another Hub than the one huggingface_hub is set to.
        token: as huggingface_hub takes it; None uses the stored login or `HF_TOKEN`.
        tell: called with a sentence when the Hub makes everybody wait.
    """

    def __init__(
        self,
        repo: str,
        *,
        endpoint: str | None = None,
        token: str | bool | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.repo = repo
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.pace = Pace(tell)
        self.requests = 0
        self.bytes_fetched = 0
        headers = build_hf_headers(token=token, library_name="fp4-publisher")
        self._own = {**headers, "Accept-Encoding": "identity"}
        self._public = {
            name: text for name, text in self._own.items() if name.lower() not in ("authorization", "cookie")
        }
        self._origin = _origin(self.endpoint)
        self._targets: dict[str, tuple[str, float]] = {}
        self._answered = False
        self._lock = threading.Lock()

    @property
    def login(self) -> bool:
        """Whether requests carry a token."""
        return len(self._public) < len(self._own)

    def json(self, address: str, *, revision: str | None = None) -> tuple[Any, str | None]:
        """A reply of the API, and the address of the next page.

        Args:
            address: a path of the Hub, or a whole address of it.
            revision: what is asked for, for the error.

        Raises:
            AccessError: the Hub refuses.
            CheckpointError: no such revision.
            HubError: the Hub cannot be reached, or something else answers.
        """
        url = _joined(f"{self.endpoint}/", address)
        if _origin(url) != self._origin:
            raise refusal.foreign(self.repo, f"a listing goes on at {urlsplit(url).netloc[:100]}")

        def take(response: Any) -> tuple[Any, str | None]:
            body = bytearray()
            for piece in self._pieces(response, MAX_JSON):
                body += piece
                if len(body) > MAX_JSON:
                    raise refusal.foreign(self.repo, f"a reply of more than {MAX_JSON:,} bytes")
            link = _NEXT.search(response.headers.get("Link", ""))
            return json.loads(body), link.group(1) if link else None

        try:
            return self._ask(url, dict, take, revision=revision, what="the Hub's answer")
        except (ValueError, RecursionError):
            raise refusal.foreign(self.repo, "no JSON") from None

    def allowed(self) -> None:
        """Ask whether this login may read the files of a gated repository.

        Raises:
            AccessError: it may not.
        """
        url = f"{self.endpoint}/api/models/{self.repo}/auth-check"
        self._ask(url, dict, lambda _: None, what="the Hub's answer")

    def read(self, path: str, commit: str, begin: int, end: int, size: int) -> bytes:
        """Bytes `begin` to `end` of one file, exactly.

        Args:
            path: the file in the repository.
            commit: its commit.
            begin: first byte.
            end: one past the last, at most `size`.
            size: bytes of the file as the Hub lists it.

        Raises:
            AccessError: the Hub refuses.
            HubError: what arrives is cut off, is not what was listed, or nothing arrives.
        """
        data = bytearray()
        url = f"{self.endpoint}/{self.repo}/resolve/{commit}/{quote(path)}"

        def headers() -> dict[str, str]:
            return {"Range": f"bytes={begin + len(data)}-{end - 1}"}

        def take(response: Any) -> bytes:
            skip = _skip(response, path, begin + len(data), size)
            for piece in self._pieces(response, skip + end - begin):
                used = piece[skip:] if skip else piece
                skip -= len(piece) - len(used)
                data.extend(used[: end - begin - len(data)])
                if len(data) == end - begin:
                    return bytes(data)
            raise _Again("the reply is cut off")

        try:
            found = self._ask(url, headers, take, revision=commit, what=f"{path} from byte {begin:,}")
        except _Failed as failed:
            raise HubError(
                f"{path} of {self.repo} could not be read: {failed} ({TRIES} attempts; {len(data):,} of "
                f"{end - begin:,} bytes from byte {begin:,} arrived).",
                hint="Check the network and run the same command again; what has been read is kept.",
            ) from None
        with self._lock:
            self.requests += 1
            self.bytes_fetched += len(found)
        return found

    # --- attempts --------------------------------------------------------------------------------------------------

    def _ask(
        self,
        url: str,
        headers: Callable[[], dict[str, str]],
        take: Callable[[Any], _Taken],
        *,
        what: str,
        revision: str | None = None,
    ) -> _Taken:
        """The reply to a request, which is made again while another attempt may better it."""
        for attempt in range(TRIES):
            try:
                return self._once(url, headers(), take, revision, what)
            except _Again as again:
                reason, asked = str(again), again.asked
            if attempt + 1 < TRIES and not asked:
                self.pace.sleep(min(2.0**attempt, 8.0))
        raise _Failed(self.repo, reason)

    def _once(
        self, url: str, headers: dict[str, str], take: Callable[[Any], _Taken], revision: str | None, what: str
    ) -> _Taken:
        try:
            with self._reply(url, headers) as response:
                self._answered = True
                status = response.status_code
                if status in _AGAIN:
                    raise _Again(f"the Hub answers {status}", asked=asked_wait(status, response.headers) is not None)
                if status == 416:
                    raise HubError(
                        f"{what} of {self.repo}: where it is stored the file ends before its listed size.",
                        hint="Run again; if it stays so, the file has to be uploaded again.",
                    )
                if status not in (200, 206):
                    raise self._refused(response, revision, what)
                if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
                    raise refusal.foreign(self.repo, "a compressed reply that was not asked for")
                return take(response)
        except (PublisherError, _Again):
            raise
        except OSError as error:
            raise HubError(
                f"Reading {self.repo} failed: {type(error).__name__}: {str(error)[:300]}.",
                hint="Check the network and run again.",
            ) from None
        except Exception as error:
            if not is_transport(error):
                raise
            if type(error).__name__ in _HOPELESS or not self._answered:
                raise unreachable(self.repo, error) from None
            raise _Again(f"the connection fails ({type(error).__name__})") from None

    @contextlib.contextmanager
    def _reply(self, url: str, headers: dict[str, str]) -> Iterator[Any]:
        """The last reply of a chain of redirects, unread; a signed address still known is used first."""
        target, until = self._targets.get(url, (url, 0.0))
        known = until > time.monotonic()
        place = target if known else url
        for _ in range(MAX_REDIRECTS + 2):
            own = _origin(place) == self._origin
            kind = "storage" if not own else "api" if "/api/" in place else "files"
            self.pace.wait(kind)
            with get_session().stream(
                "GET", place, headers={**(self._own if own else self._public), **headers},
                timeout=TIMEOUT, follow_redirects=False,
            ) as response:  # fmt: skip
                wait = asked_wait(response.status_code, response.headers)
                if wait is not None:
                    self.pace.hold(kind, wait)
                if known and response.status_code in (400, 401, 403, 404, 410):  # the signature has expired
                    known, place = False, url
                    continue
                if response.status_code not in _REDIRECTS:
                    yield response
                    return
                place = self._follow(place, response.headers.get("Location", ""))
            if _origin(place) != self._origin:
                self._targets[url] = place, time.monotonic() + TARGET_LIFE
        raise refusal.foreign(self.repo, f"more than {MAX_REDIRECTS} redirects")

    def _follow(self, place: str, location: str) -> str:
        """Where a redirect leads; never from https to anything else."""
        target = _joined(place, location)
        parts = urlsplit(target)
        plain = parts.scheme == "http" and self._origin[0] == "http"
        if not location or not parts.hostname or not (parts.scheme == "https" or plain):
            where = f"{parts.scheme[:20]}://{(parts.hostname or '')[:100]}"
            raise HubError(
                f"A read of {self.repo} is sent on to {where}, which is no encrypted address.",
                hint=refusal.FOREIGN_HINT,
            )
        return target

    def _pieces(self, response: Any, wanted: int) -> Iterator[bytes]:
        """A reply's body as it comes, undecoded; one that trickles is given up."""
        deadline = time.monotonic() + TIMEOUT + wanted / SLOWEST
        for piece in response.iter_raw():
            yield piece
            if time.monotonic() > deadline:
                raise _Again(f"the reply comes slower than {SLOWEST:,} bytes a second")

    def _refused(self, response: Any, revision: str | None, what: str) -> PublisherError:
        """What a refusal means; the Hub's own words count, those of a storage it sent us to do not."""
        status = response.status_code
        if _origin(str(response.url)) == self._origin:
            detail = self._detail(response)
            return refusal.from_reply(self.repo, revision, status, response.headers, detail, login=self.login)
        host = urlsplit(str(response.url)).hostname
        return HubError(
            f"{what} of {self.repo}: the storage the Hub names, {host}, answers {status}.",
            hint="Run the same command again later; what has been read is kept.",
        )

    def _detail(self, response: Any) -> str:
        """What a refusal's body says, where it is short."""
        body = bytearray()
        for piece in self._pieces(response, 1 << 14):
            body += piece[: (1 << 14) - len(body)]
            if len(body) == 1 << 14:
                break
        try:
            said = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        return said if isinstance(said, str) else ""


class _Failed(HubError):
    """Every attempt failed for a passing reason."""

    def __init__(self, repo: str, reason: str) -> None:
        super().__init__(f"The Hub could not be read for {repo}: {reason}.", hint="Run the same command again later.")
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def is_transport(error: BaseException) -> bool:
    """Whether an error comes from the HTTP library: httpx under client 1.x, httpx2 under 2.x; they share no base."""
    return type(error).__module__.partition(".")[0] in {"httpx", "httpx2", "httpcore", "httpcore2"}


def unreachable(repo: str, error: BaseException) -> HubError:
    """The error for a Hub that does not answer."""
    return HubError(
        f"The Hub cannot be reached for {repo}: {type(error).__name__}.", hint="Check the network and run again."
    )


def _skip(response: Any, path: str, begin: int, size: int) -> int:
    """Bytes of the body before those asked for: none, unless the server sends the file from its start.

    Raises:
        HubError: the reply is another range, or of a file of another length than listed.
    """
    if response.status_code == 206:
        match = _SPAN.fullmatch(response.headers.get("Content-Range", ""))
        if not match or int(match.group(1)) != begin:
            raise HubError(
                f"The server answers for {path} with another range than the one from byte {begin:,} it was asked for.",
                hint="Run again, or download the repository and validate the folder.",
            )
        if match.group(3) != "*" and int(match.group(3)) != size:
            raise _other_size(path, size, int(match.group(3)))
        return 0
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) != size:
        raise _other_size(path, size, int(length[:20]))
    if begin > MAX_SKIP:
        raise HubError(
            f"The server ignores range requests ({path} from byte {begin:,}).",
            hint="Download the repository and validate the folder.",
        )
    return begin


def _other_size(path: str, listed: int, sent: int) -> HubError:
    return HubError(
        f"{path} has {listed:,} bytes in the Hub's listing and {sent:,} where it is stored.",
        hint="Run again; if it stays so, the file has to be uploaded again.",
    )


def _joined(base: str, address: str) -> str:
    """The address a reference means; one that cannot be read leads nowhere."""
    try:
        target = urljoin(base, address)
        urlsplit(target)
    except ValueError:
        return ":"
    return target


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    return parts.scheme, (parts.hostname or "").lower(), port or {"http": 80, "https": 443}.get(parts.scheme, 0)
