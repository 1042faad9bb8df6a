"""Numbers and times as people read them. Missing and NaN read as a dash, never as zero."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
NOT_RECORDED = "not recorded"
"""A number that an artifact of an older version does not hold."""
MINUTE, HOUR, DAY = 60, 3600, 86_400
YEAR = 365 * DAY


def is_missing(value: object) -> bool:
    """Whether a number is missing: None, or NaN."""
    return value is None or bool(value != value)


def decimal(value: float | None, digits: int = 2) -> str:
    """Return a number with fixed digits and thousands separators, ``−`` for negative ones."""
    if value is None or is_missing(value):
        return MISSING
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """Return a number with its sign, for differences."""
    text = decimal(value, digits)
    return text if is_missing(value) or text.startswith(MINUS) else f"+{text}"


def count(value: float | None) -> str:
    """Return a whole number with thousands separators."""
    return decimal(value, 0)


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 finding``, ``2 findings``."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share in [0, 1] as a percentage."""
    return MISSING if share is None or is_missing(share) else f"{decimal(100 * share, digits)} %"


def small(value: float | None) -> str:
    """Return a probability: three digits, scientific below 0.001, ``0`` where it underflowed."""
    if value is None or is_missing(value):
        return MISSING
    if value == 0:
        return "0"
    return decimal(value, 3) if value >= 0.001 else f"{value:.0e}".replace("-", MINUS)


def p_value(value: float | None) -> str:
    """Return a p with three digits; ``<0.001`` below, since no test here is exact to 0."""
    if value is None or is_missing(value):
        return MISSING
    return "<0.001" if value < 0.001 else decimal(value, 3)


def magnitude(value: float) -> str:
    """Return a measured number of any size: one digit from 100 on, else three, never a bare 0."""
    if abs(value) >= 100:
        return decimal(value, 1)
    return f"{value:.0e}".replace("-", MINUS) if 0 < abs(value) < 0.001 else decimal(value, 3)


def signed_magnitude(value: float) -> str:
    """Return a measured number of any size with its sign."""
    text = magnitude(value)
    return text if text.startswith(MINUS) else f"+{text}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """Return the interval of a share in brackets."""
    if is_missing(low) or is_missing(high):
        return MISSING
    return f"[{decimal(low, digits)}, {decimal(high, digits)}]"


def signed_interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """Return the interval of a difference: a sign at both ends."""
    if is_missing(low) or is_missing(high):
        return MISSING
    return f"[{signed(low, digits)}, {signed(high, digits)}]"


_OF_A_CONTRAST = ("contrast", "estimate", "low", "high")


def testable(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a summary; without the numbers of its contrast where the verdict is NotTestable."""
    if summary.get("verdict") != "NotTestable":
        return summary
    return {name: value for name, value in summary.items() if name not in _OF_A_CONTRAST}


def byte_size(size: int) -> str:
    """Return a size in B, kB, MB or GB (powers of 1000)."""
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size} B"


def iso(seconds: float | None, timespec: str = "seconds") -> str | None:
    """Return Unix seconds as ISO 8601 in UTC, for example ``2025-01-02T03:04:05Z``."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """Return a time that something takes; what is under a second is called one."""
    return age(max(1.0, seconds))


def age(seconds: float) -> str:
    """Return a duration like ``kubectl``: the two largest units while they matter."""
    whole = max(0, int(seconds))
    for limit, big, big_unit, little, little_unit in (
        (2 * MINUTE, 1, "s", 0, ""),
        (10 * MINUTE, MINUTE, "m", 1, "s"),
        (3 * HOUR, MINUTE, "m", 0, ""),
        (8 * HOUR, HOUR, "h", MINUTE, "m"),
        (2 * DAY, HOUR, "h", 0, ""),
        (8 * DAY, DAY, "d", HOUR, "h"),
        (2 * YEAR, DAY, "d", 0, ""),
        (8 * YEAR, YEAR, "y", DAY, "d"),
    ):
        if whole < limit:
            rest = whole % big // little if little else 0
            return f"{whole // big}{big_unit}" + (f"{rest}{little_unit}" if rest else "")
    return f"{whole // YEAR}y"
