"""Pictures of a drift: effects by distance, and samples by temperature, with their bands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from loopscope.reports.page.figures.svg import (
    Canvas,
    Frame,
    Scale,
    cells,
    compact,
    linear,
    points,
    ticks,
)
from loopscope.views.drift import CurvePoint, GridCell, Mean

LEFT, TOP, RIGHT, BOTTOM = 62.0, 34.0, 560.0, 304.0
LINE = 14.0

Place = tuple[float, Mean]


@dataclass(frozen=True)
class Series:
    """One anchor's means along the horizontal axis, and what stands apart from its line."""

    anchor: str
    along: Sequence[Place]
    apart: Sequence[Place] = ()


def by_distance(curve: Sequence[CurvePoint], outcome: str) -> Markup:
    """Return an outcome (``kl`` or ``concept``) of each anchor by distance, log(1 + tokens).

    Open circles are anchors that were repeated behind the filler.
    """
    series = [
        Series(
            anchor,
            [(float(one.distance), _of(one, outcome)) for one in own if not one.again],
            [(float(one.distance), _of(one, outcome)) for one in own if one.again],
        )
        for anchor, own in _by_anchor(curve).items()
    ]
    marks = sorted({float(one.distance) for one in curve})
    words = {"kl": "next-token KL, nats", "concept": "gain in concept probability"}[outcome]

    def across(low: float, high: float) -> Scale:
        inner = linear(math.log1p(low), math.log1p(high), LEFT + 10, RIGHT - 10)
        return lambda value: inner(math.log1p(value))

    title = f"{words} by distance".capitalize()
    return _picture(title, series, marks, across, ("distance", words), "tokens of filler (log)")


def by_temperature(grid: Sequence[GridCell], outcome: str) -> Markup:
    """Return ``wander``, ``concept`` or ``gain`` of each anchor by temperature."""
    found: dict[str, list[Place]] = {}
    for one in sorted(grid, key=lambda cell: cell.temperature):
        mean = {"wander": one.wander, "concept": one.concept, "gain": one.gain}[outcome]
        if outcome != "gain" or one.anchor != "none":
            found.setdefault(one.anchor, []).append((one.temperature, mean))
    words = {
        "wander": "KL(sampled ‖ anchored), nats a token",
        "concept": "texts with a lexicon word",
        "gain": "gain in concept probability",
    }[outcome]
    marks = sorted({one.temperature for one in grid})

    def across(low: float, high: float) -> Scale:
        return linear(low, high, LEFT + 10, RIGHT - 10)

    series = [Series(anchor, along) for anchor, along in found.items()]
    return _picture(words, series, marks, across, ("temperature", words), "temperature")


def _of(point: CurvePoint, outcome: str) -> Mean:
    return point.kl if outcome == "kl" else point.concept


def _by_anchor(curve: Sequence[CurvePoint]) -> Mapping[str, list[CurvePoint]]:
    found: dict[str, list[CurvePoint]] = {}
    for one in curve:
        found.setdefault(one.anchor, []).append(one)
    return found


def _picture(
    title: str,
    series: Sequence[Series],
    marks: Sequence[float],
    across: Callable[[float, float], Scale],
    columns: tuple[str, str],
    below: str,
) -> Markup:
    canvas = Canvas(760, 352, title)
    means = [mean for one in series for _, mean in (*one.along, *one.apart)]
    low = min(0.0, *(mean.low for mean in means))
    high = max(mean.high for mean in means) or 1.0
    frame = Frame(
        canvas, LEFT, TOP, RIGHT, BOTTOM,
        across(marks[0], marks[-1]),
        linear(low, high, BOTTOM - 6, TOP + 8),
    )  # fmt: skip
    up = ticks(low, high, 5)
    frame.y_axis(up, [compact(one) for one in up], columns[1])
    frame.x_axis(marks, [compact(one) for one in marks], below)
    for one in series:
        _band(frame, one)
    for one in series:
        _line(frame, one, columns)
    _names(frame, series)
    return canvas.picture(data_columns=f"anchor,{columns[0]},mean,low,high")


def _band(frame: Frame, one: Series) -> None:
    upper = [(frame.x(x), frame.y(mean.high)) for x, mean in one.along]
    lower = [(frame.x(x), frame.y(mean.low)) for x, mean in reversed(one.along)]
    css = f"band anchor-{one.anchor}"
    frame.canvas.add("polygon", points=points([*upper, *lower]), css=css)


def _line(frame: Frame, one: Series, columns: tuple[str, str]) -> None:
    line = [(frame.x(x), frame.y(mean.estimate)) for x, mean in one.along]
    css = f"anchor-{one.anchor}"
    frame.canvas.add("polyline", points=points(line), css=f"arm-line {css}")
    for x, mean in (*one.along, *one.apart):
        apart = (x, mean) in one.apart
        tip = f"{one.anchor} at {columns[0]} {x:g}{', repeated behind it' if apart else ''}: "
        tip += f"{mean.estimate:.3g} ({mean.low:.3g} to {mean.high:.3g})"
        told = cells(one.anchor, float(x), mean.estimate, mean.low, mean.high)
        frame.canvas.add(
            "circle", tip=tip, cx=frame.x(x), cy=frame.y(mean.estimate), r=5 if apart else 3.5,
            css=f"{'ring' if apart else 'dot'} {css}", data_cells=told,
        )  # fmt: skip


def _names(frame: Frame, series: Sequence[Series]) -> None:
    """Write each anchor's name beside its last point, moved down where two would overlap."""
    last = float("-inf")
    for one in sorted(series, key=lambda one: frame.y(one.along[-1][1].estimate)):
        y = max(frame.y(one.along[-1][1].estimate) + 4, last + LINE)
        frame.canvas.text(RIGHT + 8, y, one.anchor, f"label strong anchor-{one.anchor}")
        last = y
