"""A value of a spec in a few words."""

from __future__ import annotations

import json
from typing import Any

CHARACTERS_MAX = 48


def in_brief(value: Any) -> str:
    """Return a value of a spec in a few words; texts and long lists by their number."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and len(value) > 3:
        return f"{len(value)} items, first {in_brief(value[0])}"
    if isinstance(value, dict) and isinstance(value.get("texts"), list):
        return f"{len(value['texts'])} texts" + (f" ({value['file']})" if value.get("file") else "")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    short = " ".join(text.split())
    fits = len(short) <= CHARACTERS_MAX
    return short if fits else f"{short[: CHARACTERS_MAX - 2]} …"
