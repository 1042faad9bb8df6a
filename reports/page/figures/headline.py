"""The one picture of the first screen: what steering came to, or what the anchors fire on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas
from markupsafe import Markup

from loopscope.reports.page.figures.steering import arm_class
from loopscope.reports.page.figures.svg import Canvas, Frame, cells, linear
from loopscope.views.numbers import interval, percent

LEFT, TOP, RIGHT, STEP = 122.0, 6.0, 352.0, 24.0
ARMS_MAX = 10
RANDOM_MAX = 2
"""Random directions that are drawn; they are alike, and the steering's own picture has all."""
MAIN = ("coarse", "fine", "multi")


@dataclass(frozen=True)
class Share:
    """A row of the picture: a share from 0 to 1, with its interval if it has one."""

    name: str
    css: str
    value: float
    low: float | None = None
    high: float | None = None


def arm_shares(arms: pandas.DataFrame) -> list[Share]:
    """Return the concept rate of the arms, each at its weakest strength, the main ones last."""
    weakest = arms.sort_values("strength", kind="stable").drop_duplicates("arm")
    by_name = {str(row.arm): row for row in weakest.itertuples()}
    order = [str(arm) for arm in dict.fromkeys(arms["arm"])]
    random = [arm for arm in order if arm.startswith("random-")]
    controls = [arm for arm in order if arm not in MAIN and arm not in random[RANDOM_MAX:]]
    main = [arm for arm in MAIN if arm in by_name]
    kept = controls[: ARMS_MAX - len(main)]
    return [
        Share(
            arm, arm_class(arm), float(row.concept_rate), float(row.concept_low),
            float(row.concept_high),
        )
        for arm in (*kept, *main)
        for row in (by_name[arm],)
    ]  # fmt: skip


def shares_picture(title: str, shares: Sequence[Share]) -> Markup:
    """Return one line a share, with a whisker for its interval."""
    bottom = TOP + STEP * len(shares)
    canvas = Canvas(400, bottom + 30, title)
    frame = Frame(
        canvas, LEFT, TOP, RIGHT, bottom,
        linear(0, 1, LEFT, RIGHT), linear(0, len(shares), TOP, bottom),
    )  # fmt: skip
    across = [0.0, 0.25, 0.5, 0.75, 1.0]
    frame.x_axis(across, [percent(value, 0) for value in across], "")
    for place, one in enumerate(shares):
        y = frame.y(place + 0.5)
        words = f"{one.name}: {percent(one.value, 0)}"
        canvas.text(LEFT - 8, y + 4, one.name, f"label strong {one.css}", text_anchor="end")
        if one.low is not None and one.high is not None:
            words += f" {interval(one.low, one.high)}"
            canvas.line(frame.x(one.low), y, frame.x(one.high), y, f"whisker {one.css}")
        canvas.add(
            "circle",
            tip=words,
            cx=frame.x(one.value),
            cy=y,
            r=5,
            css=f"dot {one.css}",
            data_cells=cells(one.name, one.value, one.low, one.high),
        )
        canvas.text(RIGHT + 8, y + 4, percent(one.value, 0), "tick")
    return canvas.picture(data_columns="name,share,low,high")
