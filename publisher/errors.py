"""The errors a person can meet, each with the next step.

Every error says what is wrong and where in its message, and what to do next in `hint`. The exit code belongs to the
class, so the command line, the pages and a detached job end alike. Nothing below the command line prints.
"""

from __future__ import annotations


class PublisherError(Exception):
    """Something a person can mend: usage, a recipe, a checkpoint that cannot be read.

    Args:
        message: what is wrong, where (file, tensor, number), in one sentence.
        hint: what to do next, in one sentence; empty when the message already says it.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class FindingsError(PublisherError):
    """A gate is closed: the report holds errors that nobody waived."""

    exit_code = 1


class CheckpointError(PublisherError):
    """A folder or repository is not the checkpoint it should be (missing, truncated, unreadable)."""


class AccessError(PublisherError):
    """The Hub refuses: no token, no permission, or the terms of a gated repository are not accepted."""

    exit_code = 3


class HubError(PublisherError):
    """The Hub or the network failed, or what arrived is not what was sent; running again may help."""

    exit_code = 4


class EngineError(PublisherError):
    """A quantization engine or the hardware under it is missing or failed."""

    exit_code = 5


class InterruptedRun(PublisherError):
    """Stopped on request; running the same command again goes on from here."""

    exit_code = 6
