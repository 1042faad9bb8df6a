"""A forest plot of looks: the difference by which each choice judges, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from loopscope.reports.page.figures.svg import Canvas, Frame, cells, compact, linear, ticks
from loopscope.views.numbers import MINUS, signed, signed_interval
from loopscope.views.sensitivity.look import Look

LEFT, RIGHT, WIDTH, TOP, STEP = 290.0, 590.0, 780.0, 8.0, 18.0
NAME_CHARACTERS_MAX = 44


def looks_picture(rows: Sequence[Look], min_difference: float | None) -> Markup | None:
    """Return a line a look with a difference; None without any. Axes stand above their looks.

    Looks that differ in the smallest practical difference alone have the declared difference.
    """
    drawn = [one for one in rows if one.estimate is not None and one.axis != "minDifference"]
    if not drawn:
        return None
    lines: list[str | Look] = []
    for place, one in enumerate(drawn):
        if one.axis != "declared" and (not place or drawn[place - 1].axis != one.axis):
            lines.append(one.axis)
        lines.append(one)
    bottom = TOP + STEP * len(lines)
    canvas = Canvas(WIDTH, bottom + 40, "The difference that decides, by choice")
    low, high = _span(drawn)
    scale = linear(low, high, LEFT, RIGHT)
    frame = Frame(canvas, LEFT, TOP, RIGHT, bottom, scale, linear(0, 1, TOP, bottom))
    marks = ticks(low, high)
    frame.x_axis(marks, [compact(mark) for mark in marks], "multi less the better single arm")
    canvas.line(scale(0), TOP, scale(0), bottom, "axis")
    for limit in (-min_difference, min_difference) if min_difference is not None else ():
        if low <= limit <= high:
            canvas.line(scale(limit), TOP, scale(limit), bottom, "axis", stroke_dasharray="3 2")
    for place, line in enumerate(lines):
        middle = TOP + STEP * (place + 0.5)
        if isinstance(line, str):
            canvas.text(4, middle + 4, line, "strong")
        else:
            _look(frame, line, middle)
    return canvas.picture(data_columns="axis,setting,verdict,contrast,difference,low,high")


def look_class(one: Look) -> str:
    """Return the class that colours a look: declared, the same word, or another."""
    if one.source == "declared":
        return "look-declared"
    return "look-changed" if one.changed else "look-same"


def _span(rows: Sequence[Look]) -> tuple[float, float]:
    ends = [end for one in rows for end in (one.low, one.estimate, one.high) if end is not None]
    return min(-0.1, *ends), max(0.1, *ends)


def _look(frame: Frame, one: Look, middle: float) -> None:
    css, canvas = look_class(one), frame.canvas
    assert one.estimate is not None  # only these are drawn
    numbers = f"{signed(one.estimate)} {signed_interval(one.low, one.high)}"
    name = one.setting
    if len(name) > NAME_CHARACTERS_MAX:
        name = f"{name[: NAME_CHARACTERS_MAX - 1]}…"
    canvas.text(4 if one.source == "declared" else 14, middle + 4, name)
    if one.low is not None and one.high is not None:
        canvas.line(frame.x(one.low), middle, frame.x(one.high), middle, f"whisker {css}")
    canvas.add(
        "circle",
        tip=f"{one.setting}: {one.contrast.replace('-', f' {MINUS} ')} {numbers}, {one.verdict}",
        cx=frame.x(one.estimate),
        cy=middle,
        r=4,
        css=f"dot {css}",
        data_cells=cells(
            one.axis, one.setting, one.verdict, one.contrast, one.estimate, one.low, one.high
        ),
    )
    canvas.text(frame.right + 12, middle + 4, one.verdict, f"tick {css}")
