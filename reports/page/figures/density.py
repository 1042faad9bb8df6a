"""The picture of how strongly a latent fires, by condition."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from loopscope.reports.page.figures.svg import Canvas, cells, compact, linear, ticks
from loopscope.views.numbers import count

BINS = 24
ROW = 46.0
LEFT, RIGHT = 96.0, 392.0


def density(by_condition: Mapping[str, NDArray[np.float32]], title: str) -> Markup:
    """Return a histogram a condition of the activations [prompts] above 0, on one scale.

    Bars are shares of the condition's prompts; those on which the latent is silent are counted
    beside it.
    """
    largest = max((float(found.max(initial=0.0)) for found in by_condition.values()), default=0.0)
    canvas = Canvas(400, ROW * len(by_condition) + 26, title)
    if largest <= 0:
        canvas.text(LEFT, 24, "it fires on no prompt", "tick")
        return canvas.picture()
    edges = np.linspace(0.0, largest, BINS + 1)
    x = linear(0.0, largest, LEFT, RIGHT)
    shares = {
        name: np.histogram(found[found > 0], edges)[0] / max(1, len(found))
        for name, found in by_condition.items()
    }
    tallest = max(float(found.max()) for found in shares.values())
    for line, (name, found) in enumerate(shares.items()):
        bottom = ROW * (line + 1) - 6
        silent = int((by_condition[name] <= 0).sum())
        canvas.text(LEFT - 8, bottom - 14, name, "label", text_anchor="end")
        canvas.text(LEFT - 8, bottom, f"{count(silent)} silent", "tick", text_anchor="end")
        canvas.line(LEFT, bottom, RIGHT, bottom, "axis")
        for place, share in enumerate(found.tolist()):
            if share > 0:
                height = share / tallest * (ROW - 12)
                canvas.add(
                    "rect",
                    tip=f"{name}: {share:.1%} of the prompts at {edges[place]:.2f} to "
                    f"{edges[place + 1]:.2f}",
                    x=x(float(edges[place])) + 0.5,
                    y=bottom - height,
                    width=x(float(edges[place + 1])) - x(float(edges[place])) - 1,
                    height=height,
                    css="bar above" if name == "target" else "bar",
                    data_cells=cells(name, float(edges[place]), float(edges[place + 1]), share),
                )
    for mark in ticks(0.0, largest, 5):
        canvas.text(x(mark), canvas.height - 8, compact(mark), "tick", text_anchor="middle")
    return canvas.picture(data_columns="condition,low,high,share")
