"""Bytes, rates and durations as people read them."""

from __future__ import annotations

from opsproof.journal import Progress

UNITS = ("B", "kB", "MB", "GB", "TB")


def show_bytes(count: float) -> str:
    """Return 12.3 MB for 12,345,678 (powers of 1000).

    >>> show_bytes(999), show_bytes(12_345_678)
    ('999 B', '12.3 MB')
    """
    for unit in UNITS:
        if round(count, 1) < 1000 or unit == UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def show_seconds(seconds: float) -> str:
    """Return 3.2 s, 4 min 05 s or 2 h 07 min.

    >>> show_seconds(3.21), show_seconds(245), show_seconds(7640)
    ('3.2 s', '4 min 05 s', '2 h 07 min')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def progress_line(progress: Progress) -> str:
    """Return what is being done, how much of it is done, and how fast it goes."""
    parts = [f"{progress.phase}: {show_bytes(progress.done)}"]
    if progress.total:
        parts.append(f"of about {show_bytes(progress.total)}")
    if progress.seconds > 0.5:
        parts.append(f"at {show_bytes(progress.done / progress.seconds)}/s")
    return " ".join(parts) + f" ({progress.doing})"
