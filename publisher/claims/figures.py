"""Numbers as cards print them, and the interval that their rounding allows.

A printed figure stands for every value that rounds to it: 95.76 for 95.755 to 95.765, `~590` for 584 to 596. Errors
propagate as intervals: a difference of two rounded figures may be off by the sum of their halves. What is no number is
no figure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ABOUT = (
    r"(?:(?P<about>[~\u2248\u223c]|\babout|\baround|\broughly|\bapprox(?:\.|imately)?|\bca\.|\balmost|\bnearly)"
    r"\s{0,3})?"
)
NUMBER = r"(?P<number>\d{1,3}(?:,\d{3}){1,6}(?:\.\d{1,9})?|\d{1,15}(?:\.\d{1,9})?)"
SIGNED = re.compile(
    r"(?P<sign>[+\-\u2212\u2013]?)\s{0,2}(?P<number>\d{1,9}(?:,\d{3})*(?:\.\d{1,9})?)\s{0,2}(?P<unit>%"
    r"|pp\b|pts?\b|points?\b|pct\b)?"
)
SPREAD = re.compile(r"(?:\u00b1|\+/-)\s{0,3}(\d{1,6}(?:\.\d{1,9})?)\s{0,2}(%|pp\b)?")
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """Values that a printed figure may stand for, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        slack = _SLACK * max(abs(self.low), abs(self.high), abs(value))
        return self.low - slack <= value <= self.high + slack

    def meets(self, other: Interval) -> bool:
        """Whether some value is in both."""
        slack = _SLACK * max(abs(self.low), abs(self.high), abs(other.low), abs(other.high))
        return self.low <= other.high + slack and other.low <= self.high + slack

    def __mul__(self, factor: float) -> Interval:
        ends = (self.low * factor, self.high * factor)
        return Interval(min(ends), max(ends))

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return Interval(self.low - other.high, self.high - other.low)

    def over(self, other: Interval) -> Interval | None:
        """The quotient of two positive intervals; None where the divisor may be zero."""
        if other.low <= 0 or self.low < 0:
            return None
        return Interval(self.low / other.high, self.high / other.low)

    @property
    def size(self) -> Interval:
        """Of the absolute values."""
        if self.low <= 0 <= self.high:
            return Interval(0.0, max(-self.low, self.high))
        ends = sorted((abs(self.low), abs(self.high)))
        return Interval(ends[0], ends[1])


def value_of(number: str) -> float:
    """The number as it is printed."""
    return float(number.replace(",", ""))


def interval(number: str, *, about: bool = False) -> Interval:
    """What a printed number may stand for.

    Args:
        number: digits, with or without separators and decimals.
        about: whether a word or sign before it says that it is no exact one; zeros at its end then count for nothing.
    """
    digits, _, decimals = number.replace(",", "").partition(".")
    half = 0.5 * 10.0 ** -len(decimals)
    value = value_of(number)
    if about:
        if not decimals:
            half *= 10.0 ** (len(digits) - len(digits.rstrip("0") or "0"))
        half = max(half, 0.01 * value)
    return Interval(value - half, value + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of a table's cell or of prose.

    Args:
        value: what it may stand for, signed.
        unit: `%`, `pp` for points, or empty.
        spread: what stands after its ±, None where nothing does.
        signed: whether it is printed with a sign.
    """

    value: Interval
    unit: str = ""
    spread: Interval | None = None
    signed: bool = False


def figure(cell: str) -> Figure | None:
    """The figure that a cell holds and nothing else but its unit and its spread; None for any other cell."""
    text = cell.strip()[:60]
    match = SIGNED.match(text)
    if match is None:
        return None
    spread = SPREAD.match(text, match.end()) or SPREAD.match(text, match.end() + 1)
    rest = text[spread.end() if spread else match.end() :].strip().strip("*()%\u2020\u2191\u2193 ")
    if rest and rest.lower() not in ("pp", "pts", "points"):
        return None
    value = interval(match.group("number"))
    negative = match.group("sign") in ("-", "\u2212", "\u2013")
    unit = match.group("unit") or (rest if rest else "")
    return Figure(
        value=value * -1 if negative else value,
        unit="%" if unit == "%" else "pp" if unit else "",
        spread=interval(spread.group(1)) if spread else None,
        signed=bool(match.group("sign")),
    )
