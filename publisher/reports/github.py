"""A report as GitHub workflow commands, which become annotations of the run and of the commit.

One annotation a rule, because a step shows ten errors and ten warnings and no more (GitHub docs, "Workflow commands").
Everything a stranger wrote is escaped as the runner unescapes it (actions/toolkit, `command.ts`), so that no name can
end a command and begin another.
"""

from __future__ import annotations

import posixpath

from publisher.findings import ERROR, INFO, WARNING
from publisher.reports import validation as told
from publisher.reports.validation import Group, Validation

COMMANDS = {ERROR: "error", WARNING: "warning", INFO: "notice"}
MAX_MESSAGE = 4000


def write(validation: Validation) -> str:
    """One command a line."""
    report = validation.report
    lines = [_annotation(group, validation.label) for group in told.groups(report) if group.waived is None]
    verdict = f"{told.headline(report)}: {', '.join(told.counted(report))}"
    return "\n".join([*lines, f"::notice title={_property(validation.label or 'publisher')}::{_data(verdict)}"]) + "\n"


def _annotation(group: Group, label: str) -> str:
    first = (group.listed or group.findings)[0]
    where = f"{first.tensor}: " if first.tensor else ""
    more = f" And {group.places - 1:,} more places." if group.places > 1 else ""
    fix = f"\nFix: {group.fix}" if group.fix else ""
    message = f"{where}{first.message}{more}{fix}"[:MAX_MESSAGE]
    file = f"file={_property(_path(label, first.file))}," if first.file else ""
    title = _property(f"{group.code} {group.slug}")
    return f"::{COMMANDS[group.severity]} {file}title={title}::{_data(message)}"


def _path(label: str, file: str) -> str:
    """The file as the workflow's checkout knows it, where the checkpoint lies in it."""
    inside = label and "://" not in label and not label.startswith(("/", "~", ".."))
    return posixpath.normpath(posixpath.join(label, file)) if inside else file


def _data(text: str) -> str:
    return told.visible(text).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
