"""The anchors of a mapping: each candidate beside all fine latents, and the rows kept of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.gate import is_child, readings
from numerics.mapping import Indices, correlations, cosine_histogram, coverages, top_latents
from worker.context import StageContext
from worker.stages.sides import Rules, Side

ANCHORS_PER_BLOCK = 16

PAIR_TYPES = {
    "coarse": np.int64,
    "fine": np.int64,
    "cosine": np.float32,
    "correlation": np.float64,
    "correlation_within_target": np.float64,
    "reading": np.str_,
    "coverage_coarse_given_fine": np.float64,
    "coverage_fine_given_coarse": np.float64,
    "child": np.bool_,
}
HISTOGRAM_TYPES = {
    "coarse": np.int64,
    "bin_low": np.float64,
    "bin_high": np.float64,
    "count": np.int64,
}


@dataclass(frozen=True)
class Anchor:
    """One anchor: its children (highest cosine first), its table rows, its empty corner."""

    coarse: int
    children: Indices
    children_cosines: NDArray[np.float32]
    pairs: dict[str, NDArray[Any]]
    histogram: dict[str, NDArray[Any]]
    geometric_only: int
    """Pairs with the cosine but not the correlation, counted over all fine latents."""


def describe_anchors(
    coarse: Side,
    fine: Side,
    candidates: Indices,
    cosines: NDArray[np.float32],
    rules: Rules,
    context: StageContext,
) -> Iterator[Anchor]:
    """Yield each candidate in the order given; ``cosines`` is [candidates, fine]."""
    every = np.arange(fine.all_prompts.latents)
    for start in range(0, len(candidates), ANCHORS_PER_BLOCK):
        context.progress("Correlating", start, len(candidates), "anchors")
        block = candidates[start : start + ANCHORS_PER_BLOCK]
        r = correlations(coarse.all_prompts, fine.all_prompts, block, every)
        within = correlations(coarse.target_prompts, fine.target_prompts, block, every)
        given_fine, given_coarse = coverages(coarse.all_prompts, fine.all_prompts, block)
        for place, latent in enumerate(block):
            columns = {
                "cosine": cosines[start + place],
                "correlation": r[place],
                "correlation_within_target": within[place],
                "coverage_coarse_given_fine": given_fine[place],
                "coverage_fine_given_coarse": given_coarse[place],
            }
            yield _anchor(int(latent), columns, fine, rules)
    context.progress("Correlating", len(candidates), len(candidates), "anchors")


def joined(tables: list[dict[str, NDArray[Any]]], types: dict[str, Any]) -> dict[str, Any]:
    """Concatenate tables; without any, return empty columns of the right types."""
    return {
        name: np.concatenate([np.empty(0, dtype=kind), *(table[name] for table in tables)])
        for name, kind in types.items()
    }


def _anchor(coarse: int, columns: dict[str, NDArray[Any]], fine: Side, rules: Rules) -> Anchor:
    """Reduce an anchor's columns [fine] to the rows worth keeping.

    Kept are the union of the top k by cosine and the top k by correlation, and every child.
    """
    cosine, r = columns["cosine"], columns["correlation"]
    child = is_child(rules.rule, cosine, r, fine.statistics.selectivity, rules.child)
    children = top_latents(np.where(child, cosine, np.nan), len(cosine))
    best = np.union1d(top_latents(cosine, rules.top_k), top_latents(r, rules.top_k))
    kept = np.union1d(best, children)
    kept = kept[np.lexsort((kept, -cosine[kept]))]
    pairs = {name: values[kept] for name, values in columns.items()}
    reading = readings(
        pairs["cosine"],
        pairs["correlation"],
        rules.child.cosine_min,
        rules.cosine_partial,
        rules.child.correlation_min,
    )
    low, high, count = cosine_histogram(cosine)
    corner = (cosine >= rules.child.cosine_min) & (r < rules.child.correlation_min)
    return Anchor(
        coarse=coarse,
        children=children,
        children_cosines=cosine[children],
        pairs={
            "coarse": np.full(len(kept), coarse),
            "fine": kept,
            **pairs,
            "reading": reading,
            "child": child[kept],
        },
        histogram={
            "coarse": np.full(len(count), coarse),
            "bin_low": low,
            "bin_high": high,
            "count": count,
        },
        geometric_only=int(corner.sum()),
    )
