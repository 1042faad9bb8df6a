"""The picture of robustness: each arm's rate under each rule, a line a run and arm."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from loopscope.reports.page.figures.steering import arm_class
from loopscope.reports.page.figures.svg import Canvas, Frame, cells, linear, ticks
from loopscope.views.numbers import interval, percent, signed, signed_interval
from loopscope.views.robustness import DECLARED, Robustness

LEFT, RIGHT, WIDTH, TOP, STEP = 150.0, 640.0, 780.0, 8.0, 16.0
SHOWN = ("none", "coarse", "fine", "multi", "random")
CHARACTERS_MAX = 90


def robustness_picture(found: Robustness) -> Markup:
    """Return the rate with its 95 % interval of unsteered text, the arms and random directions."""
    lines: list[str | dict[Any, Any]] = []
    for run, rows in found.arms.groupby(["axis", "setting", "experiment"], sort=False):
        axis, setting, _ = run
        words = f"{'as declared' if axis == DECLARED else axis}: {setting}"
        lines.append(words if len(words) <= CHARACTERS_MAX else f"{words[: CHARACTERS_MAX - 1]}…")
        lines += [row for row in rows.to_dict("records") if row["arm"] in SHOWN]
    bottom = TOP + STEP * len(lines)
    canvas = Canvas(WIDTH, bottom + 40, "Concept rate of each arm, by sampling rule and openings")
    across = linear(0, 1, LEFT, RIGHT)
    frame = Frame(canvas, LEFT, TOP, RIGHT, bottom, across, linear(0, 1, TOP, bottom))
    marks = ticks(0, 1, 5)
    frame.x_axis(marks, [percent(mark, 0) for mark in marks], "texts with a word of the concept")
    for place, line in enumerate(lines):
        middle = TOP + STEP * (place + 0.5)
        if isinstance(line, str):
            canvas.text(4, middle + 4, line, "strong")
        else:
            _arm(frame, line, middle)
    return canvas.picture(data_columns="axis,setting,arm,rate,low,high")


def _arm(frame: Frame, row: dict[Any, Any], middle: float) -> None:
    css, canvas = arm_class("random-0" if row["arm"] == "random" else row["arm"]), frame.canvas
    canvas.text(14, middle + 4, row["arm"], f"label {css}")
    canvas.line(frame.x(row["low"]), middle, frame.x(row["high"]), middle, f"whisker {css}")
    tip = f"{row['arm']}: {percent(row['rate'], 0)} {interval(row['low'], row['high'])}"
    if row["arm"] != "none":
        effect = signed_interval(row["effect_low"], row["effect_high"])
        tip += f", effect {signed(row['effect'])} {effect}"
    told = cells(row["axis"], row["setting"], row["arm"], row["rate"], row["low"], row["high"])
    canvas.add(
        "circle",
        tip=tip,
        cx=frame.x(row["rate"]),
        cy=middle,
        r=4,
        css=f"dot {css}",
        data_cells=told,
    )
