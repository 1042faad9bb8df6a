"""Every anchor beside every fine latent that heatmaps show, in an order of like to like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas
import scipy.cluster.hierarchy
from numpy.typing import NDArray

from loopscope.reports.page.figures.tree import Join
from loopscope.specs.artifacts.decomposition import ACTIVATIONS, PROMPTS
from loopscope.specs.artifacts.evidence import COSINES
from loopscope.specs.artifacts.mapping import PAIRS
from loopscope.views.activations import prompt_activations
from loopscope.views.experiment import ExperimentView

ANCHORS_MAX = 8
FINE_MAX = 22

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cells:
    """Anchors by fine latents, both in the order in which they are drawn.

    ``cosine`` and ``correlation`` [anchors, fine] are NaN where they are not known or, of a latent
    that does not vary, not defined; ``kept`` are the pairs that the mapping kept. ``is_complete``:
    all cosines are known, not only those of kept pairs; ``joins`` make a tree of the columns then.
    """

    anchors: list[int]
    fine: list[int]
    cosine: Floats
    correlation: Floats
    kept: NDArray[np.bool_]
    is_complete: bool
    joins: tuple[Join, ...] = ()


def cells(view: ExperimentView, anchors: Sequence[int]) -> Cells:
    """Return the cells of the first anchors and the fine latents with the largest cosines.

    Of kept pairs the numbers are the mapping's. Of the others the cosine is that of the evidence,
    where there is one, and the correlation is made again from the prompts' activations.
    """
    pairs = view.stage("mapping").table(PAIRS)
    rows = list(anchors[:ANCHORS_MAX])
    pairs = pairs[pairs["coarse"].isin(rows)]
    rows = [coarse for coarse in rows if coarse in set(pairs["coarse"])]
    columns = _columns(pairs, rows)
    kept = _table(pairs, "cosine", rows, columns)
    cosine, correlation = kept.copy(), _table(pairs, "correlation", rows, columns)
    evidence = view.stage("evidence")
    if evidence.available:
        found = _table(evidence.table(COSINES), "cosine", rows, columns)
        cosine = np.where(np.isnan(kept), found, kept)
    if view.stage("coarse").available and view.stage("fine").available:
        made = _correlations(view, rows, columns)
        correlation = np.where(np.isnan(kept), made, correlation)
    complete = not np.isnan(cosine).any()
    down, across = (like_to_like(cosine), like_to_like(cosine.T)) if complete else (None, None)
    order = np.ix_(
        range(len(rows)) if down is None else down,
        range(len(columns)) if across is None else across,
    )
    return Cells(
        [rows[place] for place in order[0].ravel()],
        [columns[place] for place in order[1].ravel()],
        cosine[order],
        correlation[order],
        ~np.isnan(kept)[order],
        complete,
        joins(cosine.T) if complete else (),
    )


def like_to_like(rows: Floats) -> list[int]:
    """Return an order of rows in which neighbours are alike.

    Average linkage of Euclidean distances, the leaves turned so that the sum of distances between
    neighbours is least (Bar-Joseph, Gifford and Jaakkola 2001).
    """
    if len(rows) < 3:
        return list(range(len(rows)))
    return [int(place) for place in scipy.cluster.hierarchy.leaves_list(_tree(rows))]


def joins(rows: Floats) -> tuple[Join, ...]:
    """Return what becomes one in the tree behind ``like_to_like``, the nearest first.

    Places are those of that order, in which each group is a stretch; none of fewer than three rows.
    """
    if len(rows) < 3:
        return ()
    made: list[Join] = []
    tree = _tree(rows)
    places = np.argsort(scipy.cluster.hierarchy.leaves_list(tree)).tolist()
    groups = [(float(place), 0.0, place, place) for place in places]
    for one, other, distance, _ in tree:
        left, right = sorted((groups[int(one)], groups[int(other)]))
        made.append(Join(left[:2], right[:2], float(distance), left[2], right[3]))
        groups.append(((left[0] + right[0]) / 2, float(distance), left[2], right[3]))
    return tuple(made)


def _tree(rows: Floats) -> Floats:
    found = scipy.cluster.hierarchy.linkage(rows, method="average", optimal_ordering=True)
    return np.asarray(found, dtype=np.float64)


def _columns(pairs: pandas.DataFrame, anchors: Sequence[int]) -> list[int]:
    """Return the fine latents with the largest cosines, grouped by the anchor they belong to."""
    best = pairs.sort_values("cosine", ascending=False, kind="stable").drop_duplicates("fine")
    place = {coarse: number for number, coarse in enumerate(anchors)}
    chosen = best.head(FINE_MAX)
    grouped = chosen.assign(anchor=chosen["coarse"].map(place))
    rows = grouped.sort_values(["anchor", "cosine"], ascending=[True, False], kind="stable")
    return [int(fine) for fine in rows["fine"]]


def _table(
    rows: pandas.DataFrame, column: str, anchors: Sequence[int], fine: Sequence[int]
) -> Floats:
    """Return a column of a table of pairs as [anchors, fine]; NaN where it has no such pair."""
    places = {(c, f): (i, j) for i, c in enumerate(anchors) for j, f in enumerate(fine)}
    found = np.full((len(anchors), len(fine)), np.nan)
    for coarse, other, value in zip(rows["coarse"], rows["fine"], rows[column], strict=True):
        if (coarse, other) in places:
            found[places[coarse, other]] = value
    return found


def _correlations(view: ExperimentView, anchors: Sequence[int], fine: Sequence[int]) -> Floats:
    """Return Pearson's r over the discover prompts, as the mapping does; NaN without variance."""
    prompts = view.prompts.table(PROMPTS)
    counted = prompts["condition"] != "hard-negative"
    if "split" in prompts:
        counted &= prompts["split"] == "discover"
    chosen = np.flatnonzero(counted)
    sides = []
    for side, latents in (("coarse", anchors), ("fine", fine)):
        stage = view.stage("coarse" if side == "coarse" else "fine")
        found = prompt_activations(stage.path(ACTIVATIONS.name), latents)
        columns = np.stack([found[latent][chosen] for latent in latents]).astype(np.float64)
        centred = columns - columns.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        varies = norms > 1e-12 * np.maximum(1.0, np.abs(columns).max(axis=1, keepdims=True))
        sides.append(np.where(varies, centred / np.where(varies, norms, 1.0), np.nan))
    return np.asarray(np.clip(sides[0] @ sides[1].T, -1.0, 1.0))
