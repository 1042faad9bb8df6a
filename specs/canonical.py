"""Canonical JSON and digests: equal meaning, equal bytes."""

from __future__ import annotations

import hashlib
import json


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """Return the hexadecimal sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
