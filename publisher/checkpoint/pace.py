"""When the next request to a Hub may go out; one pace for all threads that read a repository.

The Hub counts requests in windows of five minutes, API calls and file reads apart. A reply that says none is left, or
429, holds everybody back until the window begins anew, and the user is told once. A Hub that asks for more patience
than two windows is an error. Waiting ends at once when the reading is stopped.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping

from publisher.errors import HubError, InterruptedRun
from publisher.units import format_duration

MAX_WAIT = 600.0  # seconds; two of the Hub's windows
_RATE = re.compile(r'"(?:\w+)"\s*;\s*r\s*=\s*(\d{1,9})\s*;\s*t\s*=\s*(\d{1,9})')


def asked_wait(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds a reply asks to wait before the next request, None when it does not.

    `RateLimit: "api";r=0;t=55` (IETF draft httpapi-ratelimit-headers) counts on any reply; `Retry-After` in seconds on
    429 and 5xx. A second is added, because the server rounds.
    """
    match = _RATE.search(headers.get("RateLimit", ""))
    if match and int(match.group(1)) == 0:
        return int(match.group(2)) + 1.0
    after = headers.get("Retry-After", "").strip()
    if (status == 429 or status >= 500) and after.isascii() and after.isdigit():
        return min(float(after), 1e9) + 1.0
    return None


class Pace:
    """Holds requests back.

    Args:
        tell: called with a sentence when everybody has to wait.
    """

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.waited = 0.0

    def wait(self, kind: str) -> None:
        """Return when a request of this kind may go out.

        Raises:
            InterruptedRun: the reading was stopped.
        """
        left = self._until.get(kind, 0.0) - time.monotonic()
        if left > 0 or self._stopped.is_set():
            self.sleep(left)

    def hold(self, kind: str, seconds: float) -> None:
        """Hold requests of one kind (`api` or `files`) back for some seconds.

        Raises:
            HubError: longer than anybody should wait.
        """
        if seconds > MAX_WAIT:
            raise HubError(
                f"The Hub asks to wait {format_duration(seconds)} before the next request.",
                hint="Run the same command again later; what has been read is kept.",
            )
        with self._lock:
            now = time.monotonic()
            news = self._until.get(kind, 0.0) < now
            self._until[kind] = max(self._until.get(kind, 0.0), now + seconds)
            self.waited += seconds if news else 0.0
        if news and self._tell is not None and seconds >= 2:
            self._tell(f"the Hub allows no more requests for now; waiting {format_duration(seconds)}, then going on")

    def sleep(self, seconds: float) -> None:
        """Wait, unless the reading is stopped.

        Raises:
            InterruptedRun: it was.
        """
        if self._stopped.wait(max(seconds, 0.0)):
            raise InterruptedRun(
                "Interrupted.", hint="Run the same command again to go on; what has been read is kept."
            )

    def stop(self) -> None:
        """End every wait, in any thread, and let no request out any more."""
        self._stopped.set()
