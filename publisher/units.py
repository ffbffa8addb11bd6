"""Numbers as people read them: sizes in bytes and times in seconds, one spelling everywhere."""

from __future__ import annotations


def format_bytes(size: float) -> str:
    """A size in decimal units, as the Hub counts them, three digits: `594 GB`, `1.02 TB`, `12 B`."""
    if abs(size) < 1000:
        return f"{size:.0f} B"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.5 or unit == "PB":
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def format_duration(seconds: float) -> str:
    """A time: `42 s`, `3 min 10 s`, `2 h 05 min`; negative ones are none."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_count(number: int) -> str:
    """A count, three digits: `1.04 T`, `30.5 B`, `272 M`, `12`; billions as people say them of parameters."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return str(number)
