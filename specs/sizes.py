"""Sizes as people write them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def byte_count(text: str) -> int | None:
    """Return the bytes that ``0``, ``500MB`` or ``2GiB`` stand for, or None for anything else."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]i?B)?", text.strip(), re.IGNORECASE)
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()]) if match else None
