"""Pictures of a mapping: histogram of cosines, scatter of pairs, heatmap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas
from markupsafe import Markup
from numpy.typing import NDArray

from loopscope.reports.page.figures.svg import (
    Canvas,
    Frame,
    cells,
    compact,
    decades,
    linear,
    logarithmic,
    ticks,
)
from loopscope.views.numbers import MISSING, count, decimal, is_missing

POINTS_MAX = 3000
NOT_KEPT = "not among the kept pairs"
READINGS = ("match", "partial", "co-occurring", "geometric-only", "unrelated", "unobserved")


def cosine_histogram(table: pandas.DataFrame, coarse: int, cut_off: float, above: int) -> Markup:
    """Return one anchor's cosines to all fine latents, counts on a log axis.

    ``table`` holds the anchor's rows of ``cosine_histogram.parquet``, ``above`` the fine latents
    at or above ``cut_off``.
    """
    filled = table[table["count"] > 0]
    low = min(-0.2, float(filled["bin_low"].min()))
    high = max(cut_off + 0.1, float(filled["bin_high"].max()))
    canvas = Canvas(400, 216, f"Histogram of decoder cosines of coarse latent {coarse}")
    marks = decades(1, max(10, int(filled["count"].max())))
    frame = Frame(
        canvas, 46, 26, 392, 174, linear(low, high, 46, 392), logarithmic(0.7, marks[-1], 174, 26)
    )
    frame.y_axis(marks, [compact(mark) for mark in marks], "fine latents (log)")
    places = ticks(low, high, 6)
    frame.x_axis(places, [compact(place) for place in places], "decoder cosine")
    for row in filled.itertuples():
        left, right, top = frame.x(row.bin_low), frame.x(row.bin_high), frame.y(row.count)
        canvas.add(
            "rect",
            tip=f"{row.bin_low:.2f} to {row.bin_high:.2f}: {count(row.count)} fine latents",
            x=left + 0.5,
            y=top,
            width=max(right - left - 1, 0.5),
            height=frame.bottom - top,
            css="bar above" if row.bin_low >= cut_off - 1e-9 else "bar",
            data_cells=cells(float(row.bin_low), float(row.bin_high), int(row.count)),
        )
    canvas.line(frame.x(cut_off), 20, frame.x(cut_off), frame.bottom, "cut")
    label = f"{count(above)} at or above {cut_off:g}"
    anchor = "end" if frame.x(cut_off) > 300 else "start"
    shift = -5 if anchor == "end" else 5
    canvas.text(frame.x(cut_off) + shift, 32, label, "label strong", text_anchor=anchor)
    return canvas.picture(data_columns="bin_low,bin_high,count")


def pair_scatter(pairs: pandas.DataFrame, rules: Mapping[str, Any], empty_corner: int) -> Markup:
    """Return correlation against cosine of the kept pairs; below, a strip of the unobserved."""
    canvas = Canvas(760, 430, "Correlation over prompts against decoder cosine of the kept pairs")
    seen = pairs[~pairs["correlation"].isna()]
    x_low, x_high = _range(pairs["cosine"], 0.0, rules["minCosine"] + 0.1)
    y_low, y_high = _range(seen["correlation"], 0.0, rules["minCorrelation"] + 0.1)
    frame = Frame(
        canvas, 52, 30, 744, 350, linear(x_low, x_high, 60, 736), linear(y_low, y_high, 342, 38)
    )
    across, up = ticks(x_low, x_high, 8), ticks(y_low, y_high, 6)
    frame.y_axis(up, [compact(v) for v in up], "activation correlation over prompts (r)")
    frame.x_axis(across, [compact(v) for v in across], "decoder cosine")
    cut_x, cut_y = frame.x(rules["minCosine"]), frame.y(rules["minCorrelation"])
    if y_low < rules["minCorrelation"]:
        canvas.add("rect", x=cut_x, y=cut_y, width=744 - cut_x, height=350 - cut_y, css="corner")
    canvas.line(cut_x, 30, cut_x, 350, "cut")
    canvas.line(52, cut_y, 744, cut_y, "cut")
    canvas.line(
        frame.x(rules["partialCosine"]), 30, frame.x(rules["partialCosine"]), 350, "cut faint"
    )
    note = f"geometric-only: {count(empty_corner)} pairs of all fine latents"
    canvas.text(738, 342, note, "label strong", text_anchor="end")
    for row in pairs.head(POINTS_MAX).itertuples():
        unseen = is_missing(row.correlation)
        canvas.add(
            "circle",
            tip=f"C-{row.coarse} to F-{row.fine}: cosine {decimal(row.cosine, 3)}, "
            f"r {decimal(row.correlation, 3)}, within target "
            f"{decimal(row.correlation_within_target, 3)}, {row.reading}",
            cx=frame.x(row.cosine),
            cy=400 if unseen else frame.y(row.correlation),
            r=4.5,
            css=f"dot {reading_class(row.reading)}",
            data_coarse=str(row.coarse),
            data_fine=str(row.fine),
        )
    if len(seen) < len(pairs):
        canvas.text(52, 422, "unobserved (the fine latent fires on no prompt: no r)", "tick")
    return canvas.picture()


def heatmap(
    anchors: Sequence[int],
    fine: Sequence[int],
    values: NDArray[np.float64],
    name: str,
    absent: str,
) -> Markup:
    """Return anchors x fine latents coloured by ``values``; a NaN is blank and ``absent``."""
    cell, left, top = 40, 84, 74
    canvas = Canvas(left + cell * len(fine) + 24, top + 30 * len(anchors) + 8, f"Heatmap of {name}")
    for column, latent in enumerate(fine):
        x = left + cell * column + cell / 2
        turn = f"rotate(-50 {x:.1f} {top - 8})"
        canvas.text(x, top - 8, f"F-{latent}", "tick", transform=turn, data_fine=str(latent))
    for row, coarse in enumerate(anchors):
        y = top + 30 * row
        place_of = {"text_anchor": "end", "data_coarse": str(coarse)}
        canvas.text(left - 8, y + 19, f"C-{coarse}", "label", **place_of)
        for column, latent in enumerate(fine):
            tip, x = f"C-{coarse}, F-{latent}: {name}", left + cell * column
            latents = {"data_coarse": str(coarse), "data_fine": str(latent)}
            _cell(canvas, x, y, float(values[row, column]), tip, absent, **latents)
    return canvas.picture()


def reading_class(reading: str) -> str:
    """Return the CSS class that colours a reading; an unknown name gets the neutral one."""
    return f"reading-{reading}" if reading in READINGS else "reading-unrelated"


def _cell(
    canvas: Canvas, x: float, y: float, value: float, tip: str, absent: str, **latents: str
) -> None:
    unknown = is_missing(value)
    strength = 0.0 if unknown else min(1.0, abs(value))
    canvas.add(
        "rect",
        tip=f"{tip} {absent if unknown else decimal(value, 3)}",
        x=x + 1,
        y=y + 1,
        width=38,
        height=28,
        css="blank" if unknown else ("heat" if value >= 0 else "heat negative"),
        fill_opacity=None if unknown else float(strength),
        data_value=None if unknown else f"{value:.6g}",
        **latents,
    )
    if unknown and absent == NOT_KEPT:
        return
    shown = MISSING if unknown else decimal(value, 2)
    css = "cell on" if strength > 0.85 else "cell"
    canvas.text(x + 20, y + 19, shown, css, text_anchor="middle", **latents)


def _range(values: pandas.Series, low: float, high: float) -> tuple[float, float]:
    """Return limits that hold ``values`` and [low, high], rounded outward to tenths."""
    found = values.to_numpy(dtype=float)
    found = found[np.isfinite(found)]
    if len(found):
        low, high = min(low, float(found.min())), max(high, float(found.max()))
    return np.floor(low * 10) / 10, np.ceil(high * 10) / 10
