"""A figure as a file of its own, with the style that it has in a report."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from markupsafe import Markup

STYLE = Path(__file__).parents[1] / "templates" / "report.css"


def picture_alone(picture: Markup) -> str:
    """Return a figure, one ``<svg>``, as the text of an SVG file; it follows light and dark."""
    head, _, rest = str(picture).partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{_style()}</style>{rest}'


@cache
def _style() -> str:
    return str(Markup.escape(STYLE.read_text(encoding="utf-8")))
