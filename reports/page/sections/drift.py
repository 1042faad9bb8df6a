"""The section on drift: how far each anchor reaches, and what temperature adds."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup

from loopscope.reports.page.figures.drift import by_distance, by_temperature
from loopscope.specs.artifacts.drift import DriftOutcome
from loopscope.views.drift import DriftView, drift, half_life_words
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import decimal, interval, small

WORDS = {"kl": "next-token KL, nats", "concept": "gain in concept probability"}


@dataclass(frozen=True)
class DriftSection:
    """What is shown; without a drift only its ``problem``.

    ``rows`` are those of the table of anchors, ``curves`` and ``grids`` pictures with captions.
    """

    seen: DriftView
    rows: list[list[str]] = field(default_factory=list)
    curves: list[tuple[Markup, str]] = field(default_factory=list)
    grids: list[tuple[Markup, str]] = field(default_factory=list)
    grid_rows: list[list[str]] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """Why there is nothing to show."""
        return self.seen.problem


COLUMNS = (
    "outcome",
    "anchor",
    "at the first distance",
    "at the last",
    "half-life, tokens",
    "near minus far",
    "p (Holm)",
    "answer",
    "repeated behind the filler",
)
GRID_COLUMNS = ("anchor", "temperature", "wander", "surprisal", "concept", "gain")


def drift_section(view: ExperimentView) -> DriftSection:
    """Return the drift of an experiment as the page shows it."""
    seen = drift(view)
    if seen.told is None:
        return DriftSection(seen)
    return DriftSection(
        seen,
        [_row(one) for one in seen.told["outcomes"]],
        [(by_distance(seen.curve, outcome), words) for outcome, words in WORDS.items()],
        [
            (by_temperature(seen.grid, outcome), words)
            for outcome, words in (
                ("wander", "How far what is drawn from lies from the anchored distribution."),
                ("gain", "What of the anchoring is left along the samples."),
            )
        ]
        if seen.grid
        else [],
        [
            [
                one.anchor,
                f"{one.temperature:g}",
                _mean(one.wander.estimate, one.wander.low, one.wander.high),
                decimal(one.surprisal, 2),
                _mean(one.concept.estimate, one.concept.low, one.concept.high),
                _mean(one.gain.estimate, one.gain.low, one.gain.high),
            ]
            for one in seen.grid
        ],
    )


def _row(one: DriftOutcome) -> list[str]:
    again = one["again"], one["again_low"], one["again_high"]
    return [
        WORDS[one["outcome"]],
        one["anchor"],
        _mean(one["near"], one["near_low"], one["near_high"]),
        _mean(one["far"], one["far_low"], one["far_high"]),
        half_life_words(one),
        _mean(one["difference"], one["low"], one["high"]),
        small(one["p_holm"]),
        one["fade"],
        "—" if None in again else _mean(*again),
    ]


def _mean(estimate: float | None, low: float | None, high: float | None) -> str:
    if estimate is None or low is None or high is None:
        return "—"
    return f"{_three(estimate)} {interval(low, high, 3)}"


def _three(value: float) -> str:
    return decimal(value, 3)
