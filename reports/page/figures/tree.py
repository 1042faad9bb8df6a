"""The tree of the columns of a heatmap: which of them are alike, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from loopscope.reports.page.figures.svg import Canvas, cells, linear, points
from loopscope.views.numbers import decimal

LEFT, CELL, TOP, BOTTOM = 84.0, 40.0, 10.0, 130.0


@dataclass(frozen=True)
class Join:
    """Two neighbouring groups of columns that become one at a ``distance``.

    ``left`` and ``right`` are their middles in columns, each with the distance at which it was made
    itself; ``first`` and ``last`` the outer columns of both.
    """

    left: tuple[float, float]
    right: tuple[float, float]
    distance: float
    first: int
    last: int


def tree(fine: Sequence[int], joins: Sequence[Join]) -> Markup | None:
    """Return the tree above the names of its leaves, where a heatmap has them; None without one."""
    if not joins:
        return None
    canvas = Canvas(LEFT + CELL * len(fine) + 24, BOTTOM + 60, "Tree of the fine latents")
    x = linear(0, 1, LEFT + CELL / 2, LEFT + CELL * 1.5)
    y = linear(0, max(one.distance for one in joins), BOTTOM, TOP)
    for one in joins:
        (left, low), (right, other) = one.left, one.right
        first, last = fine[one.first], fine[one.last]
        canvas.add(
            "polyline",
            tip=f"F-{first} to F-{last}: one group from {decimal(one.distance, 3)} on",
            points=points(
                [(x(left), y(low)), (x(left), y(one.distance)), (x(right), y(one.distance)),
                 (x(right), y(other))]
            ),
            css="arm-line arm-none",
            data_cells=cells(first, last, one.distance),
        )  # fmt: skip
    for place, latent in enumerate(fine):
        turn = f"rotate(50 {x(place):.1f} {BOTTOM + 14:.1f})"
        canvas.text(x(place), BOTTOM + 14, f"F-{latent}", "tick", transform=turn)
    return canvas.picture(data_columns="first,last,distance")
