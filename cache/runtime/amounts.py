"""Bytes, seconds and rates as a person says them."""

from __future__ import annotations

BYTES = "bytes"
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def in_bytes(count: float) -> str:
    """Return a number of bytes in the unit that fits it: 1.7 GB, 22.7 MB, 3.1 kB."""
    unit, name = next(((unit, name) for unit, name in UNITS if count >= unit), UNITS[-1])
    return f"{count / unit:,.1f} {name}"


def in_time(seconds: float) -> str:
    """Return seconds in the unit that fits them: 42 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def counted(done: int, total: int, unit: str) -> str:
    """Return how much of how much is done, of a ``unit``; a ``total`` of 0 is not known."""
    if unit == BYTES:
        return f"{in_bytes(done)} of {in_bytes(total)}" if total else in_bytes(done)
    return f"{done:,}/{total:,}" if total else f"{done:,}"


def rate_of(rate: float, unit: str) -> str:
    """Return so much of a ``unit`` a second."""
    return f"{in_bytes(rate)}/s" if unit == BYTES else f"{rate:,.1f} {unit}/s"
