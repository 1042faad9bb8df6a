"""The picture of a splitting graph: levels from coarse to fine, an edge for what carries on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from loopscope.reports.page.figures.svg import Canvas, cells
from loopscope.views.numbers import decimal, percent
from loopscope.views.splitting import GraphEdge, GraphLatent

ROW, TOP, STEP, LEFT = 28.0, 44.0, 300.0, 150.0
SHOWN_MAX = 60
"""Latents of one level that are drawn, those with relatives first."""
STABLE_MIN = 0.8
"""Share of the halves below which an edge is dashed: what the gate asks for by default."""
LABEL_PLACES = {"end": (-12.0, 4.0), "start": (12.0, 4.0), "middle": (0.0, -9.0)}
"""Where a label stands beside its latent, by how it is anchored."""
FATE_CSS = {
    "kept": "reading-match", "twin": "reading-match", "split": "arm-multi", "part": "arm-multi",
    "absorbed": "reading-geometric-only", "merged": "arm-coarse", "born": "arm-fine",
    "lost": "reading-unobserved",
}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """A column of the picture: its heading, and its latents by number."""

    name: str
    latents: Mapping[int, GraphLatent]


def splitting_picture(levels: Sequence[Level], steps: Sequence[Sequence[GraphEdge]]) -> Markup:
    """Return the levels from left to right; ``steps`` are the direct edges between each two.

    A latent stands beside the mean of its parents; beyond sixty a level's others are only counted.
    """
    orders = _orders(levels, steps)
    rows = max((min(len(order), SHOWN_MAX) + 1 for order in orders), default=1)
    width = LEFT + STEP * (len(levels) - 1) + 190
    canvas = Canvas(width, TOP + ROW * rows + 10, "Splitting graph, from coarse to fine")
    places = [
        {latent: TOP + ROW * (row + 0.5) for row, latent in enumerate(order[:SHOWN_MAX])}
        for order in orders
    ]
    for number, step in enumerate(steps):
        x = LEFT + STEP * number
        for edge in step:
            left, right = places[number].get(edge.coarse), places[number + 1].get(edge.fine)
            if left is not None and right is not None:
                _edge(canvas, edge, (x, left), (x + STEP, right))
    for number, level in enumerate(levels):
        x = LEFT + STEP * number
        canvas.text(x, 20, level.name, "label strong", text_anchor="middle")
        for latent, y in places[number].items():
            between = 0 < number < len(levels) - 1
            side = "middle" if between else "end" if number == 0 else "start"
            _node(canvas, level.latents[latent], x, y, side)
        if (hidden := len(orders[number]) - SHOWN_MAX) > 0:
            y = TOP + ROW * (SHOWN_MAX + 0.5)
            canvas.text(x, y, f"and {hidden} more", "tick", text_anchor="middle")
    return canvas.picture(data_columns="coarse,fine,cosine,correlation,stability")


def _orders(levels: Sequence[Level], steps: Sequence[Sequence[GraphEdge]]) -> list[list[int]]:
    """Return the latents of each level from top to bottom: by their parents, then by number."""
    found: list[list[int]] = []
    for number, level in enumerate(levels):
        above = steps[number - 1] if number else ()
        below = steps[number] if number < len(steps) else ()
        row = {latent: place for place, latent in enumerate(found[-1])} if found else {}
        parents: dict[int, list[int]] = {}
        for edge in above:
            if edge.coarse in row:
                parents.setdefault(edge.fine, []).append(row[edge.coarse])
        related = set(parents) | {edge.coarse for edge in below}
        found.append(
            [latent for *_, latent in sorted(_rank(one, parents, related) for one in level.latents)]
        )
    return found


def _rank(latent: int, parents: dict[int, list[int]], related: set[int]) -> tuple[bool, float, int]:
    above = parents.get(latent, [])
    return latent not in related, sum(above) / len(above) if above else float("inf"), latent


def _edge(
    canvas: Canvas, edge: GraphEdge, start: tuple[float, float], end: tuple[float, float]
) -> None:
    middle = (start[0] + end[0]) / 2
    css = "reading-match" if edge.twin else "arm-multi"
    canvas.add(
        "path",
        tip=f"{edge.coarse} to {edge.fine}: cosine {decimal(edge.cosine, 3)}, "
        f"r {decimal(edge.correlation, 3)}, in {percent(edge.stability, 0)} of the halves"
        f"{', twin' if edge.twin else ''}",
        d=f"M{start[0]},{start[1]:.1f} C{middle},{start[1]:.1f} {middle},{end[1]:.1f} "
        f"{end[0]},{end[1]:.1f}",
        css=f"edge {css}",
        stroke_width=1 + 6 * max(0.0, edge.cosine),
        stroke_dasharray=None if edge.stability >= STABLE_MIN else "4 3",
        data_cells=cells(edge.coarse, edge.fine, edge.cosine, edge.correlation, edge.stability),
    )


def _node(canvas: Canvas, latent: GraphLatent, x: float, y: float, side: str) -> None:
    css = FATE_CSS.get(latent.fate.rpartition(" ")[2], "reading-unrelated")
    tip = f"fires on {percent(latent.firing_rate_target, 0)} of the target prompts"
    canvas.add("circle", tip=tip, cx=x, cy=y, r=7 if latent.candidate else 4, css=f"dot {css}")
    words = f"{latent.latent} {latent.fate}"
    across, down = LABEL_PLACES[side]  # edges leave and reach a level in between on both sides
    canvas.text(x + across, y + down, words, "label", text_anchor=side)
