"""What a claim of a card is found to be: wrong by a file, wrong by another claim, or more than the figures bear."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.findings import ERROR, Severity

MAX_QUOTE = 160
NUMBER, STATEMENT, PARTIES, PROTOCOL, COMMAND, HARDWARE = (
    "number", "statement", "parties", "protocol", "command", "hardware",
)  # fmt: skip
TOPICS = (NUMBER, STATEMENT, PARTIES, PROTOCOL, COMMAND, HARDWARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One claim that does not hold.

    Args:
        topic: one of `TOPICS`, which is one rule each.
        line: where it stands in the card, counted from 1; 0 for the card as a whole.
        message: the claim, the fact and its file, the next step.
        severity: how much it weighs.
    """

    topic: str
    line: int
    message: str
    severity: Severity = ERROR


def quoted(text: str) -> str:
    """A stranger's words for a message: short, in quotes, nothing in them that a terminal obeys."""
    short = text if len(text) <= MAX_QUOTE else f"{text[: MAX_QUOTE - 3]}..."
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in short)
    return '"' + safe.encode("utf-8", "backslashreplace").decode().replace('"', "'") + '"'


def doubt(topic: str, line: int, claim: str, fact: str, step: str, severity: Severity = ERROR) -> Doubt:
    """A finding in the one form all have.

    Args:
        topic: one of `TOPICS`.
        line: where the claim stands.
        claim: the card's words.
        fact: what is the case, with the file that says so.
        step: what to do, an imperative without a stop.
        severity: how much it weighs.
    """
    return Doubt(
        topic=topic,
        line=line,
        message=f"Line {line} says {quoted(claim)}; {fact}. {step}.",
        severity=severity,
    )
