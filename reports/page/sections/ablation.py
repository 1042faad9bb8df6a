"""The section on necessity: whether the model uses what the anchor and its children write."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup

from loopscope.reports.page.figures.ablation import losses_picture
from loopscope.views.ablation import AblationView, ablation
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import decimal, signed, signed_interval, small

COLUMNS = ("part", "beyond", "nats lost", "95 % interval", "p", "p (Holm)")
ANSWER_COLUMNS = ("part", "answer", "nats lost", "95 % interval", "KL, nats", "length taken out")


@dataclass(frozen=True)
class AblationSection:
    """What is shown; without an ablation only its ``problem``."""

    seen: AblationView
    figure: Markup = field(default_factory=Markup)
    answers: list[list[str]] = field(default_factory=list)
    contrasts: list[list[str]] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """Why there is nothing to show."""
        return self.seen.problem


def ablation_section(view: ExperimentView) -> AblationSection:
    """Return the ablation of an experiment as the page shows it."""
    seen = ablation(view)
    if seen.told is None:
        return AblationSection(seen)
    told = seen.told
    return AblationSection(
        seen,
        losses_picture(told["answers"], seen.lost),
        [
            [
                one["part"],
                one["answer"],
                signed(one["loss"], 3),
                signed_interval(one["low"], one["high"], 3),
                decimal(one["kl"], 4),
                decimal(one["removed"], 1),
            ]
            for one in told["answers"]
        ],
        [
            [
                one["part"],
                one["against"],
                signed(one["estimate"], 3),
                signed_interval(one["low"], one["high"], 3),
                small(one["p"]),
                small(one["p_holm"]),
            ]
            for one in told["contrasts"]
        ],
    )
