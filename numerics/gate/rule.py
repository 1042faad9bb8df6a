"""Readings of a pair, children of a coarse latent, and the reliability of the gate.

The count "fine latents above the cut-off" means little alone: on a trained pair 77 % of all
coarse latents passed it. So children are counted for every coarse latent, and ``decide`` asks how
the candidates rank among latents of their kind (``matching``, ``calibration`` draw these).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.gate import NULL_ANCHORS_MIN
from loopscope.numerics.latents.features import LatentStatistics
from loopscope.numerics.statistics.multiple_tests import Floats

GateRule = Literal["cosine", "strict"]

READINGS = ("match", "partial", "co-occurring", "geometric-only", "unrelated", "unobserved")


@dataclass(frozen=True)
class SelectionThresholds:
    """When a latent counts as selective for the target."""

    selectivity_min: float
    firing_rate_target_min: float
    firing_rate_neutral_max: float
    q_max: float


@dataclass(frozen=True)
class ChildThresholds:
    """When a fine latent counts as the child of a coarse one."""

    cosine_min: float
    correlation_min: float
    fine_selectivity_min: float


@dataclass(frozen=True)
class ChildCounts:
    """Children of every coarse latent, int64 [coarse].

    ``cosine`` and ``strict`` by the two rules; ``correlated`` by cosine and correlation, whatever
    the fine latent's selectivity: what the strict rule asks of an anchor of any other concept.
    """

    cosine: NDArray[np.int64]
    correlated: NDArray[np.int64]
    strict: NDArray[np.int64]


Outcome = Literal["fails", "passes", "stands out", "untestable"]
Verdict = Literal["GO", "NO-GO", "INCONCLUSIVE"]


@dataclass(frozen=True)
class GateRules:
    """The declared limits of the gate; percentiles from 0 to 100, stability from 0 to 1."""

    subfeatures_min: int
    null_anchors: int
    percentile_min: float
    stability_min: float


@dataclass(frozen=True)
class SelectionPower:
    """Whether a selection could have found anything: k perfect latents pass if k q / m >= p.

    ``smallest_p`` is the p of a perfect latent, ``needed`` how many of them would pass the q of
    ``tested`` latents together, ``top`` how many the selection keeps; ``prompts_needed`` a side
    would do.
    """

    smallest_p: float
    tested: int
    needed: int
    top: int
    prompts_needed: int

    @property
    def is_missing(self) -> bool:
        """Whether not even ``top`` perfect latents, or as many as are tested, could have passed."""
        return self.needed > min(self.top, self.tested)


@dataclass(frozen=True)
class GateEvidence:
    """What the gate decides on.

    ``best_count`` is the largest number of children of a candidate. ``mean_rank`` is the
    candidates' among their matched anchors (0 to 100, 50 where they are like these),
    ``percentile`` places it among ``null_draws`` sets of anchors in their places (both NaN
    without any; ``text_measured``: whether rates over text are known to match by), ``control_p``
    is the largest p of the controls that decide, ``stability`` the share of resamples with
    the same outcome.
    """

    candidates: int
    power: SelectionPower
    best_count: int
    text_measured: bool
    null_draws: int
    mean_rank: float
    percentile: float
    control_p: float
    stability: float


def outcome_of(
    best_count: int, percentile: float, rules: GateRules, *, powerless: bool = False
) -> Outcome:
    """Return whether the count rule fails, passes, or passes where the mean rank does, too.

    ``powerless`` prompts chose no candidate and could not have: of them nothing is known.
    """
    if powerless:
        return "untestable"
    if best_count < rules.subfeatures_min:
        return "fails"
    return "stands out" if percentile >= rules.percentile_min else "passes"


def decide(evidence: GateEvidence, rules: GateRules) -> tuple[Verdict, list[str]]:
    """Return the verdict and what speaks against a firmer one (nothing for a GO).

    NO-GO: no candidate has its children, in at least ``stability_min`` of the resamples, too;
    without candidates only if the selection could have found some. GO: some candidate has them,
    *and* the mean rank of all stands at or above ``percentile_min`` among at least 100 sets of
    matched anchors; no deciding control reaches the count more often than 1 - percentile_min; the
    resamples agree. Everything else is INCONCLUSIVE, so is a gate without rates over text.
    """
    unstable = (
        f"only {evidence.stability:.0%} of the resamples say the same, "
        f"expected {rules.stability_min:.0%}"
    )
    stable = evidence.stability >= rules.stability_min
    if evidence.best_count < rules.subfeatures_min:
        if not evidence.candidates and evidence.power.is_missing:
            return "INCONCLUSIVE", [_without_power(evidence.power)]
        why = (
            f"no candidate has {rules.subfeatures_min} children, the most is {evidence.best_count}"
            if evidence.candidates
            else "no candidates passed the selection"
        )
        return ("NO-GO", [why]) if stable else ("INCONCLUSIVE", [why, unstable])
    doubts = _rank_doubts(evidence, rules)
    if evidence.control_p > 1 - rules.percentile_min / 100 + 1e-9:
        doubts.append(
            "a dictionary that knows nothing of the concept reaches as many "
            f"(p {evidence.control_p:.2f})"
        )
    if not stable:
        doubts.append(unstable)
    return ("INCONCLUSIVE", doubts) if doubts else ("GO", [])


def _rank_doubts(evidence: GateEvidence, rules: GateRules) -> list[str]:
    """Return why the candidates' mean rank does not speak for them, if it does not."""
    if not evidence.text_measured:
        return [
            "the coarse decomposition has no rates over calibration text, so the candidates "
            "cannot be matched with other latents; name calibration.text and decompose again"
        ]
    if evidence.null_draws < NULL_ANCHORS_MIN:
        return [f"only {evidence.null_draws} matched anchors exist, expected {NULL_ANCHORS_MIN}"]
    if evidence.percentile >= rules.percentile_min:
        return []
    return [
        f"the candidates have no more children than matched anchors: their mean rank of "
        f"{evidence.mean_rank:.1f} stands at percentile {evidence.percentile:.1f}, "
        f"expected {rules.percentile_min:g}"
    ]


