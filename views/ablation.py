"""The ablation of an experiment: what target prompts lose by its latents, and by matched ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from loopscope.specs.artifacts.ablation import ABLATION, LOSSES, Ablation
from loopscope.views.experiment import ExperimentView

ASKING = (
    "the spec has no ablation. Add the line `ablation: {}` to the experiment's spec and run it "
    "once more (`loopscope run FILE`): it reads target prompts, and makes nothing else again"
)
"""What to do where there is none."""


@dataclass(frozen=True)
class Lost:
    """Means over prompts of one set of latents: nats lost, and the length of what was taken out."""

    part: str
    control: str
    draw: int
    loss: float
    removed: float


@dataclass(frozen=True)
class AblationView:
    """What is known of an ablation; ``problem`` is why there is none."""

    problem: str = ""
    told: Ablation | None = None
    lost: Sequence[Lost] = field(default_factory=tuple)


def ablation(view: ExperimentView) -> AblationView:
    """Return the ablation of an experiment, or why there is none. Raises Corrupt."""
    stage = view.stage("ablation")
    if not stage.available:
        return AblationView(stage.problem if "ablation" in view.stages else ASKING)
    means = stage.table(LOSSES).groupby(["part", "control", "draw"], sort=False)
    lost = [
        Lost(str(part), str(control), int(draw), float(own["loss"].mean()), own["removed"].mean())
        for (part, control, draw), own in means
    ]
    return AblationView("", stage.document(ABLATION), tuple(lost))
