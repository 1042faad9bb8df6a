"""The anchors of a mapping: each candidate beside all fine latents, and the rows kept of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.gate.rule import READINGS, behaves_like_child, readings
from loopscope.numerics.latents.mapping import (
    Indices,
    correlations,
    cosine_bins,
    coverages,
    top_latents,
)
from loopscope.numerics.latents.permutation import edge_test, exchangeable_strata, smallest_p
from loopscope.numerics.latents.same_cosine import SameCosine
from loopscope.numerics.statistics.multiple_tests import benjamini_hochberg
from loopscope.specs.artifacts.mapping import PAIRS
from loopscope.worker.context import StageContext
from loopscope.worker.stages.mapping.pair import Pair
from loopscope.worker.stages.mapping.sides import Rules, Side
from loopscope.worker.stages.tables import joined

ANCHORS_PER_BLOCK = 16
PAIR_COLUMNS = PAIRS.without("q_permutation", "edge", "aggregation")
"""Columns that follow from one anchor's pairs; the others need the pairs of all anchors."""


@dataclass(frozen=True)
class Anchor:
    """One anchor: its children (highest cosine first), its table rows, what it leaves out.

    ``readings`` counts the anchor's pairs with all fine latents, ``aligned_unobserved`` those of
    them that have the cosine of a child but no correlation. ``behaves`` [fine] marks the fine
    latents that the rule would take as children whatever their cosine, ``correlated`` those that
    reach minCorrelation.
    """

    coarse: int
    children: Indices
    children_cosines: NDArray[np.float32]
    pairs: dict[str, NDArray[Any]]
    histogram: dict[str, NDArray[Any]]
    readings: dict[str, int]
    aligned_unobserved: int
    behaves: NDArray[np.bool_]
    correlated: NDArray[np.bool_]


def describe_anchors(
    coarse: Side,
    fine: Side,
    candidates: Indices,
    cosines: NDArray[np.float32],
    pair: Pair,
    rules: Rules,
    context: StageContext,
) -> list[Anchor]:
    """Return each candidate in the order given; ``cosines`` is [candidates, fine]."""
    found = []
    every = np.arange(fine.all_prompts.latents)
    strata = exchangeable_strata(coarse.within_condition.group, coarse.last_token)
    for start in range(0, len(candidates), ANCHORS_PER_BLOCK):
        context.progress("Correlating", start, len(candidates), "anchors")
        block = candidates[start : start + ANCHORS_PER_BLOCK]
        r = correlations(coarse.all_prompts, fine.all_prompts, block, every)
        within = correlations(coarse.target_prompts, fine.target_prompts, block, every)
        partial = correlations(coarse.within_condition, fine.within_condition, block, every)
        given_fine, given_coarse = coverages(coarse.all_prompts, fine.all_prompts, block)
        for place, latent in enumerate(block):
            tests = edge_test(
                coarse.within_condition,
                fine.within_condition,
                int(latent),
                rules.permutations,
                rules.seed,
                strata,
            )
            columns = {
                "cosine": cosines[start + place],
                "correlation": r[place],
                "correlation_within_target": within[place],
                "correlation_within_condition": partial[place],
                "p_permutation": tests.alone,
                "p_search": tests.searched,
                "coverage_coarse_given_fine": given_fine[place],
                "coverage_fine_given_coarse": given_coarse[place],
            }
            found.append(_anchor(int(latent), columns, fine, pair, rules))
    context.progress("Correlating", len(candidates), len(candidates), "anchors")
    _compare(found, coarse, fine, strata, rules, context)
    return found


def _compare(
    anchors: list[Anchor],
    coarse: Side,
    fine: Side,
    strata: Indices,
    rules: Rules,
    context: StageContext,
) -> None:
    """Add the context of each pair's p: the smallest possible one, and that of similar pairs."""
    columns = coarse.within_condition, fine.within_condition
    latents = np.asarray([anchor.coarse for anchor in anchors], dtype=np.int64)
    tables = [anchor.pairs for anchor in anchors]
    if not tables:
        return

    def read() -> None:
        fine.release()
        context.progress("Correlating", len(anchors), len(anchors), "anchors")

    alike = SameCosine.of(
        (coarse.decoder, fine.decoder), *columns, latents, rules.seed, on_block=read
    )
    p, number = alike.compared(
        np.concatenate([table["cosine"] for table in tables]),
        np.concatenate([table["correlation_within_condition"] for table in tables]),
    )
    ends = np.cumsum([len(table["cosine"]) for table in tables])[:-1]
    for table, latent, one, pairs in zip(
        tables, latents, np.split(p, ends), np.split(number, ends), strict=True
    ):
        smallest = smallest_p(*columns, int(latent), table["fine"], rules.permutations, strata)
        table["p_smallest"] = np.where(np.isnan(table["p_permutation"]), np.nan, smallest)
        table["p_same_cosine"], table["same_cosine_pairs"] = one, pairs


def pair_table(anchors: list[Anchor], aggregation: str, q_max: float) -> dict[str, NDArray[Any]]:
    """Return the columns of ``pairs.parquet`` with q over all edges of all anchors.

    A pair that geometry proposed enters with its own p; one that was found by searching for a
    high correlation with the p of the search, or the search would count as evidence.
    """
    table = joined([anchor.pairs for anchor in anchors], PAIR_COLUMNS)
    searched = table["proposed_by"] == "correlation"
    p_value = np.where(searched, table["p_search"], table["p_permutation"])
    table["q_permutation"] = benjamini_hochberg(p_value)
    table["edge"] = np.select(
        [np.isnan(p_value), table["q_permutation"] <= q_max],
        ["not tested", "not independent"],
        default="not shown",
    )
    table["aggregation"] = np.full(len(p_value), aggregation)
    return table


def _anchor(
    coarse: int, columns: dict[str, NDArray[Any]], fine: Side, pair: Pair, rules: Rules
) -> Anchor:
    """Reduce an anchor's columns [fine] to the rows worth keeping.

    Kept are the union of the top k by cosine and the top k by correlation, and every child.
    """
    cosine, r = columns["cosine"], columns["correlation"]
    behaves = behaves_like_child(rules.rule, r, fine.statistics.selectivity, rules.child)
    aligned = cosine >= rules.child.cosine_min
    child = aligned & behaves
    children = top_latents(np.where(child, cosine, np.nan), len(cosine))
    best = np.union1d(top_latents(cosine, rules.top_k), top_latents(r, rules.top_k))
    kept = np.union1d(best, children)
    kept = kept[np.lexsort((kept, -cosine[kept]))]
    pairs = {name: values[kept] for name, values in columns.items()}
    reading = readings(
        cosine, r, rules.child.cosine_min, rules.cosine_partial, rules.child.correlation_min
    )
    geometric = aligned.copy()
    geometric[top_latents(cosine, rules.top_k)] = True
    low, high = cosine_bins()
    count = pair.neighbours.histogram[coarse].astype(np.int64)
    return Anchor(
        coarse=coarse,
        children=children,
        children_cosines=cosine[children],
        pairs={
            "coarse": np.full(len(kept), coarse),
            "fine": kept,
            **pairs,
            "proposed_by": np.where(geometric[kept], "cosine", "correlation"),
            "reading": reading[kept],
            "child": child[kept],
        },
        histogram={
            "coarse": np.full(len(count), coarse),
            "bin_low": low,
            "bin_high": high,
            "count": count,
        },
        readings={name: int((reading == name).sum()) for name in READINGS},
        aligned_unobserved=int((aligned & np.isnan(r)).sum()),
        behaves=behaves,
        correlated=r >= rules.child.correlation_min,
    )