def steered_first(
    score: Floats, children: NDArray[np.int64], least: int, named: int | None = None
) -> NDArray[np.int64]:
    """Return the order of candidates in which the one to steer comes first, the next best second.

    It is that with the largest ``score`` (selectivity times target firing rate) of those with at
    least ``least`` children, and of all where none has them; equal ones stay as they are. So the
    gate's count and the steering speak of one anchor, chosen without a generated text. ``named`` is
    the place of one that the spec names: it comes before all others.
    """
    places = np.arange(len(score))
    is_other = np.zeros(len(score), dtype=bool) if named is None else places != named
    return np.lexsort((places, -score, children < least, is_other))


def _without_power(power: SelectionPower) -> str:
    return (
        "no latent passed the selection, and with so few prompts none could: a perfect one has "
        f"p {power.smallest_p:.2g}, so {power.needed} of the {power.tested} tested would have to "
        f"be perfect, and selection.top is {power.top}; use at least {power.prompts_needed} "
        "prompts of each condition"
    )


def selective_latents(
    statistics: LatentStatistics, thresholds: SelectionThresholds
) -> NDArray[np.bool_]:
    """Return which latents pass every selection threshold, ``top`` aside.

    Untested latents fail, unless ``q_max`` is 1: then no test is asked for.
    """
    return (
        (statistics.selectivity >= thresholds.selectivity_min)
        & (statistics.firing_rate_target >= thresholds.firing_rate_target_min)
        & (statistics.firing_rate_neutral <= thresholds.firing_rate_neutral_max)
        & ((statistics.q_value <= thresholds.q_max) | (thresholds.q_max >= 1))
    )


def readings(
    cosine: NDArray[np.floating],
    correlation: Floats,
    cosine_min: float,
    cosine_partial: float,
    correlation_min: float,
) -> NDArray[np.str_]:
    """Return the name of where each pair lies, one of ``READINGS``.

    ``unobserved`` is a pair without a correlation (a latent that is silent, or constant, over
    all prompts). With r >= correlation_min a pair is a ``match`` from cosine_min on,
    ``partial`` from cosine_partial on, and else ``co-occurring``; below it ``geometric-only``
    from cosine_min on, and else ``unrelated``.
    """
    correlated = correlation >= correlation_min
    aligned = cosine >= cosine_min
    return np.select(
        [
            np.isnan(correlation),
            correlated & aligned,
            correlated & (cosine >= cosine_partial),
            correlated,
            aligned,
        ],
        ["unobserved", "match", "partial", "co-occurring", "geometric-only"],
        default="unrelated",
    )


def behaves_like_child(
    rule: GateRule,
    correlation: Floats,
    fine_selectivity: Floats,
    thresholds: ChildThresholds,
) -> NDArray[np.bool_]:
    """Return which fine latents ``rule`` takes as children if their cosine is high enough.

    ``cosine`` asks for geometry alone, so a latent that never fires can be a child; ``strict``
    asks for the correlation and the selectivity of the fine latent as well.
    """
    if rule == "cosine":
        return np.ones(correlation.shape, dtype=np.bool_)
    return (correlation >= thresholds.correlation_min) & (
        fine_selectivity >= thresholds.fine_selectivity_min
    )
