"""The steering picture: how much concept each arm buys for how much disturbance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas
from markupsafe import Markup

from loopscope.reports.page.figures.svg import (
    Canvas,
    Frame,
    cells,
    compact,
    decades,
    linear,
    logarithmic,
    points,
    ticks,
)
from loopscope.views.numbers import decimal, interval, percent

LEFT, TOP, RIGHT, BOTTOM = 58.0, 34.0, 640.0, 344.0
LINE = 13.0
CHARACTER = 7.5


@dataclass(frozen=True)
class Label:
    """An arm's name, from ``x`` on; ``y`` is its foot, and ``to`` where what it fills ends."""

    x: float
    y: float
    name: str
    to: float | None = None

    def overlaps(self, other: Label) -> bool:
        """Whether both would be written over one another."""
        return abs(self.y - other.y) < LINE and self.x < other._right and other.x < self._right

    @property
    def _right(self) -> float:
        return self.x + CHARACTER * len(self.name) if self.to is None else self.to


def concept_against_kl(arms: pandas.DataFrame) -> Markup:
    """Return concept rate (with 95 % intervals) against next-token KL, one line an arm.

    ``arms`` holds ``arms.parquet``. The unsteered arm has no KL: it is the horizontal line.
    """
    steered = arms[(arms["arm"] != "none") & (arms["kl"] > 0)]
    canvas = Canvas(760, 400, "Concept rate against next-token KL, by arm and strength")
    if steered.empty:
        canvas.text(20, 40, "no steered arm was scored")
        return canvas.picture()
    marks = decades(float(steered["kl"].min()), float(steered["kl"].max()))
    frame = Frame(
        canvas,
        LEFT,
        TOP,
        RIGHT,
        BOTTOM,
        logarithmic(marks[0], marks[-1], LEFT + 8, RIGHT - 8),
        linear(0, 1, BOTTOM - 6, TOP + 8),
    )
    up = ticks(0, 1, 5)
    frame.y_axis(up, [percent(v, 0) for v in up], "texts with a lexicon word")
    frame.x_axis(marks, [compact(v) for v in marks], "next-token KL on neutral text, nats (log)")
    taken: list[Label] = []
    for row in arms[arms["arm"] == "none"].itertuples():
        height = frame.y(row.concept_rate)
        canvas.line(LEFT, height, RIGHT, height, "arm-line arm-none", stroke_dasharray="5 4")
        canvas.text(RIGHT + 6, height + 4, "none", "label arm-none")
        taken.append(Label(LEFT, height + 8, "none", to=canvas.width))  # and its line
    labels: list[Label] = []
    for arm, rows in steered.groupby("arm", sort=False):
        labels.append(_arm(frame, str(arm), rows.sort_values("strength")))
    _labels(canvas, labels, taken)
    columns = "arm,strength,kl,concept_rate,concept_low,concept_high"
    return canvas.picture(data_columns=columns)


def arm_class(arm: str) -> str:
    """Return the CSS class that colours an arm; all random draws share one."""
    kind = "random" if arm.startswith("random-") else arm
    return f"arm-{kind}" if kind in ("none", "coarse", "fine", "multi", "random") else "arm-other"


def _arm(frame: Frame, arm: str, rows: pandas.DataFrame) -> Label:
    css = arm_class(arm)
    line = [(frame.x(row.kl), frame.y(row.concept_rate)) for row in rows.itertuples()]
    frame.canvas.add("polyline", points=points(line), css=f"arm-line {css}")
    for row, (x, y) in zip(rows.itertuples(), line, strict=True):
        frame.canvas.line(
            x, frame.y(row.concept_low), x, frame.y(row.concept_high), f"whisker {css}"
        )
        numbers = (row.strength, row.kl, row.concept_rate, row.concept_low, row.concept_high)
        told = cells(arm, *map(float, numbers))
        frame.canvas.add(
            "circle", tip=_tip(row), cx=x, cy=y, r=5, css=f"dot {css}", data_cells=told
        )
    x, y = line[-1]
    return Label(x + 10, y, arm)


def _labels(canvas: Canvas, labels: list[Label], taken: list[Label]) -> None:
    """Write each arm's name beside its last point, moved up where it would overlap another one.

    ``taken`` are the names that are written already. The random draws share one colour and one
    name, beside the highest of them.
    """
    highest: dict[str, Label] = {}
    for label in sorted(labels, key=lambda label: label.y):
        name = "random draws" if label.name.startswith("random-") else label.name
        highest.setdefault(name, replace(label, name=name))
    for label in reversed(highest.values()):
        placed = replace(label, y=min(label.y, BOTTOM - 14))
        while any(placed.overlaps(other) for other in taken):
            placed = replace(placed, y=placed.y - 1)
        taken.append(placed)
        css = arm_class("random-0" if label.name == "random draws" else label.name)
        canvas.text(placed.x, placed.y - 4, placed.name, f"label strong {css}")


def _tip(row: Any) -> str:
    return (
        f"{row.arm} at {row.strength:g}: concept {percent(row.concept_rate, 0)} "
        f"{interval(row.concept_low, row.concept_high)}, perplexity "
        f"{decimal(row.median_perplexity, 1)}, KL {decimal(row.kl, 3)}"
    )
