"""The effect of each cell of a grid as a mark with its interval, all on one scale."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from loopscope.reports.page.figures.svg import Canvas, linear
from loopscope.views.numbers import is_missing, signed, signed_interval
from loopscope.views.several import Row

WIDTH, HEIGHT, EDGE = 170.0, 16.0, 5.0


def effect(rows: Sequence[Row]) -> list[Markup]:
    """Return a small picture for each row, empty where there is no estimate.

    The broken line stands at 0; the scale spans the intervals of all rows.
    """
    ends = [
        value
        for row in rows
        for value in (row.low, row.high, row.estimate)
        if value is not None and not is_missing(value)
    ]
    scale = linear(min([0.0, *ends]), max([0.0, *ends]), EDGE, WIDTH - EDGE)
    pictures = []
    for row in rows:
        if row.estimate is None:
            pictures.append(Markup(""))
            continue
        words = f"{signed(row.estimate)} {signed_interval(row.low, row.high)}"
        canvas = Canvas(WIDTH, HEIGHT, f"effect in {row.name}: {words}")
        middle = HEIGHT / 2
        canvas.line(scale(0), 0, scale(0), HEIGHT, "axis", stroke_dasharray="3 2")
        if row.low is not None and row.high is not None:
            canvas.line(scale(row.low), middle, scale(row.high), middle, "arm-line arm-multi")
        canvas.add("circle", cx=scale(row.estimate), cy=middle, r=3.5, css="dot arm-multi")
        pictures.append(canvas.picture())
    return pictures
