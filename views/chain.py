"""Chains of dictionaries: experiments on neighbouring pairs, joined where they share a dictionary.

The cells of a sweep over pairs: a pair's fine dictionary is the next one's coarse. Each cell has
its splitting graph and its arms; beside one another they are resolution as an axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from loopscope.numerics.statistics.paired import paired_contrast
from loopscope.specs.artifacts.steering import ARMS, SCORES
from loopscope.views.chain_levels import ChainLevel, Ends, ends_of, in_one_line, joined
from loopscope.views.experiment import ExperimentView
from loopscope.views.scored_cells import groups_of
from loopscope.views.splitting import SplittingView, splitting

ONE_LATENT, CHILDREN = "one latent", "children of the level before"
SAME_RULES = (
    "prompts", "samplesPerPrompt", "maxNewTokens", "sampling", "strengthUnit", "strengths",
    "neutralText", "lexicon", "method", "positions",
)  # fmt: skip
"""What of two steerings must agree for their texts to be compared opening by opening."""


@dataclass(frozen=True)
class Steered:
    """What steering along a level did at one strength: the rate of the concept, and its interval.

    ``against`` is the mean paired difference to one latent of the first level (None for that one,
    or where the two were not steered by the same rules), with ``low`` and ``high``. The error of
    the budgets is not in it.
    """

    level: ChainLevel
    what: str
    experiment: str
    strength: float
    rate: float
    rate_low: float
    rate_high: float
    against: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chain:
    """Dictionaries from coarse to fine, the experiment on each neighbouring pair, and its graph."""

    levels: tuple[ChainLevel, ...]
    pairs: tuple[ExperimentView, ...]
    graphs: tuple[SplittingView, ...]
    steered: tuple[Steered, ...]

    @property
    def words(self) -> str:
        """The dictionaries in one line."""
        return in_one_line(self.levels)

    @property
    def missing(self) -> list[str]:
        """The pairs whose graph is not there, each with the reason."""
        pairs = zip(self.pairs, self.graphs, strict=True)
        return [f"{pair.name}: {graph.problem}" for pair, graph in pairs if graph.problem]


def chains(views: Sequence[ExperimentView]) -> list[Chain]:
    """Return the chains among experiments that ask for a splitting graph (see ``joined``)."""
    by_name = {view.name: view for view in views}
    ends = {
        name: known
        for name, view in by_name.items()
        if (known := ends_of(view.stage("splitting").record, view.stage("coarse").record))
    }
    return [_chain([(by_name[name], ends[name]) for name in way]) for way in joined(ends)]


def _chain(way: Sequence[tuple[ExperimentView, Ends]]) -> Chain:
    levels = (way[0][1].coarse, *(ends.fine for _, ends in way))
    pairs = tuple(view for view, _ in way)
    graphs = tuple(splitting(view) for view in pairs)
    return Chain(levels, pairs, graphs, tuple(_steered(levels, pairs)))


def _steered(levels: Sequence[ChainLevel], pairs: Sequence[ExperimentView]) -> list[Steered]:
    """Return the arms of all pairs by level: one latent, and the children of the level before."""
    cells = [
        (level, what, view, arm)
        for number, level in enumerate(levels)
        for what, view, arm in (
            *(((CHILDREN, pairs[number - 1], "fine"),) if number else ()),
            *(((ONE_LATENT, pairs[number], "coarse"),) if number < len(pairs) else ()),
        )
    ]
    found = []
    for level, what, view, arm in cells:
        stage = view.stage("steering")
        if not stage.available:
            continue
        arms = stage.table(ARMS)
        for row in arms[arms["arm"] == arm].sort_values("strength").to_dict("records"):
            strength = float(row["strength"])
            own = Steered(
                level, what, view.name, strength, float(row["concept_rate"]),
                float(row["concept_low"]), float(row["concept_high"]),
            )  # fmt: skip
            found.append(
                own if view is pairs[0] and arm == "coarse" else _against(own, view, arm, pairs[0])
            )
    return found


def _against(own: Steered, view: ExperimentView, arm: str, first: ExperimentView) -> Steered:
    """Return a row with its difference to one latent of the first level, opening by opening."""
    stages = [one.stage("steering") for one in (view, first)]
    if not all(stage.available for stage in stages):
        return own
    rules = [[stage.spec.get(name) for name in SAME_RULES] for stage in stages]
    if rules[0] != rules[1]:
        return own
    spec: Any = stages[0].spec
    means = [
        _by_opening(stage.table(SCORES), name, own.strength)
        for stage, name in zip(stages, (arm, "coarse"), strict=True)
    ]
    if means[0].empty or list(means[0].index) != list(means[1].index):
        return own
    contrast = paired_contrast(
        f"{arm}-first",
        means[0].to_numpy(dtype=np.float64),
        means[1].to_numpy(dtype=np.float64),
        group=groups_of(spec, [str(one) for one in means[0].index]),
        unit=1.0 / int(spec["samplesPerPrompt"]),
    )
    return Steered(
        own.level, own.what, own.experiment, own.strength, own.rate, own.rate_low, own.rate_high,
        contrast.estimate, contrast.low, contrast.high,
    )  # fmt: skip


def _by_opening(scores: pandas.DataFrame, arm: str, strength: float) -> pandas.Series[float]:
    own = scores[(scores["arm"] == arm) & (scores["strength"] == strength)]
    return own.groupby("prompt_id")["concept"].mean().sort_index()
