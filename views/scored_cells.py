"""The scores of a steering as a verdict compares them, read from its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas
from numpy.typing import NDArray

from loopscope.numerics.verdict.cells import Floats, ScoredCells
from loopscope.reconcilers.steering import scored_openings
from loopscope.specs.spec_json import SteeringJson
from loopscope.specs.stopping import turns_of

_KEYS = ("prompt_id", "arm", "strength", "sample")
NOT_SCORES = {*_KEYS, "kl"}


def scored_cells(
    scores: pandas.DataFrame,
    spec: SteeringJson,
    neutral: pandas.DataFrame | None = None,
    outcomes: Sequence[str] | None = None,
) -> ScoredCells:
    """Return what ``steering_scores.parquet`` holds of each cell, by default every outcome.

    ``neutral`` is ``neutral_text.parquet``; without it no cell did anything to any text. ``spec``
    knows which openings belong together. Raises ValueError where a text is there twice or missing.
    """
    cells = list(dict.fromkeys(zip(scores["arm"], scores["strength"].astype(float), strict=True)))
    openings = sorted(scores["prompt_id"].unique())
    samples = sorted(scores["sample"].unique())
    places = _places(scores, cells, openings, samples)
    shape = len(cells), len(openings), len(samples)
    names = [name for name in scores if name not in NOT_SCORES] if outcomes is None else outcomes
    kl, budget = _effects(neutral, cells)
    return ScoredCells(
        [(str(arm), float(strength)) for arm, strength in cells],
        {str(name): _filled(scores[name], places, shape) for name in names},
        kl,
        budget,
        groups_of(spec, openings),
        turns_of_openings(spec, openings),
    )


def groups_of(spec: SteeringJson, openings: Sequence[str]) -> NDArray[np.int64] | None:
    """Return which openings belong together; None where each stands for itself.

    Raises ValueError for an opening that the spec does not score.
    """
    groups: Mapping[str, int | None] = {
        opening["id"]: opening.get("group") for opening in scored_openings(spec)
    }
    if unknown := [opening for opening in openings if opening not in groups]:
        raise ValueError(f"{unknown[0]} is no opening that the spec scores")
    numbers = [groups[opening] for opening in openings]
    return None if None in numbers else np.array(numbers, dtype=np.int64)


def turns_of_openings(spec: SteeringJson, openings: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the place of each opening in the order of the looks; None without looks."""
    if (rule := spec.get("stopEarly")) is None:
        return None
    scored = scored_openings(spec)
    turns = turns_of(scored, rule, spec["sampling"]["seed"])
    by_id = {opening["id"]: turn for opening, turn in zip(scored, turns, strict=True)}
    return np.array([by_id[opening] for opening in openings], dtype=np.int64)


def _places(
    scores: pandas.DataFrame,
    cells: Sequence[tuple[object, object]],
    openings: Sequence[str],
    samples: Sequence[int],
) -> tuple[NDArray[np.int64], ...]:
    number = {cell: index for index, cell in enumerate(cells)}
    own = zip(scores["arm"], scores["strength"].astype(float), strict=True)
    found = (
        np.array([number[cell] for cell in own], dtype=np.int64),
        np.searchsorted(openings, scores["prompt_id"].to_numpy(dtype=str)),
        np.searchsorted(samples, scores["sample"].to_numpy()),
    )
    flat = np.ravel_multi_index(found, (len(cells), len(openings), len(samples)))
    if len(np.unique(flat)) != len(cells) * len(openings) * len(samples):
        raise ValueError("a text is missing or stands there twice")
    return found


def _filled(
    column: pandas.Series[float], places: tuple[NDArray[np.int64], ...], shape: tuple[int, ...]
) -> Floats:
    filled = np.full(shape, np.nan)
    filled[places] = column.to_numpy(dtype=np.float64)
    return filled


def _effects(
    neutral: pandas.DataFrame | None, cells: Sequence[tuple[object, object]]
) -> tuple[Floats, Floats | None]:
    """Return KL and budget [cells, texts]; no budget where none was made equal."""
    if neutral is None:
        return np.zeros((len(cells), 1)), None
    by_cell = neutral.set_index(["arm", "strength", "number"]).sort_index()
    kl = np.stack([by_cell.loc[cell, "kl"].to_numpy(dtype=np.float64) for cell in cells])
    budget = np.stack([by_cell.loc[cell, "budget"].to_numpy(dtype=np.float64) for cell in cells])
    return kl, None if np.isnan(budget).all() else budget
