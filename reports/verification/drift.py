"""Drift: the curve of each anchor, half-lives and tests, and the grid of temperatures."""

from __future__ import annotations

import numpy as np
import pandas
from numpy.typing import NDArray

from loopscope.numerics.drift.curve import Effect, band, fades, half_life
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.drift import CURVE, DRIFT, POINTS, WANDER_GRID, WANDER_SAMPLES, Drift

CURVES = "drift: the curve of each anchor"
FADES = "drift: half-lives and tests"
GRID = "drift: means of the grid of temperatures"
SPANS = {"kl": None, "concept": 1.0}
"""The largest difference that each outcome can have."""
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def check_drift(bundle: OpenBundle, findings: Findings) -> None:
    """Compute curves, half-lives, tests and means of the grid again."""
    document, points, curve = bundle.document(DRIFT), bundle.table(POINTS), bundle.table(CURVE)
    if document is None or points is None or curve is None:
        return
    points = points.assign(concept=points["concept"] - points["concept_unanchored"])
    with findings.part(CURVES, CURVE.name):
        _check_curve(points, curve, findings)
    with findings.part(FADES, DRIFT.name):
        _check_outcomes(document, points, findings)
        stated = bundle.manifest("drift")["metrics"]["anchors"]
        findings.same(FADES, "status", stated, _numbers(document))
    with findings.part(GRID, WANDER_GRID.name):
        _check_grid(bundle, findings)
    findings.leave_out(
        "the effects of anchors after each opening, and the samples", "needs the model"
    )


def _check_curve(points: pandas.DataFrame, curve: pandas.DataFrame, findings: Findings) -> None:
    by = dict(list(points.groupby(["anchor", "distance", "again"])))
    for row in curve.to_dict("records"):
        own = by[row["anchor"], row["distance"], row["again"]]
        filler = own["filler"].to_numpy(dtype=np.int64)
        where = f"{row['anchor']} at {row['distance']}"
        findings.same(CURVES, f"{where}, n", row["n"], len(own))
        for name, span in SPANS.items():
            mean = band(own[name].to_numpy(), filler, span=span)
            stated = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            findings.same(CURVES, f"{where}, {name}", stated, [mean.estimate, mean.low, mean.high])
    findings.same(CURVES, "rows", len(curve), len(by))


def _check_outcomes(document: Drift, points: pandas.DataFrame, findings: Findings) -> None:
    named = [(one["anchor"], one["outcome"]) for one in document["outcomes"]]
    tables = [_effects(points, *one) for one in named]
    filler = tables[0][1]
    tested = fades(
        [
            Effect(own[:, 0], own[:, -1], SPANS[outcome])
            for (own, _), (_, outcome) in zip(tables, named, strict=True)
        ],
        filler,
    )
    distances = document["distances"]
    for stated, (own, _), fade in zip(document["outcomes"], tables, tested, strict=True):
        half = half_life(distances, own, filler) if fade.effect.low > 0 else None
        far = band(own[:, -1], filler, span=SPANS[stated["outcome"]])
        computed = {
            "near": fade.effect.estimate, "near_low": fade.effect.low,
            "near_high": fade.effect.high, "far": far.estimate, "far_low": far.low,
            "far_high": far.high, "difference": fade.difference.estimate,
            "low": fade.difference.low, "high": fade.difference.high, "p": fade.p,
            "p_holm": fade.p_holm, "fade": fade.word,
            "half_life": None if half is None else half.estimate,
            "half_life_low": None if half is None else half.low,
            "half_life_high": None if half is None else half.high,
        }  # fmt: skip
        recorded = {name: dict(stated)[name] for name in computed}
        findings.same(FADES, f"{stated['anchor']}, {stated['outcome']}", recorded, computed)


def _numbers(document: Drift) -> dict[str, object]:
    """Return what the status says of each anchor."""
    return {
        one["anchor"]: {
            **{name: dict(one)[name] for name in ("near", "far", "fade")},
            **{name: dict(one)[name] for name in ("half_life", "half_life_low", "half_life_high")},
            "p": one["p_holm"],
        }
        for one in document["outcomes"]
        if one["outcome"] == "kl"
    }


def _effects(points: pandas.DataFrame, anchor: str, outcome: str) -> tuple[Floats, Integers]:
    """Return an anchor's effects [openings, distances], and the filler of each opening."""
    own = points[(points["anchor"] == anchor) & ~points["again"]]
    table = own.pivot(index="prompt_id", columns="distance", values=outcome)
    filler = own.drop_duplicates("prompt_id").set_index("prompt_id")["filler"]
    return table.to_numpy(), filler.loc[table.index].to_numpy(dtype=np.int64)


def _check_grid(bundle: OpenBundle, findings: Findings) -> None:
    samples, grid = bundle.table(WANDER_SAMPLES), bundle.table(WANDER_GRID)
    if samples is None or grid is None:
        return
    cells = samples.groupby(["anchor", "temperature"])
    means = cells[["wander", "surprisal", "concept", "concept_mass"]].mean()
    for row in grid.to_dict("records"):
        cell = row["anchor"], row["temperature"]
        where = f"{cell[0]} at {cell[1]:g}"
        findings.same(GRID, f"{where}, n", row["n"], int(cells.size()[cell]))
        for name in ("wander", "surprisal", "concept"):
            findings.same(GRID, f"{where}, {name}", row[name], means.loc[cell, name])
        gain = means.loc[cell, "concept_mass"] - means.loc[("none", cell[1]), "concept_mass"]
        findings.same(GRID, f"{where}, gain", row["gain"], gain)
