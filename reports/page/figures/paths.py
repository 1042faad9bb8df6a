"""The picture of texts on their way through a plane, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from loopscope.reports.page.figures.plane import LEFT, RIGHT, draw_arrows, framed
from loopscope.reports.page.figures.steering import arm_class
from loopscope.reports.page.figures.svg import Canvas, Frame, Scale, points
from loopscope.views.navigator import PathInPlane, Plane

SHOWN_ARMS = ("none", "coarse", "fine", "multi")
"""Arms that are drawn before any is chosen."""
NAME_WIDTH, NAME_HEIGHT = 80.0, 13.0
"""About as much room as an arm's name takes."""


def paths_picture(plane: Plane, number: int, conditions: Sequence[str]) -> Markup:
    """Return the paths of the first opening that is followed, prompts faintly behind them.

    The picture is wide enough for all texts of the plane. Its attributes say how a script places
    another one: ``data-across`` and ``data-up`` hold the place of 0 and that of 1.
    """
    canvas = Canvas(560, 480, f"Paths of generated texts in the {plane.name}, by arm")
    every = [one for path in plane.paths for one in (path.before, path.behind)]
    frame = framed(canvas, plane, np.vstack([plane.points, *every]))
    for (x, y), condition in zip(plane.points.tolist(), conditions, strict=True):
        canvas.add("circle", cx=frame.x(x), cy=frame.y(y), r=1.8, css=f"far condition-{condition}")
    draw_arrows(frame, plane)
    first = plane.paths[0].path.opening
    drawn = shown([one for one in plane.paths if one.path.opening == first])
    inner = Canvas(RIGHT, RIGHT, "")
    taken: list[tuple[float, float]] = []
    for one in drawn:
        _path(inner, frame, one, taken)
    canvas.add("g", text=inner.marks(), css="paths")
    return canvas.picture(
        data_plane=str(number), data_across=_scale(frame.x), data_up=_scale(frame.y)
    )


def shown(paths: Sequence[PathInPlane]) -> list[PathInPlane]:
    """Return the paths of the arms that are drawn first, or of all where there is none of these."""
    return [one for one in paths if one.path.arm in SHOWN_ARMS] or list(paths)


def _scale(axis: Scale) -> str:
    return f"{axis(0.0):.6g} {axis(1.0):.6g}"


def _path(inner: Canvas, frame: Frame, one: PathInPlane, taken: list[tuple[float, float]]) -> None:
    """Draw a path as a line with a dot a step; the last has the arm's name beside it.

    ``taken`` are the feet of the names that are written already: the next one stands below them.
    """
    css = arm_class(one.path.arm)
    places = [(frame.x(x), frame.y(y)) for x, y in one.behind.tolist()]
    inner.add("polyline", points=points(places), css=f"path-line {css}")
    for step, ((x, y), token, steered) in enumerate(
        zip(places, one.path.tokens, one.path.steered, strict=True)
    ):
        inner.add(
            "circle",
            tip=f"{one.path.arm}, step {step}{', steered' if steered else ''}: {token}",
            cx=x,
            cy=y,
            r=5.0 if step == len(places) - 1 else 3.0,
            css=f"dot {css}",
            data_step=str(step),
        )
    x, y = places[-1][0], places[-1][1] - 5
    while any(abs(x - left) < NAME_WIDTH and abs(y - foot) < NAME_HEIGHT for left, foot in taken):
        y += 1
    taken.append((x, y))
    side, off = ("end", -6) if x > (LEFT + RIGHT) / 2 else ("start", 6)
    inner.text(x + off, y, one.path.arm, f"label strong {css}", text_anchor=side)
