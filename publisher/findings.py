"""What a rule finds, and the report that collects it.

A rule yields `Found`: where and what. The runner adds the rule's own facts and makes `Finding`s of them. A report says
what was found, what could not run and why, and which findings a person waived and for what reason; nothing that was
not run counts as passed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Severity(enum.StrEnum):
    """How much a finding weighs: an error blocks publication, a warning wants a look, information is for the record."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


@dataclass(frozen=True, slots=True)
class Found:
    """One observation of a rule, before the rule's code and severity are added.

    Args:
        message: what is wrong, with its number, in one sentence.
        file: the file it is in, relative to the checkpoint.
        tensor: the tensor or module it concerns.
        index: the position inside the tensor.
        severity: where it differs from the rule's own.
        engines: serving engines it breaks, where they differ from the rule's own.
        refuses: those of them that refuse to load, where they differ from the rule's own.
    """

    message: str
    file: str | None = None
    tensor: str | None = None
    index: tuple[int, ...] | None = None
    severity: Severity | None = None
    engines: tuple[str, ...] | None = None
    refuses: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule's verdict on one place."""

    code: str
    slug: str
    severity: Severity
    message: str
    file: str | None = None
    tensor: str | None = None
    index: tuple[int, ...] | None = None
    engines: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    waived: str | None = None
    places: int = 1  # how many it stands for; above 1 where a rule found more than are listed

    def to_json(self) -> dict[str, Any]:
        """The finding in the shape of the command line's contract."""
        where = {"file": self.file, "tensor": self.tensor, "index": list(self.index) if self.index else None}
        found: dict[str, Any] = {
            "code": self.code,
            "slug": self.slug,
            "severity": str(self.severity),
            "message": self.message,
            "where": where,
            "engines": list(self.engines),
        }
        found |= {"refused_by": list(self.refuses)} if self.refuses else {}
        found |= {"places": self.places} if self.places > 1 else {}
        return found | ({"waived": self.waived} if self.waived is not None else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun:
    """A rule that could not run, and what it lacked."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one version of one serving engine makes of a checkpoint.

    Args:
        engine: its key, as findings name it.
        version: the version that was read.
        verdict: loads, loads wrong, refuses or unknown.
        because: codes of the findings it follows from.
        reason: the fact it follows from, or why it is unknown.
    """

    engine: str
    version: str
    verdict: str
    because: tuple[str, ...] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The verdict in the shape of the command line's contract."""
        return {
            "engine": self.engine,
            "version": self.version,
            "verdict": self.verdict,
            "because": list(self.because),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of one validation.

    Args:
        findings: errors first, then warnings, then information; within one rule in file order.
        not_run: rules that had no evidence to look at, with what they need.
        rules_run: codes of the rules that looked.
        waivers: code to reason, as the user gave them.
        bytes_read: what was read of the checkpoint, headers included.
        seconds: wall time.
        subjects: how many subjects of each kind the rules looked at.
        tool: name and version of this program.
        engines: what each serving engine makes of the checkpoint.
        measured: numbers by module, where the source was at hand: `rel_rmse`, `cosine`, `mismatch` (share of sampled
            blocks not explained), `share` (of the weights looked at), `blocks` (sampled).
    """

    findings: tuple[Finding, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    rules_run: tuple[str, ...] = ()
    waivers: Mapping[str, str] = field(default_factory=dict)
    bytes_read: int = 0
    seconds: float = 0.0
    subjects: Mapping[str, int] = field(default_factory=dict)
    tool: Mapping[str, str] = field(default_factory=dict)
    engines: tuple[Verdict, ...] = ()
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Errors nobody waived."""
        return tuple(f for f in self.findings if f.severity is ERROR and f.waived is None)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Warnings nobody waived."""
        return tuple(f for f in self.findings if f.severity is WARNING and f.waived is None)

    @property
    def publishable(self) -> bool:
        """True when no error is left without a waiver."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """The report in the shape of the command line's contract."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "not_run": [{"code": n.code, "reason": n.reason} for n in self.not_run],
            "publishable": self.publishable,
            "engines": [verdict.to_json() for verdict in self.engines],
            "summary": {
                "rules_run": len(self.rules_run),
                "rules_not_run": len(self.not_run),
                "errors": len(self.errors),
                "warnings": len(self.warnings),
                "bytes_read": self.bytes_read,
                "seconds": round(self.seconds, 3),
                "rules": list(self.rules_run),
                "subjects": dict(self.subjects),
                "waivers": dict(self.waivers),
            },
            "tool": dict(self.tool),
        } | ({"measured": {name: dict(numbers) for name, numbers in self.measured.items()}} if self.measured else {})
