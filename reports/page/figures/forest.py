"""A forest plot: each concept's difference and, behind it, the same drawn towards the mean.

Concepts stand by family, the largest difference first; those that could not be tested are rows
without a mark. Below them the pooled mean as a diamond, and the interval of a new concept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from loopscope.numerics.verdict.pooling import Interval
from loopscope.reports.page.figures.svg import Canvas, Frame, linear
from loopscope.views.numbers import MINUS, signed, signed_interval
from loopscope.views.studies import NOT_TESTABLE, ConceptRow, Study

LEFT, RIGHT, WIDTH, TOP, STEP = 150.0, 560.0, 720.0, 8.0, 19.0
TICKS_MAX = 9
_STEPS = (0.1, 0.2, 0.25, 0.5)
_BELOW = ("mean", "a new concept")


def forest(study: Study) -> Markup | None:
    """Return the picture; None where no concept was tested."""
    tested = [one for one in study.concepts if one.shown is not None]
    mean = study.answer.mean
    if not tested or mean is None:
        return None
    rows = _rows(study.concepts)
    below = _BELOW if study.answer.spread is not None else _BELOW[:1]
    bottom = TOP + STEP * (len(rows) + len(below) + 0.5)
    contrast = study.answer.contrast.replace("-", f" {MINUS} ")
    canvas = Canvas(WIDTH, bottom + 40, f"{contrast} in {len(tested)} concepts and over all")
    low, high, ticks = _axis(study, [one.shown for one in tested if one.shown], mean)
    scale = linear(low, high, LEFT, RIGHT)
    frame = Frame(canvas, LEFT, TOP, RIGHT, bottom, scale, linear(0, 1, TOP, bottom))
    labels = [f"{tick:+.2g}".replace("-", MINUS) if tick else "0" for tick in ticks]
    frame.x_axis(ticks, labels, f"{contrast}, concept rate")
    canvas.line(scale(0), TOP, scale(0), bottom, "axis", stroke_dasharray="3 2")
    for number, row in enumerate(rows):
        middle = TOP + STEP * (number + 0.5)
        if isinstance(row, str):
            canvas.text(4, middle + 4, row, "strong")
        else:
            _concept(frame, row, middle)
    middle = TOP + STEP * (len(rows) + 1)
    _mean(frame, mean, middle)
    if study.answer.spread is not None:
        _new(frame, study.answer.spread.new, middle + STEP)
    return canvas.picture()


def _rows(concepts: Sequence[ConceptRow]) -> list[str | ConceptRow]:
    """Return each family's name and behind it its concepts, the largest difference first."""
    rows: list[str | ConceptRow] = []
    for family in sorted({one.family for one in concepts}):
        own = [one for one in concepts if one.family == family]
        rows += [family, *sorted(own, key=_last_without_difference)]
    return rows


def _last_without_difference(one: ConceptRow) -> float:
    return -one.shown.estimate if one.shown is not None else math.inf


def _axis(
    study: Study, shown: Sequence[Interval], mean: Interval
) -> tuple[float, float, list[float]]:
    new = [study.answer.spread.new] if study.answer.spread is not None else []
    ends = [end for one in (*shown, mean, *new) for end in (one.low, one.high)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    step = next((s for s in _STEPS if (high - low) / s < TICKS_MAX), _STEPS[-1])
    first, last = int(low // step), int(-(-high // step))
    ticks = [round(step * number, 10) for number in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _concept(frame: Frame, row: ConceptRow, middle: float) -> None:
    canvas = frame.canvas
    canvas.text(16, middle + 4, row.name)
    if row.shown is None:
        words = "not testable" if row.row.word == NOT_TESTABLE else "no answer yet"
        canvas.text(frame.right + 12, middle + 4, words, "tick")
        return
    tip = f"{row.name}: {signed(row.shown.estimate)} " + signed_interval(
        row.shown.low, row.shown.high
    )
    canvas.line(
        frame.x(row.shown.low), middle, frame.x(row.shown.high), middle, "whisker arm-multi"
    )
    if row.drawn is not None:
        canvas.line(
            frame.x(row.drawn.low), middle, frame.x(row.drawn.high), middle, "arm-line arm-multi"
        )
        canvas.line(frame.x(row.drawn.estimate), middle - 5, frame.x(row.drawn.estimate),
                    middle + 5, "arm-line arm-multi")  # fmt: skip
    canvas.add(
        "circle", tip=tip, cx=frame.x(row.shown.estimate), cy=middle, r=3.5, css="dot arm-multi"
    )
    canvas.text(frame.right + 12, middle + 4, tip.partition(": ")[2], "tick")


def _mean(frame: Frame, mean: Interval, middle: float) -> None:
    canvas = frame.canvas
    left, right, centre = frame.x(mean.low), frame.x(mean.high), frame.x(mean.estimate)
    corners = ((left, middle), (centre, middle - 6), (right, middle), (centre, middle + 6))
    canvas.add("polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners), css="bar above")
    canvas.text(4, middle + 4, _BELOW[0], "strong")
    words = f"{signed(mean.estimate)} {signed_interval(mean.low, mean.high)}"
    canvas.text(frame.right + 12, middle + 4, words, "tick")


def _new(frame: Frame, new: Interval, middle: float) -> None:
    canvas = frame.canvas
    canvas.line(frame.x(new.low), middle, frame.x(new.high), middle, "cut")
    canvas.text(4, middle + 4, _BELOW[1])
    words = f"{signed(new.estimate)} {signed_interval(new.low, new.high)}"
    canvas.text(frame.right + 12, middle + 4, words, "tick")
