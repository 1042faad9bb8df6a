"""The picture of prompts in a plane, with directions as arrows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from loopscope.reports.page.figures.svg import Canvas, Frame, compact, linear, points, ticks
from loopscope.views.navigator import Arrow, Floats, Plane
from loopscope.views.numbers import percent

LEFT, TOP, RIGHT, BOTTOM = 64.0, 30.0, 520.0, 430.0
ARROW = 0.42
"""Length of an arrow that lies in the plane as a whole, as a share of the picture's height."""
TEXT_CHARACTERS_MAX = 120


def plane_picture(
    plane: Plane, prompt_ids: Sequence[str], texts: Sequence[str], conditions: Sequence[str]
) -> Markup:
    """Return one dot a prompt, coloured by condition, and an arrow a direction from their mean.

    Both axes have one scale, so that distances and angles in the picture are those of the plane.
    """
    canvas = Canvas(560, 480, f"Prompts in the {plane.name}, by condition")
    frame = framed(canvas, plane, plane.points)
    rows = zip(plane.points.tolist(), prompt_ids, texts, conditions, strict=True)
    for (x, y), name, text, condition in rows:
        shown = " ".join(text.split())
        short = shown if len(shown) <= TEXT_CHARACTERS_MAX else f"{shown[:TEXT_CHARACTERS_MAX]}…"
        canvas.add(
            "circle",
            tip=f"{name}: {short}",
            cx=frame.x(x),
            cy=frame.y(y),
            r=3.2,
            css=f"dot condition-{condition}",
            data_prompt=name,
            data_condition=condition,
            data_x=f"{x:.6g}",
            data_y=f"{y:.6g}",
        )
    draw_arrows(frame, plane)
    return canvas.picture()


def framed(canvas: Canvas, plane: Plane, points: Floats) -> Frame:
    """Draw the axes of a plane, wide enough for the points; both have one scale."""
    low, high = _square(points)
    frame = Frame(
        canvas, LEFT, TOP, RIGHT, BOTTOM,
        linear(low[0], high[0], LEFT, RIGHT), linear(low[1], high[1], BOTTOM, TOP),
    )  # fmt: skip
    across, up = ticks(low[0], high[0], 6), ticks(low[1], high[1], 6)
    shares = [percent(share) for share in plane.variance]
    frame.y_axis(up, [compact(v) for v in up], f"{plane.axes[1]} ({shares[1]} of the variance)")
    frame.x_axis(
        across, [compact(v) for v in across], f"{plane.axes[0]} ({shares[0]} of the variance)"
    )
    return frame


def draw_arrows(frame: Frame, plane: Plane) -> None:
    """Draw the arms' directions with their names, and single children thinly under them."""
    for child in plane.children:
        words = f"{child.name}, a child: {percent(child.share, 0)} of its length is seen"
        frame.canvas.line(*_ends(frame, child), "child-line arm-fine", tip=words)
    for place, arrow in enumerate(plane.arrows):
        _arrow(frame, arrow, place)


def _square(points: Floats) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the corners of the picture: the mean of the prompts is in it, both scales are one."""
    ends = np.vstack([points, np.zeros((1, 2))])
    low, high = ends.min(axis=0), ends.max(axis=0)
    middle = (low + high) / 2
    unit = max((high[0] - low[0]) / (RIGHT - LEFT), (high[1] - low[1]) / (BOTTOM - TOP)) or 1.0
    half = 0.54 * unit * np.array([RIGHT - LEFT, BOTTOM - TOP])
    first, last = middle - half, middle + half
    return (float(first[0]), float(first[1])), (float(last[0]), float(last[1]))


def _ends(frame: Frame, arrow: Arrow) -> tuple[float, float, float, float]:
    long = ARROW * (BOTTOM - TOP)
    x, y = frame.x(0.0), frame.y(0.0)
    return x, y, x + long * arrow.x, y - long * arrow.y


def _arrow(frame: Frame, arrow: Arrow, place: int) -> None:
    """Draw a direction from the mean of the prompts, as long as the part of it that is seen.

    Its name stands in line ``place`` of a corner: arrows may lie on one another.
    """
    x1, y1, x2, y2 = _ends(frame, arrow)
    css = f"arm-line arm-{arrow.name}"
    frame.canvas.line(x1, y1, x2, y2, css)
    if arrow.share > 0.02:
        turned = math.atan2(y2 - y1, x2 - x1)
        head = [
            (x2 - 9 * math.cos(turned + by), y2 - 9 * math.sin(turned + by)) for by in (-0.4, 0.4)
        ]
        frame.canvas.add("polyline", points=points([head[0], (x2, y2), head[1]]), css=css)
    words = f"{arrow.name}: {percent(arrow.share, 0)} of its length is seen"
    frame.canvas.text(
        RIGHT, TOP + 14 * (place + 1), words, f"label strong arm-{arrow.name}", text_anchor="end"
    )
