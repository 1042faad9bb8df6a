"""The splitting graph of an experiment: its edges, and what became of each latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from loopscope.specs.artifacts.splitting import EDGES, LATENTS, SPLITTING, Splitting
from loopscope.views.experiment import ExperimentView

ASKING = (
    "the spec has no splitting. Add the line `splitting: {}` to the experiment's spec and run it "
    "once more (`loopscope run FILE`): it compares what is there, and makes nothing else again"
)
"""What to do where there is none."""


@dataclass(frozen=True)
class GraphLatent:
    """A latent of one side; ``hole`` is NaN where nothing could have absorbed it."""

    side: str
    latent: int
    candidate: bool
    fate: str
    relatives: int
    hole: float
    firing_rate_target: float


@dataclass(frozen=True)
class GraphEdge:
    """An edge from a coarse latent to a fine one."""

    coarse: int
    fine: int
    cosine: float
    correlation: float
    direct: bool
    twin: bool
    stability: float


@dataclass(frozen=True)
class SplittingView:
    """What is known of a splitting graph; ``problem`` is why there is none."""

    problem: str = ""
    told: Splitting | None = None
    latents: Sequence[GraphLatent] = field(default_factory=tuple)
    edges: Sequence[GraphEdge] = field(default_factory=tuple)

    @property
    def by_chance(self) -> float:
        """Mean number of edges where activations are dealt to other fine rows."""
        chance = self.told["chance"] if self.told else []
        return sum(chance) / len(chance) if chance else float("nan")


def splitting(view: ExperimentView) -> SplittingView:
    """Return the splitting graph of an experiment, or why there is none. Raises Corrupt."""
    stage = view.stage("splitting")
    if not stage.available:
        return SplittingView(stage.problem if "splitting" in view.stages else ASKING)
    latents = [
        GraphLatent(
            str(row["side"]), int(row["latent"]), bool(row["candidate"]), str(row["fate"]),
            int(row["relatives"]), float(row["hole"]), float(row["firing_rate_target"]),
        )
        for row in stage.table(LATENTS).to_dict("records")
    ]  # fmt: skip
    edges = [
        GraphEdge(
            int(row["coarse"]), int(row["fine"]), float(row["cosine"]), float(row["correlation"]),
            bool(row["direct"]), bool(row["twin"]), float(row["stability"]),
        )
        for row in stage.table(EDGES).to_dict("records")
    ]  # fmt: skip
    return SplittingView("", stage.document(SPLITTING), tuple(latents), tuple(edges))
