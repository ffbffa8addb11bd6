"""How often a failed call is repeated and how long is waited before.

Waits double from one to the next and are spread by up to a quarter, so that many pushes which failed together do not
come back together. A server that says when it will answer again is waited for, five minutes at most: the Hub counts
its rate limits in windows of that length. The number of attempts is bounded, whatever a server asks for.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from publisher.hub.target import OvertakenError, TransientHubError

Result = TypeVar("Result")
Heard = Callable[[TransientHubError, int], None]
LONGEST = 300.0  # seconds
SPREAD = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Attempts and waits.

    Args:
        sleep: waits, in seconds.
        attempts: of one call, the first included.
        first: seconds before the second attempt; doubled each time.
        chance: a number from 0 to 1, for the spread.
    """

    sleep: Callable[[float], None] = time.sleep
    attempts: int = 4
    first: float = 1.0
    chance: Callable[[], float] = random.random

    def seconds(self, number: int, asked: float | None = None) -> float:
        """How long to wait after attempt `number` (from 1); what a server asked for is the least."""
        if asked is not None:
            return min(asked, LONGEST) + self.chance() * SPREAD
        return float(min(self.first * 2 ** (number - 1), LONGEST)) * (1 + SPREAD * self.chance())

    def wait(self, number: int, asked: float | None = None) -> None:
        """Wait after attempt `number`."""
        self.sleep(self.seconds(number, asked))

    def repeat(self, call: Callable[[], Result], heard: Heard | None = None) -> Result:
        """The call's result, repeated after failures that may pass.

        Args:
            call: what to do; it must bear being done twice.
            heard: told of every failure that is waited out, with the number of the attempt.
        """
        for number in range(1, self.attempts):
            try:
                return call()
            except OvertakenError:
                raise
            except TransientHubError as error:
                if heard is not None:
                    heard(error, number)
                self.wait(number, error.wait)
        return call()


def asked_to_wait(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a reply's `RateLimit` or `Retry-After` asks to wait, at most five minutes; None if it says nothing.

    `RateLimit: "api";r=0;t=55` is draft-ietf-httpapi-ratelimit-headers' form: nothing remains for 55 seconds.
    """
    spent = [
        float(match.group(2)) + 1
        for match in re.finditer(r"r=(\d+)\s*;\s*t=(\d{1,9})", str(headers.get("RateLimit", "")))
        if match.group(1) == "0"
    ]
    later = str(headers.get("Retry-After", "")).strip()
    if spent:
        return min(max(spent), LONGEST)
    if re.fullmatch(r"\d{1,9}", later):
        return min(float(later), LONGEST)
    try:
        return min(max(parsedate_to_datetime(later).timestamp() - now(), 0.0), LONGEST) if later else None
    except (ValueError, OverflowError):
        return None
