"""The files of a run directory: read leniently, and what tells that an input is another one than before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.findings import Report


def document(path: Path) -> dict[str, Any] | None:
    """A file of the run directory; one that was damaged counts as none, and is made again."""
    try:
        value = jsonio.load_json(path)
    except jsonio.DocumentError:
        return None
    return value if isinstance(value, dict) else None


def timeless(report: Mapping[str, Any]) -> Any:
    """A report without how long it took and how much it read, so that two that found the same are equal."""
    summary, effort = report.get("summary"), {"seconds": 0, "bytes_read": 0}
    return {**report, "summary": {**summary, **effort} if isinstance(summary, Mapping) else None}


def digest_of(path: Path) -> str | None:
    """Digest of a small file's content; None where it cannot be read, which preflight names."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def fingerprint(files: Any, names: Iterable[str] | None = None) -> str:
    """Digest of names, sizes and times of change: enough to see that a folder is another one than before.

    Args:
        files: the folder's.
        names: those that count; None for all.
    """
    rows = []
    for name in files.sizes if names is None else names:
        size = files.sizes[name]
        path = files.local(name)
        rows.append([name, size, path.stat().st_mtime_ns if path else 0])
    return jsonio.digest(rows)


def outcome(report: Report, *, left_out: bool = True) -> str:
    """A report in one line, with the rules that did not run unless they were left out on purpose."""
    told = f"{len(report.rules_run)} rules run, {len(report.errors)} error(s), {len(report.warnings)} warning(s)"
    return f"{told}, {len(report.not_run)} not run" if left_out else told
