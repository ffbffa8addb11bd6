"""Where reports go: a form for standard output, and any number of files, each in the form its name asks for.

What cannot be written is refused before the work, not after it; a file appears complete or not at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.journal import mask
from publisher.reports import REPORTS
from publisher.reports.validation import Validation

# Ends of file names, the longer first where one ends in the other.
ENDINGS = {
    ".sarif.json": "sarif",
    ".sarif": "sarif",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".xml": "junit",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".txt": "human",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A report to be written.

    Args:
        form: its name in `REPORTS`.
        path: the file.
    """

    form: str
    path: Path


def destinations(words: Iterable[str]) -> tuple[Destination, ...]:
    """What `--report` asks for: a file whose ending says the form, or `form:file`.

    Raises:
        PublisherError: an ending that says nothing, a folder that is not there, or a place that takes no file.
    """
    found = tuple(map(_destination, words))
    for item in found:
        _refuse_unwritable(item.path)
    return found


def _destination(word: str) -> Destination:
    form, colon, rest = word.partition(":")
    if colon and form in REPORTS:
        if not rest:
            raise PublisherError(f"--report {word[:200]!r} names no file.", hint=f"Write --report {form}:FILE.")
        return Destination(form=form, path=Path(rest))
    for ending, known in ENDINGS.items():
        if word.lower().endswith(ending):
            return Destination(form=known, path=Path(word))
    raise PublisherError(
        f"--report {word[:200]!r} does not say in which form.",
        hint=f"End the file in {', '.join(ENDINGS)}, or write FORM:FILE with {', '.join(REPORTS)}.",
    )


def _refuse_unwritable(path: Path) -> None:
    folder = path.parent
    if path.is_dir() or not folder.is_dir():
        place = path if path.is_dir() else folder
        problem = "is a folder" if path.is_dir() else "is no folder that exists"
        raise PublisherError(
            f"The report cannot be written: {place} {problem}.", hint="Name a file in a folder that exists."
        )
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise PublisherError(f"The report cannot be written: no permission for {path}.", hint="Name another place.")


def write(found: Iterable[Destination], validation: Validation) -> list[Path]:
    """Write each report.

    Raises:
        PublisherError: a place does not take it.
    """
    paths = []
    for item in found:
        content = render(item.form, validation).encode("utf-8", "backslashreplace")
        if item.path.exists() and not stat.S_ISREG(item.path.stat().st_mode):
            item.path.write_bytes(content)  # a pipe or a device is written to, not replaced
        else:
            jsonio.write_atomic(item.path, content)
        paths.append(item.path)
    return paths


def render(form: str, validation: Validation) -> str:
    """One report as text, with nothing in it that looks like a token."""
    return mask(REPORTS[form].write(validation))
