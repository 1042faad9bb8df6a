"""The drift of a made-up experiment: an effect that halves from distance to distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loopscope.specs.artifacts.drift import CURVE, POINTS, WANDER_GRID, WANDER_SAMPLES
from loopscope.specs.payloads.drift import ANCHORS
from tests.unit.reports_payloads import HOSTILE, document, table

DISTANCES = (0, 100, 2000)
TEMPERATURES = (0.5, 1.0)
NEAR = {"systemPrompt": 0.4, "otherWords": 0.02, "steeredPrefix": 0.1, "steering": 0.3}


def effect(anchor: str, place: int) -> float:
    return NEAR[anchor] / 2 ** (0 if anchor == "steering" else place)


def write_drift(openings: int, out: Path) -> dict[str, Any]:
    """Write points, curves, grid and document; return the metrics."""
    places = [(anchor, place) for anchor in ANCHORS for place in range(len(DISTANCES))]
    rows = [
        (f"opening-{n:04d}", n, anchor, DISTANCES[place], False, effect(anchor, place), 0.3, 0.1)
        for anchor, place in places
        for n in range(openings)
    ]
    table(out, POINTS, **_columns(POINTS, rows))
    curve = [
        (anchor, DISTANCES[place], False, *_mean(effect(anchor, place)), *_mean(0.2), openings)
        for anchor, place in places
    ]
    again = [
        (anchor, DISTANCES[-1], True, *_mean(NEAR[anchor]), *_mean(0.2), openings)
        for anchor in ("systemPrompt", "steeredPrefix")
    ]
    table(out, CURVE, **_columns(CURVE, curve + again))
    cells = [(anchor, heat) for anchor in ("none", *ANCHORS) for heat in TEMPERATURES]
    samples = [
        (f"opening-{n:04d}", anchor, heat, HOSTILE, 1 - heat, 2.0, 0.1, 0.0)
        for anchor, heat in cells
        for n in range(openings)
    ]
    table(out, WANDER_SAMPLES, **_columns(WANDER_SAMPLES, samples))
    grid = [
        (anchor, heat, *_mean(1 - heat), 2.0, 0.25, 0.1, 0.5, *_mean(0.05), openings)
        for anchor, heat in cells
    ]
    table(out, WANDER_GRID, **_columns(WANDER_GRID, grid))
    outcomes = [_outcome(anchor, outcome) for outcome in ("kl", "concept") for anchor in ANCHORS]
    told = {
        "arm": "multi", "strength": 0.5, "norm": 812.5, "distances": list(DISTANCES), "fillers": 3,
        "filler_tokens": 2000, "openings": openings, "anchor_tokens": 8,
        "concept_tokens": [" Paris", HOSTILE], "temperatures": list(TEMPERATURES),
        "outcomes": outcomes,
    }  # fmt: skip
    document(out / "drift.json", told)
    numbers = {
        one["anchor"]: {
            "near": one["near"], "far": one["far"], "half_life": one["half_life"],
            "half_life_low": one["half_life_low"], "half_life_high": one["half_life_high"],
            "fade": one["fade"], "p": one["p_holm"],
        }
        for one in outcomes[: len(ANCHORS)]
    }  # fmt: skip
    return {
        "arm": "multi", "strength": 0.5, "openings": openings, "fillers": 3, "tokens": 2000,
        "concept_tokens": 2, "anchors": numbers,
    }  # fmt: skip


def _mean(value: float) -> tuple[float, float, float]:
    return value, value - 0.01, value + 0.01


def _outcome(anchor: str, outcome: str) -> dict[str, Any]:
    near, far = effect(anchor, 0), effect(anchor, len(DISTANCES) - 1)
    stays, again = anchor == "steering", anchor in ("systemPrompt", "steeredPrefix")
    return {
        "anchor": anchor, "outcome": outcome,
        "near": near, "near_low": near - 0.01, "near_high": near + 0.01,
        "far": far, "far_low": far - 0.01, "far_high": far + 0.01,
        "difference": near - far, "low": near - far - 0.01, "high": near - far + 0.01,
        "p": 0.5 if stays else 0.001, "p_holm": 1.0 if stays else 0.008,
        "fade": "no fade shown" if stays else "fades",
        "half_life": None if stays else 100.0,
        "half_life_low": None if stays else 80.0,
        "half_life_high": None if stays else 1234.5,
        "again": near if again else None,
        "again_low": near - 0.01 if again else None, "again_high": near + 0.01 if again else None,
    }  # fmt: skip


def _columns(file: Any, rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    names = [column.name for column in file.columns]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
