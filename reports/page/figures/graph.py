"""The decomposition graph: each anchor with the fine latents that belong to it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas
from markupsafe import Markup

from loopscope.reports.page.figures.mapping import reading_class
from loopscope.reports.page.figures.svg import Canvas
from loopscope.views.numbers import decimal

CHILDREN_SHOWN_MAX = 12
ROW = 22.0
LEFT, RIGHT = 150.0, 470.0


@dataclass(frozen=True)
class GraphAnchor:
    """An anchor of the graph: its label's numbers and its pairs, highest cosine first."""

    coarse: int
    selectivity: float
    firing_rate_target: float
    passes: bool
    pairs: pandas.DataFrame


def decomposition_graph(anchors: list[GraphAnchor]) -> Markup:
    """Return anchors on the left, children on the right.

    Edge width is the cosine, its colour the reading. A child of two anchors stands once, below
    the first of them. Beyond a dozen children an anchor's weakest are only counted.
    """
    shown = {a.coarse: a.pairs.head(CHILDREN_SHOWN_MAX) for a in anchors}
    rows, place = _places(anchors, shown)
    canvas = Canvas(800, 24 + ROW * max(rows, 1), "Graph of anchors and their children")
    for anchor in anchors:
        y_anchor = place[f"C-{anchor.coarse}"]
        for pair in shown[anchor.coarse].itertuples():
            y_fine = place[f"F-{pair.fine}"]
            middle = (LEFT + RIGHT) / 2
            start, end = f"{LEFT},{y_anchor:.1f}", f"{RIGHT},{y_fine:.1f}"
            canvas.add(
                "path",
                tip=f"C-{anchor.coarse} to F-{pair.fine}: cosine {decimal(pair.cosine, 3)}, "
                f"r {decimal(pair.correlation, 3)}, {pair.reading}",
                d=f"M{start} C{middle},{y_anchor:.1f} {middle},{y_fine:.1f} {end}",
                css=f"edge {reading_class(pair.reading)}",
                data_coarse=str(anchor.coarse),
                data_fine=str(pair.fine),
                stroke_width=1 + 8 * max(0.0, float(pair.cosine)),
            )
    labelled: set[int] = set()
    for anchor in anchors:
        _anchor(canvas, anchor, place[f"C-{anchor.coarse}"])
        for pair in shown[anchor.coarse].itertuples():
            if pair.fine not in labelled:
                _child(canvas, pair, place[f"F-{pair.fine}"])
            labelled.add(pair.fine)
        hidden = len(anchor.pairs) - len(shown[anchor.coarse])
        if hidden:
            words = (
                f"and {hidden} more below cosine {decimal(shown[anchor.coarse]['cosine'].min())}"
            )
            canvas.text(RIGHT + 12, place[f"more-{anchor.coarse}"] + 4, words, "tick")
    return canvas.picture()


def _places(
    anchors: list[GraphAnchor], shown: dict[int, pandas.DataFrame]
) -> tuple[float, dict[str, float]]:
    """Return the number of rows, and the height of every node."""
    place: dict[str, float] = {}
    row = 0.0
    for anchor in anchors:
        first = row
        for fine in shown[anchor.coarse]["fine"]:
            if f"F-{fine}" not in place:
                place[f"F-{fine}"] = 20 + ROW * row
                row += 1
        if len(anchor.pairs) > len(shown[anchor.coarse]):
            place[f"more-{anchor.coarse}"] = 20 + ROW * row
            row += 1
        row = max(row, first + 2)
        place[f"C-{anchor.coarse}"] = 20 + ROW * (first + row - 1) / 2
        row += 0.6
    return row, place


def _anchor(canvas: Canvas, anchor: GraphAnchor, y: float) -> None:
    latent, css = str(anchor.coarse), "node coarse" if anchor.passes else "node"
    canvas.add("circle", cx=LEFT, cy=y, r=8, css=css, data_coarse=latent)
    name = f"C-{latent}"
    canvas.text(LEFT - 16, y, name, "label strong", text_anchor="end", data_coarse=latent)
    facts = (
        f"sel {decimal(anchor.selectivity)}, fires {decimal(100 * anchor.firing_rate_target, 0)} %"
    )
    canvas.text(LEFT - 16, y + 14, facts, "tick", text_anchor="end", data_coarse=latent)


def _child(canvas: Canvas, pair: pandas.Series, y: float) -> None:
    latent, css = str(pair.fine), f"node {reading_class(pair.reading)}"
    canvas.add("circle", cx=RIGHT, cy=y, r=5, css=css, data_fine=latent)
    canvas.text(RIGHT + 12, y + 4, f"F-{latent}", "label", data_fine=latent)
    facts = f"cosine {decimal(pair.cosine)}, r {decimal(pair.correlation)}, {pair.reading}"
    canvas.text(RIGHT + 82, y + 4, facts, "tick", data_fine=latent)
