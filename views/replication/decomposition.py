"""Two decompositions of the same rows, and what parted them: dictionary, thresholds, norms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas

from loopscope.numerics.replication.firing import (
    RELATIVE_MAX,
    Firing,
    FiringRelation,
    Floats,
    firing_relation,
    threshold_precision,
)
from loopscope.specs.artifacts.decomposition import FEATURES, PROMPTS
from loopscope.specs.pipeline import NodeName
from loopscope.views.numbers import counted
from loopscope.views.replication.run import StageRun
from loopscope.views.replication.step import Cause, Step, step_of

CONDITIONS = ("target", "neutral")


def decomposition_step(
    stage: NodeName, first: StageRun, second: StageRun, thresholds: Floats | None
) -> Step:
    """Return how two decompositions differ. ``thresholds`` [latents] of the dictionary, if known.

    Raises Corrupt.
    """
    tables = [run.table(FEATURES) for run in (first, second)]
    if tables[0] is None or tables[1] is None:
        return step_of(stage, first, second, "missing", "its table of latents is not there")
    causes = [*_dictionaries(first, second), *_splits(first, second)]
    if len(tables[0]) != len(tables[1]):
        words = f"{len(tables[0]):,} and {len(tables[1]):,} latents"
        return step_of(stage, first, second, "different", words, causes)
    one, two = (
        _firing(table, run) for table, run in zip(tables, (first, second), strict=True) if run
    )
    relation = firing_relation(one, two)
    if not relation.flipped and not relation.moved:
        words = f"sums of activations differ by at most {relation.largest:.1g} of their size"
        return step_of(stage, first, second, "same numbers", words, causes)
    words = (
        f"{counted(relation.flipped, 'latent')} of {one.shape[1]:,} on other prompts, "
        f"{relation.moved} more strongly or weakly"
    )
    causes += _firing_causes(one, two, relation, thresholds)
    return step_of(stage, first, second, "different", words, causes)


def _dictionaries(first: StageRun, second: StageRun) -> Iterator[Cause]:
    identities = [run.inputs.get("dictionary", {}).get("identity") for run in (first, second)]
    if identities[0] != identities[1]:
        yield Cause("dictionary", "other dictionaries are declared")


def _splits(first: StageRun, second: StageRun) -> Iterator[Cause]:
    """Rates and sums are of the discover half: another half is no other activation."""
    tables = [run.table(PROMPTS) for run in (first, second)]
    halves = [table["split"] for table in tables if table is not None and "split" in table]
    if len(halves) != 2 or len(halves[0]) != len(halves[1]):
        return
    moved = int((halves[0].to_numpy() != halves[1].to_numpy()).sum())
    if moved:
        yield Cause(
            "splits",
            f"{moved} of {counted(len(halves[0]), 'prompt')} are in the other half, discover or "
            "test (splits.seed), and what a latent does is told of those in discover",
        )


def _firing(table: pandas.DataFrame, run: StageRun) -> Firing:
    """Return counts and sums [conditions, latents] of the discover prompts."""
    prompts = run.table(PROMPTS)
    counts, sums, largest = [], [], []
    for condition in CONDITIONS:
        size = 1
        if prompts is not None:
            own = prompts["condition"] == condition
            size = (
                int((own & (prompts["split"] == "discover")).sum())
                if "split" in prompts
                else (int(own.sum()))
            )
        counts.append(np.round(table[f"firing_rate_{condition}"].to_numpy() * size))
        sums.append(table[f"mean_activation_{condition}"].to_numpy() * size)
        largest.append(table[f"max_activation_{condition}"].to_numpy())
    return Firing(*(np.stack(one).astype(np.float64) for one in (counts, sums, largest)))


def _firing_causes(
    one: Firing, two: Firing, relation: FiringRelation, thresholds: Floats | None
) -> Iterator[Cause]:
    if relation.scales is not None:
        low, high = relation.scales
        number = f"{low:.4g}" if high - low <= RELATIVE_MAX * high else f"{low:.4g} to {high:.4g}"
        yield Cause(
            "folded norms",
            f"every latent fires on the same prompts, times a number of its own ({number}): the "
            "norms of its decoder rows are in the activations of one run alone",
        )
    if thresholds is None or thresholds.shape != one.counts.shape[1:]:
        return
    precision = threshold_precision(one, two, thresholds)
    if precision is not None:
        yield Cause(
            f"{precision} thresholds",
            f"{counted(relation.flipped, 'latent')} on other prompts, and what each lost or gained "
            f"lies between its threshold and that threshold as {precision}; nothing else moved",
        )
